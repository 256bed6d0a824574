package wire

import (
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// DecodeRequest reads an encoded AuthorizeRequest, in place: what the request
// says is a part of raw, and its properties are looked up there when a policy
// asks for them.
//
// It is the request that [Request] reads from the message that protobuf decodes,
// and an error, of kind policy.BadRequest, where one of these is; but where
// protobuf lets a later value in the properties replace an earlier one, as with
// two members of one name, it is an error too. What is missing is left empty:
// policy.Limits says which fields are required.
func DecodeRequest(raw string) (policy.Request, error) {
	var r policy.Request
	var m marks
	if p, ok := newPlanter(raw); ok && p.request(0, len(raw), &r, &m) {
		p.place(&r, &m)
		return r, nil
	}
	var odd microwallv1.AuthorizeRequest
	if err := proto.Unmarshal([]byte(raw), &odd); err != nil {
		return policy.Request{}, undecodable("AuthorizeRequest", err)
	}
	f := readRequest(&odd)
	f.once([]byte(raw))
	return f.request()
}

// DecodeBatch reads an encoded AuthorizeBatchRequest as [DecodeRequest] reads a
// request, and gives each item what it leaves to the defaults, as
// [Batch.Request] does. An item that is bad or, by its bytes, too large (see
// [CheckSize]) has a fault instead of a request; there are no faults at all if
// no item has one. A batch that has too many items or none, or cannot be decoded,
// is an error.
func DecodeBatch(raw string, l policy.Limits) (rs []policy.Request, faults []error, err error) {
	if p, ok := newPlanter(raw); ok {
		if rs, faults, ok, err = p.batch(l); ok || err != nil {
			return rs, faults, err
		}
	}
	// What is too many is not decoded: an item can be two bytes.
	encoded := []byte(raw)
	n := 0
	for range encodedItems(encoded) {
		n++
	}
	if err := l.CheckBatch(n); err != nil {
		return nil, nil, err
	}
	var odd microwallv1.AuthorizeBatchRequest
	if err := proto.Unmarshal(encoded, &odd); err != nil {
		return nil, nil, undecodable("AuthorizeBatchRequest", err)
	}
	b := ReadBatch(&odd)
	b.defaults.once(encoded)
	rs, faults = make([]policy.Request, n), make([]error, n)
	i := 0
	for item := range encodedItems(encoded) {
		if faults[i] = CheckSize(len(item), l); faults[i] == nil {
			f := b.fields(i)
			f.once(item)
			rs[i], faults[i] = b.request(i, f)
		}
		i++
	}
	return rs, faults, nil
}

func undecodable(what string, err error) error {
	return policy.Errorf(policy.BadRequest, "message is no %s: %w; encode it as microwall/v1/authorization.proto says", what, err)
}

// marks say what of a request was there, and where its properties are while the
// nodes of the tree still move. Both are by the numbers of AuthorizeRequest's
// fields, which a batch's defaults have too.
type marks struct {
	has   [7]bool
	roots [7]uint32 // the number of the node, plus one
}

// request reads an AuthorizeRequest, or the defaults of a batch.
func (p planter) request(at, to int, r *policy.Request, m *marks) bool {
	for last := byte(0); at < to; {
		number, from, end, ok := p.field(last, at, to)
		if !ok {
			return false
		}
		switch number {
		case 1:
			r.Namespace, ok = policy.Namespace(p.raw[from:end]), utf8.ValidString(p.raw[from:end])
		case 2:
			ok = p.described(from, end, &m.roots[number], &r.Subject.Type, &r.Subject.ID)
		case 3:
			ok = p.described(from, end, &m.roots[number], &r.Action.Name)
		case 4:
			ok = p.described(from, end, &m.roots[number], &r.Resource.Type, &r.Resource.ID)
		case 5:
			ok = p.root(from, end, &m.roots[number])
		case 6:
			r.Freshness, ok = decodeFreshness(p.raw[from:end])
		default:
			return false
		}
		if !ok {
			return false
		}
		m.has[number] = true
		at, last = end, number
	}
	return true
}

// described reads a Subject, an Action or a Resource: texts, and then properties.
func (p planter) described(at, to int, root *uint32, texts ...*string) bool {
	for last := byte(0); at < to; {
		number, from, end, ok := p.field(last, at, to)
		switch i := int(number) - 1; {
		case !ok || i > len(texts):
			return false
		case i == len(texts):
			ok = p.root(from, end, root)
		default:
			*texts[i], ok = p.raw[from:end], utf8.ValidString(p.raw[from:end])
		}
		if !ok {
			return false
		}
		at, last = end, number
	}
	return true
}

// root reads properties.
func (p planter) root(from, end int, root *uint32) bool {
	number, ok := p.object(from, end, 0)
	*root = uint32(number) + 1 //nolint:gosec // fewer nodes than bytes
	return ok
}

// place puts the properties into a request, once all that is read from the
// message is planted.
func (p planter) place(r *policy.Request, m *marks) {
	if root := m.roots[2]; root > 0 {
		r.Subject.Properties = p.properties(root - 1)
	}
	if root := m.roots[3]; root > 0 {
		r.Action.Properties = p.properties(root - 1)
	}
	if root := m.roots[4]; root > 0 {
		r.Resource.Properties = p.properties(root - 1)
	}
	if root := m.roots[5]; root > 0 {
		r.Context = p.properties(root - 1)
	}
}

// batch reads an AuthorizeBatchRequest.
func (p planter) batch(l policy.Limits) (rs []policy.Request, faults []error, ok bool, _ error) {
	const items = 6
	at, to := 0, len(p.raw)
	for at < to && p.raw[at] != message(items) {
		if _, _, at, ok = p.field(0, at, to); !ok {
			return nil, nil, false, nil
		}
	}
	n, end, ok := p.leading(message(items), at, to)
	if !ok {
		return nil, nil, false, nil
	}
	var defaults policy.Request
	var given marks
	if !p.request(0, at, &defaults, &given) {
		return nil, nil, false, nil
	}
	if end < to {
		number, from, last, ok := p.field(items, end, to)
		if !ok || number != items+1 || last != to {
			return nil, nil, false, nil
		}
		if defaults.Freshness, ok = decodeFreshness(p.raw[from:last]); !ok {
			return nil, nil, false, nil
		}
	}
	if err := l.CheckBatch(n); err != nil {
		return nil, nil, false, err
	}
	rs = make([]policy.Request, n)
	ms := make([]marks, n)
	for i := range n {
		from, end, _ := p.part(message(items), at, to)
		at = end
		if err := CheckSize(end-from, l); err != nil {
			if faults == nil {
				faults = make([]error, n)
			}
			faults[i] = err
			continue
		}
		if !p.request(from, end, &rs[i], &ms[i]) {
			return nil, nil, false, nil
		}
	}
	p.place(&defaults, &given)
	for i := range n {
		if faults != nil && faults[i] != nil {
			continue
		}
		p.place(&rs[i], &ms[i])
		ms[i].take(&rs[i], &defaults)
	}
	return rs, faults, true, nil
}

// take gives a request what it leaves to the defaults.
func (m *marks) take(r, defaults *policy.Request) {
	if r.Namespace == "" {
		r.Namespace = defaults.Namespace
	}
	if !m.has[2] {
		r.Subject = defaults.Subject
	}
	if !m.has[3] {
		r.Action = defaults.Action
	}
	if !m.has[4] {
		r.Resource = defaults.Resource
	}
	if !m.has[5] {
		r.Context = defaults.Context
	}
	r.Freshness = r.Freshness.And(defaults.Freshness)
}
