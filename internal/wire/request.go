package wire

import (
	"cmp"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// Request reads a request. What is missing is left empty: policy.Limits says
// which fields are required.
func Request(m *microwallv1.AuthorizeRequest) (policy.Request, error) {
	f := readRequest(m)
	return f.request()
}

func readRequest(m *microwallv1.AuthorizeRequest) fields {
	return read(m.GetNamespace(), m.GetSubject(), m.GetAction(), m.GetResource(), m.GetContext(), m.GetFreshness())
}

// fields are those of a request, or the defaults of a batch, each with what is
// wrong with it.
type fields struct {
	namespace policy.Namespace
	subject   field[policy.Entity]
	action    field[policy.Action]
	resource  field[policy.Entity]
	context   field[policy.Properties]
	freshness field[policy.Freshness]
}

type field[T any] struct {
	value T
	err   error
}

func read(n string, s *microwallv1.Subject, a *microwallv1.Action, r *microwallv1.Resource, c *structpb.Struct, fresh *microwallv1.Freshness) (f fields) {
	f.namespace = policy.Namespace(n)
	f.subject.value = policy.Entity{Type: s.GetType(), ID: s.GetId()}
	f.subject.value.Properties, f.subject.err = propertiesAt("subject.properties", s.GetProperties())
	f.action.value.Name = a.GetName()
	f.action.value.Properties, f.action.err = propertiesAt("action.properties", a.GetProperties())
	f.resource.value = policy.Entity{Type: r.GetType(), ID: r.GetId()}
	f.resource.value.Properties, f.resource.err = propertiesAt("resource.properties", r.GetProperties())
	f.context.value, f.context.err = propertiesAt("context", c)
	f.freshness.value, f.freshness.err = Freshness(fresh)
	return f
}

func propertiesAt(path string, s *structpb.Struct) (policy.Properties, error) {
	p, err := Properties(s)
	if err != nil {
		return policy.Properties{}, under(path, err)
	}
	return p, nil
}

func (f *fields) request() (policy.Request, error) {
	if err := cmp.Or(f.subject.err, f.action.err, f.resource.err, f.context.err, f.freshness.err); err != nil {
		return policy.Request{}, err
	}
	return policy.Request{Namespace: f.namespace, Subject: f.subject.value, Action: f.action.value, Resource: f.resource.value, Context: f.context.value, Freshness: f.freshness.value}, nil
}

// RequestProto writes a request.
func RequestProto(r *policy.Request) (*microwallv1.AuthorizeRequest, error) {
	m := &microwallv1.AuthorizeRequest{
		Namespace: string(r.Namespace),
		Subject:   &microwallv1.Subject{Type: r.Subject.Type, Id: r.Subject.ID},
		Action:    &microwallv1.Action{Name: r.Action.Name},
		Resource:  &microwallv1.Resource{Type: r.Resource.Type, Id: r.Resource.ID},
		Freshness: FreshnessProto(r.Freshness),
	}
	for _, p := range [...]struct {
		path string
		from policy.Properties
		to   **structpb.Struct
	}{
		{"subject.properties", r.Subject.Properties, &m.Subject.Properties},
		{"action.properties", r.Action.Properties, &m.Action.Properties},
		{"resource.properties", r.Resource.Properties, &m.Resource.Properties},
		{"context", r.Context, &m.Context},
	} {
		var err error
		if *p.to, err = PropertiesProto(p.from); err != nil {
			return nil, under(p.path, err)
		}
	}
	return m, nil
}

// under puts the path of the field before an error that names the path inside
// it. Names and numbers in there are as long as the sender wanted, and every
// item of a batch may repeat them, so the middle of a long text is left out.
func under(path string, err error) error {
	text := strings.TrimPrefix(err.Error(), ".")
	if !strings.HasPrefix(text, " ") { // the fault is inside, not the field itself
		text = "." + text
	}
	return policy.Errorf(policy.KindOf(err), "%s%s", path, shorten(text))
}

// maxFault is how much of a fault's text is told at most, in bytes.
const maxFault = 600

// shorten leaves out the middle of a long text: paths are at its start, what is
// wrong and what to do at its end.
func shorten(text string) string {
	if len(text) <= maxFault {
		return text
	}
	return strings.ToValidUTF8(text[:maxFault/2], "") + "..." + strings.ToValidUTF8(text[len(text)-maxFault/2:], "")
}
