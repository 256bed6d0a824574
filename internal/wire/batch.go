package wire

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// MaxMessage is how many bytes a batch or an answer has at most on the wire:
// four times the limit of a request, and at least 4 MiB, which is gRPC's own
// default.
func MaxMessage(l policy.Limits) int { return max(4<<20, 4*l.WithDefaults().RequestBytes) }

// CheckSize returns an error of kind policy.Exhausted if a request of so many
// bytes on the wire is too large for l, however its properties are read: over
// twice the limit of a request, and 1 KiB for the namespace and what holds the
// fields. [policy.Limits.Check] needs the properties to be read; this is for
// before. It refuses nothing that Check lets through: protobuf needs at most
// twice the bytes that Check counts.
func CheckSize(size int, l policy.Limits) error {
	limit := l.WithDefaults().RequestBytes
	if size > 2*limit+1<<10 {
		return policy.Errorf(policy.Exhausted, "request is %d bytes on its way, more than the limit of %d bytes leaves room for; send less, or raise --max-request-bytes", size, limit)
	}
	return nil
}

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
		share(items, func(r *microwallv1.AuthorizeRequest) **microwallv1.Freshness { return &r.Freshness }, &m.Freshness, equal)
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

// Batch is a batch that was received.
type Batch struct {
	items    []*microwallv1.AuthorizeRequest
	defaults fields
}

// ReadBatch reads a batch. Its defaults are read once, not once for each item
// that takes them: a thousand items must not make a large default a thousand
// times as dear.
func ReadBatch(m *microwallv1.AuthorizeBatchRequest) *Batch {
	return &Batch{m.GetItems(), read(m.GetNamespace(), m.GetSubject(), m.GetAction(), m.GetResource(), m.GetContext(), m.GetFreshness())}
}

// Len returns the number of items.
func (b *Batch) Len() int { return len(b.items) }

// Request returns item i. A default is taken whole, where the item leaves the
// field out; one that is bad is an error of the items that take it.
func (b *Batch) Request(i int) (policy.Request, error) { return b.request(i, b.fields(i)) }

// fields returns what item i says itself.
func (b *Batch) fields(i int) fields { return readRequest(b.items[i]) }

// request gives item i, of which f is read, what it leaves to the defaults.
func (b *Batch) request(i int, f fields) (policy.Request, error) {
	m := b.items[i]
	if m.GetNamespace() == "" {
		f.namespace = b.defaults.namespace
	}
	if m.GetSubject() == nil {
		f.subject = b.defaults.subject
	}
	if m.GetAction() == nil {
		f.action = b.defaults.action
	}
	if m.GetResource() == nil {
		f.resource = b.defaults.resource
	}
	if m.GetContext() == nil {
		f.context = b.defaults.context
	}
	if f.freshness.err == nil {
		f.freshness.value, f.freshness.err = f.freshness.value.And(b.defaults.freshness.value), b.defaults.freshness.err
	}
	return f.request()
}
