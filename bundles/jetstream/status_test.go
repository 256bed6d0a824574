//go:build unix

package jetstream_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles/jetstream"
)

func TestNobodysStatusKeepsThoseOfOthersFromBeingListed(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	mine, thief := g.connect(t, "cart-1"), g.connect(t, "pay-1")
	const instances = 2500 // more than are asked for at once
	var want []string
	for i := range instances {
		s := jetstream.Status{Namespace: cart, Principal: "cart-1", Instance: fmt.Sprint("i", i), Body: []byte("fine")}
		if err := jetstream.SendStatus(mine.Conn, jetstream.Client, domain, s, time.Minute); err != nil {
			t.Fatal(err)
		}
		want = append(want, s.Instance)
	}
	if err := mine.Flush(); err != nil {
		t.Fatal(err)
	}
	// To clients of NATS, a message without a body is the broker's own word if it
	// has a status.
	for i, header := range []nats.Header{{"Status": {"503"}}, {"Status": {"404"}}, {"Status": {"409"}, "Description": {"Consumer Deleted"}}, {"Status": {"100"}}} {
		header["Nats-TTL"] = []string{"never"}
		m := &nats.Msg{Subject: fmt.Sprint("say.pay-1.boutique_pay.i", i), Header: header}
		if answer, err := thief.RequestMsg(m, patience); err != nil {
			t.Fatalf("%v: %v %v", header, answer, err)
		}
	}
	for range 2 {
		all, err := g.store.Statuses(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range all {
			got = append(got, s.Instance)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%d statuses are listed, not %d", len(got), len(want))
		}
	}
	if all, err := g.store.Statuses(t.Context(), pay); len(all) > 0 || err != nil {
		t.Errorf("%v %v", all, err)
	}
}

// The broker keeps the identities of messages (Nats-Msg-Id) as long as it looks
// for duplicates, in memory that no limit of the stream bounds.
func TestIdentitiesOfStatusesAreForgottenAtOnce(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	api, err := js.New(g.pdp.Conn)
	if err != nil {
		t.Fatal(err)
	}
	window := func() time.Duration {
		stream, err := api.Stream(t.Context(), "STATUS")
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().Config.Duplicates
	}
	if got := window(); got > 100*time.Millisecond {
		t.Errorf("they are kept for %s", got)
	}
	// So they are where the stream was made by an older PDP.
	stream, err := api.Stream(t.Context(), "STATUS")
	if err != nil {
		t.Fatal(err)
	}
	old := stream.CachedInfo().Config
	old.Duplicates = 2 * time.Minute
	if _, err := api.UpdateStream(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	g.open(t, 1)
	if got := window(); got > 100*time.Millisecond {
		t.Errorf("in a stream that was there they are kept for %s", got)
	}
}
