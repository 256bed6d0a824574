package authzen_test

import (
	"testing"

	"github.com/microwall/microwall/internal/authzen"
	"github.com/microwall/microwall/policy"
)

func TestARequestThatIsWrittenIsReadAsTheSame(t *testing.T) {
	properties, err := policy.NewProperties(map[string]any{"n": 1.5, "s": "\"\n\u2028<", "l": []any{nil, true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []policy.Request{
		{},
		{
			Namespace: "a.b", Subject: policy.Entity{Type: "t\\", ID: "\"i\"", Properties: properties}, Action: policy.Action{Name: "n", Properties: properties},
			Resource: policy.Entity{Type: "t", ID: "i"}, Context: properties,
		},
	} {
		text := authzen.AppendRequest(nil, r)
		again, err := authzen.ParseRequest(text, "")
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := authzen.AppendRequest(nil, again); string(got) != string(text) {
			t.Errorf("got %s, want %s", got, text)
		}
	}
}
