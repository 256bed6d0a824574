package main

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
)

// What connections do not read waits in the server's memory, and anybody on this
// machine may connect.
func TestClientsHoldNoMoreConnectionsThanTheServerHasRoomFor(t *testing.T) {
	s := newSite(t, "--max-nats-connections", "2")
	for range 2 {
		conn, err := nats.Connect(s.NATS)
		s.must(err)
		defer conn.Close()
	}
	if conn, err := nats.Connect(s.NATS); err == nil {
		conn.Close()
		t.Error("a third client may connect")
	} else if !errors.Is(err, nats.ErrMaxAccountConnectionsExceeded) {
		t.Error(err)
	}
	s.push("cart", "shop.cart", allowsGet, "released revision 1") // the PDP has its own
}
