package authzen_test

import (
	"encoding/json"
	"testing"

	"github.com/microwall/microwall/internal/authzen"
	"github.com/microwall/microwall/policy"
)

func TestResponse(t *testing.T) {
	obligations, err := policy.NewProperties(map[string]any{"mfa": map[string]any{"max_age": 300}, "a": nil})
	if err != nil {
		t.Fatal(err)
	}
	digest := policy.DigestOf([]byte("x"))
	for _, c := range []struct {
		name     string
		decision policy.Decision
		want     string
	}{
		{"the zero decision denies", policy.Decision{}, `{"decision":false}`},
		{"a plain allow", policy.Decision{Allowed: true}, `{"decision":true}`},
		{"a denial with its reasons", policy.Decision{Reasons: []policy.Reason{{Namespace: "a", Text: "from \"outside\" <b>"}, {Namespace: "a.b", Text: "late"}}},
			`{"decision":false,"context":{"reasons":[{"namespace":"a","reason":"from \"outside\" <b>"},{"namespace":"a.b","reason":"late"}]}}`},
		{"an allow with all", policy.Decision{Allowed: true, Reasons: []policy.Reason{{Namespace: "a", Text: "on call"}}, Obligations: obligations,
			Versions: []policy.Version{{Namespace: "a", Epoch: 1, Revision: 18446744073709551615, Digest: digest}, {Namespace: "a.b"}}},
			`{"decision":true,"context":{"reasons":[{"namespace":"a","reason":"on call"}],"obligations":{"a":null,"mfa":{"max_age":300}},` +
				`"versions":[{"namespace":"a","epoch":1,"revision":18446744073709551615,"digest":"` + digest.String() + `"},{"namespace":"a.b","epoch":0,"revision":0,"digest":"-"}]}}`},
		{"versions alone", policy.Decision{Versions: []policy.Version{{Namespace: "a"}}},
			`{"decision":false,"context":{"versions":[{"namespace":"a","epoch":0,"revision":0,"digest":"-"}]}}`},
		{"a stale allow", policy.Decision{Allowed: true, Versions: []policy.Version{{Namespace: "a"}}, Stale: []policy.Namespace{"a", "a.b"}},
			`{"decision":true,"context":{"versions":[{"namespace":"a","epoch":0,"revision":0,"digest":"-"}],"stale":["a","a.b"]}}`},
		{"a reason that is not UTF-8", policy.Decision{Reasons: []policy.Reason{{Namespace: "a", Text: "x\xffy"}}},
			`{"decision":false,"context":{"reasons":[{"namespace":"a","reason":"x` + "\ufffd" + `y"}]}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := authzen.AppendDecision([]byte("before "), c.decision)
			if string(got) != "before "+c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if !json.Valid(got[len("before "):]) {
				t.Error("not JSON")
			}
		})
	}
}
