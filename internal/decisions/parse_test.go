package decisions_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/authzen"
	"github.com/microwall/microwall/internal/decisions"
	"github.com/microwall/microwall/policy"
)

func TestACaseIsRead(t *testing.T) {
	cases, err := decisions.Parse([]byte(`# comments are fine
decisions:
  - name: all of it
    namespace: shop.cart
    time: 2026-11-29T18:00:00+02:00
    request:
      subject: {type: workload, id: "spiffe://shop/a", properties: {team: "7"}}
      action: {name: Get, properties: {dry: no}}
      resource: {type: grpc, id: Cart}
      context: {n: 1.50, ip: 10.0.0.1}
    want:
      allowed: true
      reasons: ["shop: a: b"]
      obligations: {mfa: {max_age: 300}}
  - name: an error
    request: {}
    want: {error: subject.type is missing}
  - name: a denial
    time: "2026-11-29T16:00:00Z"
    request: {subject: {}}
    want: {allowed: false, reasons: [], obligations: {}}
`), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) != 3 {
		t.Fatalf("%d cases", len(cases))
	}
	c := cases[0]
	if c.Name != "all of it" || c.Line != 3 || !c.Time.Equal(time.Date(2026, 11, 29, 16, 0, 0, 0, time.UTC)) {
		t.Errorf("first case: %+v", c)
	}
	want := `{"action":{"name":"Get","properties":{"dry":"no"}},"context":{"ip":"10.0.0.1","n":1.5},"namespace":"shop.cart","resource":{"id":"Cart","properties":{},"type":"grpc"},` +
		`"subject":{"id":"spiffe://shop/a","properties":{"team":"7"},"type":"workload"}}`
	if got := spell(t, c.Request); got != want {
		t.Errorf("first request:\n%s\nwant\n%s", got, want)
	}
	if !c.Want.Allowed || c.Want.Error != "" || fmt.Sprint(c.Want.Reasons) != "[shop: a: b]" || c.Want.Obligations.String() != `{"mfa":{"max_age":300}}` {
		t.Errorf("first want: %+v", c.Want)
	}
	if c = cases[1]; c.Want.Error != "subject.type is missing" || c.Request.Namespace != "" || !c.Time.Equal(decisions.DefaultTime()) {
		t.Errorf("second case: %+v", c)
	}
	if c = cases[2]; c.Want.Allowed || c.Want.Reasons == nil || len(c.Want.Reasons) != 0 || c.Want.Obligations == nil || !c.Time.Equal(cases[0].Time) {
		t.Errorf("third case: %+v", c)
	}
}

// Numbers, above all: the request is what the same text would be as JSON.
func TestARequestIsWhatItWouldBeInJSON(t *testing.T) {
	request := `{
      "subject": {"type": "workload", "id": "a", "properties": {"n": [0, -0, 1, 1.0, 1e3, -1.5E-2, 9007199254740993, 123456789012345678901234567890]}},
      "action": {"name": "Get"},
      "resource": {"type": "grpc", "id": "b", "properties": {"x": [true, false, null, "", "yes", "007", "2026-11-23", "10.0.0.1", {"a b": {"": []}}]}},
      "context": {"call_path": ["a"]}
    }`
	cases, err := decisions.Parse([]byte("decisions:\n  - name: x\n    want: {allowed: true}\n    request: "+request), "")
	if err != nil {
		t.Fatal(err)
	}
	r, err := authzen.ParseRequest([]byte(request), "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := spell(t, cases[0].Request), spell(t, r); got != want {
		t.Errorf("YAML gives\n%s\nJSON gives\n%s", got, want)
	}
}

func TestWhatIsWrongIsSaidWithItsLine(t *testing.T) {
	// one writes a file of one case whose second part follows line 4.
	one := func(rest string) string {
		return "decisions:\n  - name: x\n    want: {allowed: true}\n    request:\n      subject: {type: t, id: i}\n" + rest
	}
	want := func(w string) string { return "decisions:\n  - name: x\n    request: {}\n    want: " + w }
	for _, c := range []struct {
		name, file string
		line       int
		text       string
	}{
		{"nothing", "", 0, "the file is empty"},
		{"comments alone", "# nothing\n", 0, "the file is empty"},
		{"no YAML", "decisions:\n  - name: [\n", 2, "the file is not YAML"},
		{"a tab", "decisions:\n\t- name: x\n", 2, "the file is not YAML"},
		{"two documents", "decisions: []\n---\ndecisions: []\n", 0, "more documents"},
		{"not UTF-8", "decisions: \xff", 0, "not UTF-8"},
		{"a list", "- name: x\n", 1, "the file must be a mapping"},
		{"another name", "decision: []\n", 1, `unknown name "decision"`},
		{"a name beside", "decisions: []\nversion: 1\n", 2, `unknown name "version"`},
		{"no list", "decisions: {}\n", 1, "decisions must be a list, not a mapping"},
		{"nothing under it", "decisions:\n", 1, "decisions must be a list, not nothing"},
		{"it twice", "decisions: []\ndecisions: []\n", 2, `"decisions" is there twice`},
		{"a case that is a text", "decisions:\n  - x\n", 2, "a case must be a mapping"},
		{"no name", "decisions:\n  - request: {}\n    want: {allowed: true}\n", 2, "name is missing"},
		{"an empty name", "decisions:\n  - name: ' '\n    request: {}\n    want: {allowed: true}\n", 2, "name is empty"},
		{"a name that is a number", "decisions:\n  - name: 7\n    request: {}\n    want: {allowed: true}\n", 2, "name must be a text, not a number"},
		{"no request", "decisions:\n  - name: x\n    want: {allowed: true}\n", 2, "request is missing"},
		{"no want", "decisions:\n  - name: x\n    request: {}\n", 2, "want is missing"},
		{"a name twice", want("{allowed: true}") + "\n  - name: x\n    request: {}\n    want: {allowed: true}\n", 5, "first in line 2"},
		{"an unknown name in a case", one("    wants: {}\n"), 6, `unknown name "wants"`},
		{"a case twice over", one("    want: {allowed: true}\n"), 6, `"want" is there twice`},

		{"an unknown name in a request", one("      ressource: {type: t, id: i}\n"), 6, `unknown name "ressource"`},
		{"a namespace in a request", one("      namespace: shop\n"), 6, `unknown name "namespace"`},
		{"another case", one("      Resource: {type: t, id: i}\n"), 6, `unknown name "Resource"`},
		{"an unknown name in a subject", strings.Replace(one(""), "id: i", "id: i, name: x", 1), 5, `unknown name "name"`},
		{"a subject twice", one("      subject: {type: t, id: i}\n"), 6, `"subject" is there twice`},
		{"a subject that is a text", strings.Replace(one(""), "{type: t, id: i}", "frontend", 1), 5, "subject must be a mapping of names to values, not a text"},
		{"an id that is a number", strings.Replace(one(""), "id: i", "id: 7", 1), 5, "subject.id must be a text, not a number"},
		{"an id that is a date", strings.Replace(one(""), "id: i", "id: 2026-11-23", 1), 5, "subject.id must be a text, not a date"},
		{"an id that is nothing", strings.Replace(one(""), "id: i", "id: ", 1), 5, "subject.id must be a text, not nothing"},
		{"properties that are a list", one("      action: {name: x, properties: []}\n"), 6, "action.properties must be a mapping of names to values, not a list"},
		{"properties that are nothing", one("      context:\n"), 6, "context must be a mapping of names to values, not nothing"},
		{"a property twice", one("      context:\n        a: 1\n        a: 2\n"), 8, `"a" is there twice`},
		{"a property twice far below", one("      context:\n        a: [{b: {c: 1,\n         c: 2}}]\n"), 8, `"c" is there twice`},
		{"a name that is a number ", one("      context:\n        1: x\n"), 7, "a name must be a text"},
		{"a name that is a boolean", one("      context:\n        true: x\n"), 7, "a name must be a text"},
		{"a name that is a list", one("      context:\n        [a]: x\n"), 7, "a name must be a text"},
		{"a hexadecimal number", one("      context:\n        a: 0x1F\n"), 7, "not a number in JSON's grammar"},
		{"an octal number", one("      context:\n        a: 010\n"), 7, "not a number in JSON's grammar"},
		{"a number with underscores", one("      context:\n        a: 1_000\n"), 7, "not a number in JSON's grammar"},
		{"a number with a plus", one("      context:\n        a: +1\n"), 7, "not a number in JSON's grammar"},
		{"infinity", one("      context:\n        a: .inf\n"), 7, "not a number in JSON's grammar"},
		{"no number", one("      context:\n        a: .nan\n"), 7, "not a number in JSON's grammar"},
		{"a double too large", one("      context:\n        a: 1.0e400\n"), 7, "beyond the range of a double"},
		{"a number beyond YAML's range", one("      context:\n        a: 1e99999\n"), 7, "beyond the range of a double"},
		{"a double that may have changed", one("      context:\n        a: 9007199254740993.0\n"), 7, "beyond 2^53-1"},
		{"a date", one("      context:\n        a: 2026-11-23\n"), 7, "put it in quotes"},
		{"an anchor", one("      context: &a {}\n"), 6, "anchors and aliases are refused"},
		{"an alias", "decisions:\n  - &a\n    name: x\n  - *a\n", 2, "anchors and aliases are refused"},
		{"a merge", one("      context:\n        <<: {a: 1}\n"), 7, "a name must be a text"},
		{"a tag", one("      context:\n        a: !!str 7\n"), 7, "tags are refused"},
		{"bytes", one("      context:\n        a: !!binary aGk=\n"), 7, "tags are refused"},
		{"too deep", one("      context:\n        a: " + strings.Repeat("[", 70) + strings.Repeat("]", 70) + "\n"), 7, "nested deeper than 64 levels"},
		{"far too deep", one("      context:\n        a: " + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "\n"), 7, "the file is not YAML"},

		{"no such namespace", one("    namespace: Shop\n"), 6, `label "Shop"`},
		{"no time", one("    time: noon\n"), 6, "time must be written to the second"},
		{"a day", one("    time: 2026-11-23\n"), 6, "time must be written to the second"},
		{"a time without its zone", one("    time: 2026-11-23T10:00:00\n"), 6, "time must be written to the second"},
		{"a part of a second", one("    time: 2026-11-23T10:00:00.5Z\n"), 6, "time must be written to the second"},
		{"a number of seconds", one("    time: 1795437296\n"), 6, "time must be written to the second"},

		{"nothing wanted", want("{}"), 4, "want.allowed is missing"},
		{"allowed is a text", want("{allowed: 'true'}"), 4, "want.allowed must be true or false, not a text"},
		{"allowed is a number", want("{allowed: 1}"), 4, "want.allowed must be true or false, not a number"},
		{"allowed is nothing", want("{allowed: }"), 4, "want.allowed must be true or false, not nothing"},
		{"allowed is yes", want("{allowed: yes}"), 4, "want.allowed must be true or false, not a text"},
		{"an error and a decision", want("{allowed: false, error: x}"), 4, "an error comes without a decision"},
		{"an empty error", want("{error: ''}"), 4, "want.error is empty"},
		{"an unknown wish", want("{allowed: true, reason: []}"), 4, `unknown name "reason"`},
		{"a reason", want("{allowed: true, reasons: 'shop: x'}"), 4, "want.reasons must be a list"},
		{"a reason that is a number", want("{allowed: true, reasons: [7]}"), 4, "a reason must be a text"},
		{"a reason of nobody", want("{allowed: true, reasons: [late]}"), 4, `reason "late" does not say whose it is; write "shop.cart: late"`},
		{"a reason of nobody in another namespace", want("{allowed: true, reasons: [late]}") + "\n    namespace: shop.ad", 4, `write "shop.ad: late"`},
		{"a reason of no namespace", want("{allowed: true, reasons: ['Too late: x']}"), 4, "does not say whose it is"},
		{"obligations that are a list", want("{allowed: true, obligations: []}"), 4, "want.obligations must be a mapping"},
		{"obligations of a denial", want("{allowed: false, obligations: {mfa: true}}"), 4, "a denial has none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cases, err := decisions.Parse([]byte(c.file), "shop.cart")
			if err == nil {
				t.Fatalf("read as %+v", cases)
			}
			var at *decisions.Error
			if !errors.As(err, &at) {
				t.Fatalf("error is a %T: %v", err, err)
			}
			if at.Line != c.line || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error is %q\nwant line %d and %q", err, c.line, c.text)
			}
			if policy.KindOf(err) != policy.BadRequest {
				t.Errorf("kind is %s", policy.KindOf(err))
			}
		})
	}
}

func TestAFileOverItsLimitIsNotParsed(t *testing.T) {
	_, err := decisions.Parse(bytes.Repeat([]byte("#"), 16<<20+1), "")
	if policy.KindOf(err) != policy.Exhausted {
		t.Errorf("got %v", err)
	}
}

// spell writes a request as one JSON document in one spelling.
func spell(t *testing.T, r policy.Request) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"namespace": r.Namespace,
		"subject":   map[string]any{"type": r.Subject.Type, "id": r.Subject.ID, "properties": r.Subject.Properties},
		"action":    map[string]any{"name": r.Action.Name, "properties": r.Action.Properties},
		"resource":  map[string]any{"type": r.Resource.Type, "id": r.Resource.ID, "properties": r.Resource.Properties},
		"context":   r.Context,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Whatever the file: it is read, or refused with a line that it has. What is
// read can be put, and wants one thing.
func FuzzParse(f *testing.F) {
	// Small seeds: the fuzzer spends its time on making large ones smaller.
	f.Add([]byte("decisions:\n  - name: a\n    want:\n      allowed: true\n      reasons:\n        - \"a: b\"\n    request:\n      action: {name: Get}\n"))
	f.Add([]byte("decisions:\n- {name: x, request: {context: {a: [1, 1.5, null, !!str x, &a b, *a]}}, want: {error: x}}"))
	f.Add([]byte("decisions: [{name: x, time: 2026-11-23T10:00:00Z, namespace: a.b, request: {subject: {type: \"\\u263a\"}}, want: {allowed: false, reasons: ['a: b']}}]"))
	f.Fuzz(func(t *testing.T, file []byte) {
		cases, err := decisions.Parse(file, "")
		if err != nil {
			var at *decisions.Error
			if !errors.As(err, &at) {
				t.Fatalf("error is a %T: %v", err, err)
			}
			if most := bytes.Count(file, []byte("\n")) + bytes.Count(file, []byte("\r")) + strings.Count(string(file), "\u0085") + strings.Count(string(file), "\u2028") + strings.Count(string(file), "\u2029") + 2; at.Line > most {
				t.Errorf("%v, but the file has at most %d lines", err, most)
			}
			return
		}
		seen := map[string]bool{}
		for _, c := range cases {
			if c.Name == "" || seen[c.Name] || c.Line == 0 || c.Time.IsZero() {
				t.Errorf("case %+v", c)
			}
			seen[c.Name] = true
			if c.Want.Error != "" && (c.Want.Allowed || c.Want.Reasons != nil || c.Want.Obligations != nil) {
				t.Errorf("wants an error and more: %+v", c.Want)
			}
			again, err := authzen.ParseRequest([]byte(spell(t, c.Request)), "")
			if err != nil {
				t.Errorf("request is none in JSON: %v", err)
			} else if got, want := spell(t, again), spell(t, c.Request); got != want {
				t.Errorf("in JSON it is\n%s\nwant\n%s", got, want)
			}
		}
	})
}
