package authzen_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/microwall/microwall/internal/authzen"
	"github.com/microwall/microwall/policy"
)

const whole = `{
  "namespace": "boutique.cart",
  "subject": {"type": "workload", "id": "spiffe://boutique.example/ns/default/sa/frontend", "properties": {"team": "shop"}},
  "action": {"name": "AddItem", "properties": {"dry_run": false}},
  "resource": {"type": "grpc", "id": "hipstershop.CartService", "properties": {"tags": ["a", null, {"b": 1.50}]}},
  "context": {"call_path": ["spiffe://boutique.example/ns/default/sa/frontend"], "big": 9007199254740993}
}`

// spell writes a request as one JSON document in one spelling.
func spell(r policy.Request) string {
	b, err := json.Marshal(map[string]any{
		"namespace": r.Namespace,
		"subject":   map[string]any{"type": r.Subject.Type, "id": r.Subject.ID, "properties": r.Subject.Properties},
		"action":    map[string]any{"name": r.Action.Name, "properties": r.Action.Properties},
		"resource":  map[string]any{"type": r.Resource.Type, "id": r.Resource.ID, "properties": r.Resource.Properties},
		"context":   r.Context,
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestAWholeRequestIsRead(t *testing.T) {
	r, err := authzen.ParseRequest([]byte(whole), "other.namespace")
	if err != nil {
		t.Fatal(err)
	}
	if err := (policy.Limits{}).Check(&r); err != nil {
		t.Error(err)
	}
	want := `{"action":{"name":"AddItem","properties":{"dry_run":false}},` +
		`"context":{"big":9007199254740993,"call_path":["spiffe://boutique.example/ns/default/sa/frontend"]},` +
		`"namespace":"boutique.cart",` +
		`"resource":{"id":"hipstershop.CartService","properties":{"tags":["a",null,{"b":1.5}]},"type":"grpc"},` +
		`"subject":{"id":"spiffe://boutique.example/ns/default/sa/frontend","properties":{"team":"shop"},"type":"workload"}}`
	if got := spell(r); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWhoeverAsksIsToldWhatIsIgnored(t *testing.T) {
	const (
		top    = " not action, context, evaluations, namespace, resource, subject"
		entity = " not id, properties, type"
	)
	for src, want := range map[string][]string{
		whole: nil,
		`{"evaluations": [], "context": {"a": 1}, "subject": {"properties": {"b": 2}}}`: nil,
		`{"contxt": {"a": {"b": 1}}, "x": null}`:                                        {"contxt" + top, "x" + top},
		`{"subject": {"colour": 1, "id": "a"}, "resource": {"name": "b"}}`:              {"subject.colour" + entity, "resource.name" + entity},
		`{"action": {"id": "a", "type": "b"}}`:                                          {"action.id not name, properties", "action.type not name, properties"},
		`{"": 1}`:                                                                       {"" + top},
	} {
		var got []string
		told, err := authzen.ParseRequest([]byte(src), "a", authzen.Ignored(func(path string, known []string) {
			got = append(got, path+" not "+strings.Join(known, ", "))
		}))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: told %q, want %q; %v", src, got, want, err)
		}
		if untold, err := authzen.ParseRequest([]byte(src), "a"); err != nil || spell(untold) != spell(told) {
			t.Errorf("%s is %s, and for who asks %s; %v", src, spell(untold), spell(told), err)
		}
	}
}

func TestTheDefaultNamespaceIsForRequestsThatNameNone(t *testing.T) {
	for src, want := range map[string]policy.Namespace{
		`{}`:                             "shop.cart",
		`{"namespace": "shop.payment"}`:  "shop.payment",
		`{"namespace": ""}`:              "",
		`{"namespace": "Not a label !"}`: "Not a label !", // Limits.Check refuses it, as at every door
	} {
		r, err := authzen.ParseRequest([]byte(src), "shop.cart")
		if err != nil || r.Namespace != want {
			t.Errorf("%s: namespace %q, error %v; want %q", src, r.Namespace, err, want)
		}
	}
}

func TestWhatAuthZENDoesNotKnowIsIgnored(t *testing.T) {
	for name, src := range map[string]string{
		"a member of the request":            `{"subject": {"type": "t", "id": "i"}, "trace": {"a": [1, {"b": null}]}}`,
		"a member of the subject":            `{"subject": {"type": "t", "id": "i", "name": "x"}}`,
		"no evaluations":                     `{"subject": {"type": "t", "id": "i"}, "evaluations": []}`,
		"a known name in another's place":    `{"subject": {"type": "t", "id": "i", "subject": {"name": 1}}}`,
		"a known name in another case below": `{"subject": {"type": "t", "id": "i", "properties": {"ID": 1}}, "x": {"Subject": 1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			r, err := authzen.ParseRequest([]byte(src), "")
			if err != nil {
				t.Fatal(err)
			}
			if r.Subject.Type != "t" || r.Subject.ID != "i" {
				t.Errorf("subject is %+v", r.Subject)
			}
		})
	}
}

func TestWhatCouldBeReadInTwoWaysIsRefused(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`[`, n) + strings.Repeat(`]`, n) }
	for _, c := range []struct{ name, src, want string }{
		{"nothing", ``, "request is empty"},
		{"white space", " \n", "request is empty"},
		{"no object", `["subject"]`, "request is an array; it must be an object"},
		{"null", `null`, "request is null; it must be an object"},
		{"half a request", `{"subject": {"type": "t"`, "unexpected EOF"},
		{"half a list", `{"context": {"a": [1`, "unexpected EOF"},
		{"no JSON", `{subject: 1}`, "request is not JSON as it must be"},
		{"a byte order mark", "\ufeff{}", "request is not JSON as it must be"},
		{"something after it", `{} {}`, "something follows the request"},
		{"garbage after it", `{} x`, "request is not JSON as it must be"},
		{"a closing brace too many", `{}}`, "request is not JSON as it must be"},

		{"a member twice", `{"action": {"name": "Get"}, "action": {"name": "Drop"}}`, `duplicate object member name "action"`},
		{"a member twice, once escaped", `{"action": {}, "\u0061ction": {}}`, `duplicate object member name`},
		{"an id twice", `{"subject": {"id": "a", "id": "b"}}`, `duplicate object member name "id"`},
		{"a property twice", `{"context": {"admin": false, "admin": true}}`, `duplicate object member name "admin"`},
		{"a property twice far below", `{"context": {"a": [{"b": {"c": 1, "c": 2}}]}}`, `duplicate object member name "c"`},
		{"an ignored member's member twice", `{"x": {"y": [{"a": 1, "a": 2}]}}`, `duplicate object member name "a"`},

		{"another case", `{"Subject": {}}`, `"Subject" is written "subject"`},
		{"another case beside the right one", `{"subject": {}, "SUBJECT": {}}`, `"SUBJECT" is written "subject"`},
		{"another case below", `{"subject": {"ID": "x"}}`, `"subject.ID" is written "subject.id"`},
		{"another case of properties", `{"resource": {"Properties": {}}}`, `"resource.Properties" is written "resource.properties"`},
		{"another case beyond ASCII", `{"ſubject": {}}`, `"ſubject" is written "subject"`},
		{"another case of the namespace", `{"NameSpace": "a"}`, `"NameSpace" is written "namespace"`},
		{"another case of the evaluations", `{"Evaluations": []}`, `"Evaluations" is written "evaluations"`},

		{"invalid UTF-8 in a value", "{\"subject\": {\"id\": \"\xff\"}}", "invalid UTF-8"},
		{"invalid UTF-8 in a name", "{\"context\": {\"\xff\": 1}}", "invalid UTF-8"},
		{"invalid UTF-8 in what is ignored", "{\"x\": \"\xff\"}", "invalid UTF-8"},
		{"half a surrogate pair", `{"subject": {"id": "\ud800"}}`, "surrogate"},

		{"a subject that is a string", `{"subject": "frontend"}`, "subject is a string; it must be an object"},
		{"a subject that is null", `{"subject": null}`, "subject is null; it must be an object"},
		{"an action that is a list", `{"action": []}`, "action is an array; it must be an object"},
		{"an id that is a number", `{"subject": {"id": 7}}`, "subject.id is a number; it must be a string"},
		{"an id that is null", `{"resource": {"id": null}}`, "resource.id is null; it must be a string"},
		{"a type that is an object", `{"resource": {"type": {}}}`, "resource.type is an object; it must be a string"},
		{"a name that is a boolean", `{"action": {"name": true}}`, "action.name is a boolean; it must be a string"},
		{"a namespace that is a list", `{"namespace": ["a"]}`, "namespace is an array; it must be a string"},
		{"properties that are a list", `{"subject": {"properties": []}}`, "subject.properties is an array; it must be an object"},
		{"properties that are null", `{"action": {"properties": null}}`, "action.properties is null; it must be an object"},
		{"a context that is a string", `{"context": "x"}`, "context is a string; it must be an object"},
		{"a context that is null", `{"context": null}`, "context is null; it must be an object"},

		{"a batch", `{"subject": {}, "evaluations": [{}]}`, "evaluations asks for more decisions than one"},
		{"a batch of another shape", `{"evaluations": {}}`, "evaluations asks for more decisions than one"},

		{"a double too large", `{"context": {"a": {"n": 1e400}}}`, "context.a.n is a number beyond the range of a double"},
		{"a whole number that a double may have changed", `{"context": {"n": 9007199254740993.0}}`, "context.n is a whole number beyond 2^53-1"},
		{"properties too deep", `{"context": {"a": ` + deep(66) + `}}`, "is nested deeper than 64 levels"},
		{"ignored members too deep", `{"x": ` + deep(129) + `}`, "x is nested deeper than 128 levels"},
		{"a document that would exhaust a stack", `{"x": ` + deep(1_000_000) + `}`, "x is nested deeper than 128 levels"},
		{"a document of brackets", strings.Repeat(`[`, 1_000_000), "request is an array"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := authzen.ParseRequest([]byte(c.src), "a")
			if err == nil {
				t.Fatalf("read as %+v", r)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %q; want %q in it", err, c.want)
			}
			if policy.KindOf(err) != policy.BadRequest {
				t.Errorf("kind is %s", policy.KindOf(err))
			}
			if got, none := spell(r), spell(policy.Request{}); got != none {
				t.Errorf("beside the error came %s", got)
			}
		})
	}
}

// What is accepted means the same when it is written out and read again, and is
// JSON to the standard library too.
func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{whole, `{}`, `{"subject": {"id": "\ud83d\ude00"}}`, `{"context": {"n": -0.0e-3, "m": 1E5}}`,
		`{"Subject": {}}`, `{"a": 1, "a": 2}`, `{"context": null}`, `{"evaluations": []}`, "{\"\u2028\": [[[]]]}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		r, err := authzen.ParseRequest(src, "a.b")
		if err != nil {
			if spell(r) != spell(policy.Request{}) {
				t.Errorf("beside error %v came %s", err, spell(r))
			}
			return
		}
		var v struct{ Subject, Action, Resource, Context map[string]any }
		if err := json.Unmarshal(src, &v); err != nil {
			t.Errorf("not JSON to encoding/json: %v", err)
		}
		once := spell(r)
		again, err := authzen.ParseRequest([]byte(once), "c.d")
		if err != nil {
			t.Fatalf("%s is refused when read again: %v", once, err)
		}
		if twice := spell(again); twice != once {
			t.Errorf("read again it is\n%s\nand was\n%s", twice, once)
		}
	})
}
