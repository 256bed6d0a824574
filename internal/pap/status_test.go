package pap_test

import (
	"context"
	"io"
	"testing"

	"google.golang.org/grpc"

	"github.com/microwall/microwall/internal/pap"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// inventive is a server that lists statuses of nobody.
type inventive struct {
	grpc.ClientConnInterface
	grpc.ClientStream
	answers []*microwallv1.InstanceStatus
}

func (i *inventive) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return i, nil
}

func (*inventive) SendMsg(any) error { return nil }
func (*inventive) CloseSend() error  { return nil }

func (i *inventive) RecvMsg(m any) error {
	if i.answers == nil {
		return io.EOF
	}
	m.(*microwallv1.ListStatusesResponse).Statuses, i.answers = i.answers, nil
	return nil
}

func TestOfStatusesOnlyThoseOfSomebodyAreListed(t *testing.T) {
	const evil = "\x1b[2J"
	server := &inventive{}
	for _, names := range [][3]string{{"shop.cart", "cart-1", "a"}, {evil, "cart-1", "a"}, {"shop.cart", evil, "a"}, {"shop.cart", "cart-1", evil}, {"shop.cart", "", ""}} {
		server.answers = append(server.answers, &microwallv1.InstanceStatus{Namespace: names[0], Principal: names[1], Instance: names[2], Report: []byte(`{"role":"pdp\u001b[2J"}`)})
	}
	all, err := pap.New(server, "server", nil).Statuses(t.Context(), "")
	if err != nil || len(all) != 1 || all[0].Instance != "a" || all[0].Role != "pdp [2J" {
		t.Errorf("%+v, %v", all, err)
	}
}
