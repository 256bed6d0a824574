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

// newRequest returns a request of few. trace is part of some.
func newRequest(r *rand.Rand, trace uint64) asking {
	a := asking{}
	a.Namespace = oneOf(r, asked)
	s, o := oneOf(r, subjects), oneOf(r, resources)
	a.Subject = policy.Entity{Type: s[0], ID: s[1]}
	a.Resource = policy.Entity{Type: o[0], ID: o[1]}
	a.Action.Name = oneOf(r, actions)
	var texts [4]string
	traced := [4]bool{}
	if a.unique = r.IntN(3) == 0; a.unique {
		// Nobody reads it, but for those who read all of what it stands in.
		traced[oneOf(r, []int{1, 1, 1, 0, 2, 3})] = true
	}
	for i, part := range []struct {
		to    *policy.Properties
		names []string
	}{
		{&a.Subject.Properties, []string{"role", "level", "tags"}},
		{&a.Action.Properties, []string{"mode"}},
		{&a.Resource.Properties, []string{"frozen", "owner"}},
		{&a.Context, []string{"mfa", "n", "list", "deep"}},
	} {
		held, members := map[string]any{}, []string{}
		for _, name := range part.names {
			if r.IntN(4) > 0 {
				continue
			}
			v := oneOf(r, values)
			held[name], members = v.held, append(members, fmt.Sprintf("%q:%s", name, v.json))
		}
		if traced[i] {
			held["trace"], members = fmt.Sprint(trace), append(members, fmt.Sprintf(`"trace":"%d"`, trace))
		}
		var err error
		if *part.to, err = policy.NewProperties(held); err != nil {
			panic(err) // a table above is wrong
		}
		texts[i] = "{" + strings.Join(members, ",") + "}"
	}
	a.text = fmt.Sprintf(`{"subject":{"type":%q,"id":%q,"properties":%s},"action":{"name":%q,"properties":%s},"resource":{"type":%q,"id":%q,"properties":%s},"context":%s}`,
		s[0], s[1], texts[0], a.Action.Name, texts[1], o[0], o[1], texts[2], texts[3])
	return a
}
