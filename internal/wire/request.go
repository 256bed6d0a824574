package wire

import (
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// Request reads a request. What is missing is left empty: policy.Limits says
// which fields are required.
func Request(m *microwallv1.AuthorizeRequest) (policy.Request, error) {
	r := policy.Request{
		Namespace: policy.Namespace(m.GetNamespace()),
		Subject:   policy.Entity{Type: m.GetSubject().GetType(), ID: m.GetSubject().GetId()},
		Action:    policy.Action{Name: m.GetAction().GetName()},
		Resource:  policy.Entity{Type: m.GetResource().GetType(), ID: m.GetResource().GetId()},
	}
	for _, p := range [...]struct {
		path string
		from *structpb.Struct
		to   *policy.Properties
	}{
		{"subject.properties", m.GetSubject().GetProperties(), &r.Subject.Properties},
		{"action.properties", m.GetAction().GetProperties(), &r.Action.Properties},
		{"resource.properties", m.GetResource().GetProperties(), &r.Resource.Properties},
		{"context", m.GetContext(), &r.Context},
	} {
		var err error
		if *p.to, err = Properties(p.from); err != nil {
			return policy.Request{}, under(p.path, err)
		}
	}
	return r, nil
}

// RequestProto writes a request.
func RequestProto(r *policy.Request) (*microwallv1.AuthorizeRequest, error) {
	m := &microwallv1.AuthorizeRequest{
		Namespace: string(r.Namespace),
		Subject:   &microwallv1.Subject{Type: r.Subject.Type, Id: r.Subject.ID},
		Action:    &microwallv1.Action{Name: r.Action.Name},
		Resource:  &microwallv1.Resource{Type: r.Resource.Type, Id: r.Resource.ID},
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
