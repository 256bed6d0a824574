package wire

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// MaxMessage is how many bytes a request, a batch or an answer has at most on
// the wire: room for one request at its limit, however it is encoded, or for
// many small ones.
func MaxMessage(l policy.Limits) int { return 16 * l.WithDefaults().RequestBytes }

// BatchProto writes a batch of whole requests, as [RequestProto] makes them,
// and takes them over. A field that all of them share is moved out of them into
// the batch's defaults. Either every item leaves a field to the default or the
// batch has no default for it, so no item can take what another one meant.
func BatchProto(items []*microwallv1.AuthorizeRequest) *microwallv1.AuthorizeBatchRequest {
	m := &microwallv1.AuthorizeBatchRequest{Items: items}
	if len(items) > 1 {
		same := func(a, b string) bool { return a == b }
		share(items, func(r *microwallv1.AuthorizeRequest) *string { return &r.Namespace }, &m.Namespace, same)
		share(items, func(r *microwallv1.AuthorizeRequest) **microwallv1.Subject { return &r.Subject }, &m.Subject, equal)
		share(items, func(r *microwallv1.AuthorizeRequest) **microwallv1.Action { return &r.Action }, &m.Action, equal)
		share(items, func(r *microwallv1.AuthorizeRequest) **microwallv1.Resource { return &r.Resource }, &m.Resource, equal)
		share(items, func(r *microwallv1.AuthorizeRequest) **structpb.Struct { return &r.Context }, &m.Context, equal)
	}
	return m
}

func equal[M proto.Message](a, b M) bool { return proto.Equal(a, b) }

// share moves a field into the default if all items have the same there.
func share[T any](items []*microwallv1.AuthorizeRequest, field func(*microwallv1.AuthorizeRequest) *T, to *T, same func(a, b T) bool) {
	first := *field(items[0])
	for _, r := range items[1:] {
		if !same(*field(r), first) {
			return
		}
	}
	*to = first
	var none T
	for _, r := range items {
		*field(r) = none
	}
}

// BatchItem returns item i of a batch with the batch's defaults put in where
// the item leaves a field out. A default is taken whole.
func BatchItem(m *microwallv1.AuthorizeBatchRequest, i int) *microwallv1.AuthorizeRequest {
	item := m.GetItems()[i]
	whole := &microwallv1.AuthorizeRequest{
		Namespace: item.GetNamespace(), Subject: item.GetSubject(), Action: item.GetAction(), Resource: item.GetResource(), Context: item.GetContext(),
	}
	if whole.GetNamespace() == "" {
		whole.Namespace = m.GetNamespace()
	}
	if whole.GetSubject() == nil {
		whole.Subject = m.GetSubject()
	}
	if whole.GetAction() == nil {
		whole.Action = m.GetAction()
	}
	if whole.GetResource() == nil {
		whole.Resource = m.GetResource()
	}
	if whole.GetContext() == nil {
		whole.Context = m.GetContext()
	}
	return whole
}
