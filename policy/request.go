package policy

import (
	"unicode/utf8"
)

// Request is the question whether a subject may do an action to a resource: the
// information model of the OpenID AuthZEN Authorization API 1.0, and the
// namespace whose policy answers. It is passed by value.
type Request struct {
	// Namespace whose policy answers. Required.
	Namespace Namespace
	// Subject who asks. Type and ID are required.
	Subject Entity
	// Action that is asked for. Its name is required.
	Action Action
	// Resource that it is asked for. Type and ID are required.
	Resource Entity
	// Context of the call. Its member "call_path", if present, lists the
	// SPIFFE IDs from the edge on and ends with the subject.
	Context Properties
	// Freshness that the releases must have which decide. It is no part of the
	// question: policies do not see it. In a batch, what any request asks for
	// counts for all.
	Freshness Freshness
}

// Entity is a subject or a resource.
type Entity struct {
	// Type, for instance "workload" or "grpc".
	Type string
	// ID within the type.
	ID string
	// Properties; the zero value is {}.
	Properties Properties
}

// Action is what a subject wants to do.
type Action struct {
	// Name, for instance the gRPC method "AddItem".
	Name string
	// Properties; the zero value is {}.
	Properties Properties
}

// Limits bound what is accepted before it is looked at any further. A field
// that is zero has its default.
type Limits struct {
	// RequestBytes is the size of one request at most: its strings, names and
	// numbers as they stand in JSON. Zero is 1 MiB.
	RequestBytes int
	// BatchItems is how many requests one batch has at most. Zero is 1,000.
	BatchItems int
	// CallPath is how many elements context.call_path has at most. Zero is 32.
	CallPath int
}

// WithDefaults returns l with its zero fields replaced by their defaults.
func (l Limits) WithDefaults() Limits {
	if l.RequestBytes == 0 {
		l.RequestBytes = 1 << 20
	}
	if l.BatchItems == 0 {
		l.BatchItems = 1000
	}
	if l.CallPath == 0 {
		l.CallPath = 32
	}
	return l
}

// CheckBatch returns an [Exhausted] error if a batch of n requests is too large
// and a [BadRequest] error if it is empty.
func (l Limits) CheckBatch(n int) error {
	if most := l.WithDefaults().BatchItems; n > most {
		return Errorf(Exhausted, "batch has %d requests, the limit is %d; split it, or raise --max-batch", n, most)
	}
	if n == 0 {
		return Errorf(BadRequest, "batch has no requests; put at least one in it")
	}
	return nil
}

// Check returns nil if r is complete and within the limits, and otherwise an
// error of kind [BadRequest] or [Exhausted] that names the field. Every way
// into a decision calls it, so that a request means the same at all of them.
func (l Limits) Check(r *Request) error {
	if _, err := ParseNamespace(string(r.Namespace)); err != nil {
		return err
	}
	for _, f := range [...]struct{ path, value string }{
		{"subject.type", r.Subject.Type}, {"subject.id", r.Subject.ID}, {"action.name", r.Action.Name},
		{"resource.type", r.Resource.Type}, {"resource.id", r.Resource.ID},
	} {
		if f.value == "" {
			return Errorf(BadRequest, "%s is missing or empty; every request names it", f.path)
		}
		if !utf8.ValidString(f.value) {
			return Errorf(BadRequest, "%s is not valid UTF-8", f.path)
		}
	}
	size := len(r.Subject.Type) + len(r.Subject.ID) + len(r.Action.Name) + len(r.Resource.Type) + len(r.Resource.ID) +
		r.Subject.Properties.size + r.Action.Properties.size + r.Resource.Properties.size + r.Context.size
	l = l.WithDefaults()
	if size > l.RequestBytes {
		return Errorf(Exhausted, "request is %d bytes, the limit is %d; send less, or raise --max-request-bytes", size, l.RequestBytes)
	}
	if err := l.checkCallPath(r.Context); err != nil {
		return err
	}
	return r.Freshness.Check()
}

// checkCallPath looks at Go's own maps and slices without a Value for each: nearly
// all requests have them, and every one is looked at.
func (l Limits) checkCallPath(context Properties) error {
	if m, ok := context.object.(map[string]any); ok {
		switch path := m["call_path"].(type) {
		case nil:
			if _, ok := m["call_path"]; !ok {
				return nil
			}
		case []string:
			return l.checkDepth(len(path))
		case []any:
			for i := range path {
				if _, ok := path[i].(string); !ok { // it is UTF-8, or these were no Properties
					return notText(i)
				}
			}
			return l.checkDepth(len(path))
		}
	}
	path, ok := context.Get("call_path")
	if !ok {
		return nil
	}
	if path.Type() != Array {
		return Errorf(BadRequest, "context.call_path is not an array; it lists the SPIFFE IDs from the edge on")
	}
	if list, ok := path.ref.(interface{ OnlyTexts() bool }); !ok || !list.OnlyTexts() {
		for i := range path.Len() {
			if path.Index(i).Type() != String {
				return notText(i)
			}
		}
	}
	return l.checkDepth(path.Len())
}

func (l Limits) checkDepth(n int) error {
	if n > l.CallPath {
		return Errorf(Exhausted, "context.call_path has %d elements, the limit is %d; raise --max-call-path if calls really go that deep", n, l.CallPath)
	}
	return nil
}

func notText(i int) error {
	return Errorf(BadRequest, "context.call_path[%d] is not a string; it lists SPIFFE IDs", i)
}
