package exactness_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/microwall/microwall/policy"
)

// valued is a value as a caller writes it in Go, and as JSON has it. Numbers have one
// spelling, whatever they came as.
type valued struct {
	held any
	json string
}

// values are such as a careless key takes for each other.
var values = []valued{
	{nil, "null"},
	{"", `""`}, {"null", `"null"`}, {"0", `"0"`}, {"1", `"1"`}, {"true", `"true"`}, {"a", `"a"`}, {"[]", `"[]"`}, {`{"a":1}`, `"{\"a\":1}"`},
	{true, "true"}, {false, "false"},
	{0, "0"}, {math.Copysign(0, -1), "0"}, {json.Number("-0"), "0"}, {1, "1"}, {1.0, "1"}, {json.Number("1.0"), "1"}, {uint8(1), "1"}, {1.5, "1.5"}, {-1, "-1"}, {256, "256"},
	{[]any{}, "[]"}, {[]string{}, "[]"}, {[]any{nil}, "[null]"}, {[]any{1}, "[1]"}, {[]any{"1"}, `["1"]`}, {[]string{"a", "b"}, `["a","b"]`}, {[]any{"ab"}, `["ab"]`},
	{[]any{"a", []any{"b"}}, `["a",["b"]]`}, {[]any{[]any{"a"}, "b"}, `[["a"],"b"]`},
	{map[string]any{}, "{}"}, {map[string]any{"": 0}, `{"":0}`}, {map[string]any{"a": nil}, `{"a":null}`}, {map[string]any{"a": 1}, `{"a":1}`}, {map[string]any{"a": "1"}, `{"a":"1"}`},
	{map[string]any{"a": []any{}}, `{"a":[]}`}, {map[string]any{"a": map[string]any{}}, `{"a":{}}`}, {map[string]any{"a": map[string]any{"b": 1}}, `{"a":{"b":1}}`},
	{map[string]any{"a": 1, "b": 2}, `{"a":1,"b":2}`}, {map[string]any{"b": 1, "a": 2}, `{"a":2,"b":1}`},
}

// asking is a request, and what it looks like.
type asking struct {
	policy.Request
	shape shape
	// parts of the input as JSON, all but the time.
	text string
	// unique is true if no other has the same text.
	unique bool
}

var (
	asked     = []policy.Namespace{cart, cart, pay, deep}
	subjects  = [][2]string{{"workload", "a"}, {"workload", "b"}, {"user", "a"}, {"workloada", "b"}}
	actions   = []string{"Add", "Get", "Drop"}
	resources = [][2]string{{"grpc", "a"}, {"grpc", "b"}, {"route", "a"}}
)

// oneOf returns one of all.
func oneOf[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// shape is what a request is made of: places in the tables above.
type shape struct {
	namespace                 policy.Namespace
	subject, action, resource int
	members                   [len(members)]int // place of a value, -1 if absent
}

// members that requests may have, by the part that they are in.
var members = [...]struct {
	part int
	name string
}{{0, "role"}, {0, "level"}, {0, "tags"}, {1, "mode"}, {2, "frozen"}, {2, "owner"}, {3, "mfa"}, {3, "n"}, {3, "list"}, {3, "deep"}}

func newShape(r *rand.Rand) shape {
	s := shape{namespace: oneOf(r, asked), subject: r.IntN(len(subjects)), action: r.IntN(len(actions)), resource: r.IntN(len(resources))}
	for i := range s.members {
		if s.members[i] = -1; r.IntN(4) == 0 {
			s.members[i] = r.IntN(len(values))
		}
	}
	return s
}

// twin returns what differs in one member alone.
func (s shape) twin(r *rand.Rand) shape {
	s.members[r.IntN(len(members))] = r.IntN(len(values)+1) - 1
	return s
}

// request returns a request of a shape. trace is part of some.
func (s shape) request(r *rand.Rand, trace uint64) asking {
	a := asking{shape: s}
	subject, resource := subjects[s.subject], resources[s.resource]
	a.Namespace = s.namespace
	a.Subject = policy.Entity{Type: subject[0], ID: subject[1]}
	a.Resource = policy.Entity{Type: resource[0], ID: resource[1]}
	a.Action.Name = actions[s.action]
	var held [4]map[string]any
	var written [4][]string
	for i := range held {
		held[i] = map[string]any{}
	}
	for i, m := range members {
		if s.members[i] >= 0 {
			v := values[s.members[i]]
			held[m.part][m.name], written[m.part] = v.held, append(written[m.part], fmt.Sprintf("%q:%s", m.name, v.json))
		}
	}
	if a.unique = r.IntN(3) == 0; a.unique {
		// Nobody reads it, but for those who read all of what it stands in.
		part := oneOf(r, []int{1, 1, 1, 0, 2, 3})
		held[part]["trace"], written[part] = fmt.Sprint(trace), append(written[part], fmt.Sprintf(`"trace":"%d"`, trace))
	}
	for i, to := range []*policy.Properties{&a.Subject.Properties, &a.Action.Properties, &a.Resource.Properties, &a.Context} {
		var err error
		if *to, err = policy.NewProperties(held[i]); err != nil {
			panic(err) // a table above is wrong
		}
	}
	texts := func(i int) string { return "{" + strings.Join(written[i], ",") + "}" }
	a.text = fmt.Sprintf(`{"subject":{"type":%q,"id":%q,"properties":%s},"action":{"name":%q,"properties":%s},"resource":{"type":%q,"id":%q,"properties":%s},"context":%s}`,
		subject[0], subject[1], texts(0), a.Action.Name, texts(1), resource[0], resource[1], texts(2), texts(3))
	return a
}
