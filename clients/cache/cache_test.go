package cache_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/policy"
)

func props(t testing.TB, m map[string]any) policy.Properties {
	t.Helper()
	p, err := policy.NewProperties(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func request(t testing.TB) policy.Request {
	return policy.Request{
		Namespace: "shop.cart",
		Subject:   policy.Entity{Type: "user", ID: "ann", Properties: props(t, map[string]any{"a": 1})},
		Action:    policy.Action{Name: "read", Properties: props(t, map[string]any{"a": 1})},
		Resource:  policy.Entity{Type: "cart", ID: "7", Properties: props(t, map[string]any{"a": 1})},
		Context:   props(t, map[string]any{"a": 1}),
	}
}

func versions(n byte) []policy.Version {
	return []policy.Version{{Namespace: "shop", Digest: policy.Digest{1}}, {Namespace: "shop.cart", Digest: policy.Digest{n}}}
}

// Whatever a policy can tell apart, the key tells apart.
func TestEveryFieldChangesTheKey(t *testing.T) {
	values := map[string]any{
		"absent": nil, "null": nil, "true": true, "false": false, "zero": 0, "one": 1, "one and a half": 1.5, "text": "", "text 1": "1", "text null": "null",
		"big": json.Number("9007199254740993"), "big and one": json.Number("9007199254740994"), "list": []any{}, "list of one": []any{1}, "list of text": []any{"1"},
		"nested list": []any{[]any{1}}, "object": map[string]any{}, "object with one": map[string]any{"x": 1}, "object with null": map[string]any{"x": nil},
		"quotes": `","x":"`, "braces": `{}`,
	}
	keys := map[string]string{}
	add := func(name string, vs []policy.Version, change func(*policy.Request)) {
		r := request(t)
		change(&r)
		key := string(cache.AppendKey(nil, vs, &r))
		if other, ok := keys[key]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		keys[key] = name
	}
	add("the request", versions(2), func(*policy.Request) {})
	add("another release", versions(3), func(*policy.Request) {})
	add("no guardrail", versions(2)[1:], func(*policy.Request) {})
	add("two guardrails", append(versions(2)[:1:1], versions(2)...), func(*policy.Request) {})
	for name, change := range map[string]func(*policy.Request){
		"namespace":                    func(r *policy.Request) { r.Namespace = "shop.cars" },
		"subject type":                 func(r *policy.Request) { r.Subject.Type = "User" },
		"subject id":                   func(r *policy.Request) { r.Subject.ID = "bob" },
		"action":                       func(r *policy.Request) { r.Action.Name = "write" },
		"resource type":                func(r *policy.Request) { r.Resource.Type = "card" },
		"resource id":                  func(r *policy.Request) { r.Resource.ID = "8" },
		"text moved to the next one":   func(r *policy.Request) { r.Subject.Type, r.Subject.ID = "usera", "nn" },
		"subject and resource swapped": func(r *policy.Request) { r.Subject, r.Resource = r.Resource, r.Subject },
	} {
		add(name, versions(2), change)
	}
	for where, field := range map[string]func(*policy.Request) *policy.Properties{
		"subject":  func(r *policy.Request) *policy.Properties { return &r.Subject.Properties },
		"action":   func(r *policy.Request) *policy.Properties { return &r.Action.Properties },
		"resource": func(r *policy.Request) *policy.Properties { return &r.Resource.Properties },
		"context":  func(r *policy.Request) *policy.Properties { return &r.Context },
	} {
		for name, v := range values {
			m := map[string]any{"v": v}
			if name == "absent" {
				m = nil
			}
			add(where+" "+name, versions(2), func(r *policy.Request) { *field(r) = props(t, m) })
		}
	}
}

func TestTheSameQuestionHasTheSameKey(t *testing.T) {
	a, b := request(t), request(t)
	a.Context = props(t, map[string]any{"x": 1, "y": []string{"z"}, "n": nil})
	b.Context = props(t, map[string]any{"n": nil, "y": []any{"z"}, "x": json.Number("1.0")})
	if string(cache.AppendKey(nil, versions(2), &a)) != string(cache.AppendKey(nil, versions(2), &b)) {
		t.Error("the same question, written differently, has another key")
	}
}

func TestACacheReturnsWhatWasPutIn(t *testing.T) {
	c := cache.New(cache.Config{})
	want := policy.Decision{Allowed: true, Obligations: props(t, map[string]any{"mfa": true}), Versions: versions(2)}
	c.Put([]byte("k"), want)
	got, ok := c.Get([]byte("k"))
	if !ok || !got.Allowed || got.Obligations.String() != want.Obligations.String() || len(got.Versions) != 2 {
		t.Errorf("got %+v, %v", got, ok)
	}
	if _, ok := c.Get([]byte("other")); ok {
		t.Error("hit a key that was never put in")
	}
	if s := c.Stats(); s.Hits != 1 || s.Misses != 1 || s.Entries != 1 || s.Bytes == 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestACacheStaysWithinItsBounds(t *testing.T) {
	t.Run("entries", func(t *testing.T) {
		c := cache.New(cache.Config{Entries: 10})
		for i := range 100 {
			c.Put(fmt.Append(nil, i), policy.Decision{})
		}
		if s := c.Stats(); s.Entries != 10 || s.Evictions != 90 {
			t.Errorf("%+v", s)
		}
		if _, ok := c.Get([]byte("99")); !ok {
			t.Error("the newest is gone")
		}
		if _, ok := c.Get([]byte("0")); ok {
			t.Error("the oldest is there")
		}
	})
	t.Run("bytes", func(t *testing.T) {
		c := cache.New(cache.Config{Bytes: 1 << 16})
		for i := range 1000 {
			c.Put(fmt.Append(nil, i), policy.Decision{Reasons: []policy.Reason{{Text: strings.Repeat("x", 1000)}}})
		}
		if s := c.Stats(); s.Bytes > 1<<16 || s.Entries < 20 {
			t.Errorf("%+v", s)
		}
		c.Put([]byte("large"), policy.Decision{Reasons: []policy.Reason{{Text: strings.Repeat("x", 1<<15)}}})
		if _, ok := c.Get([]byte("large")); ok {
			t.Error("one decision took half of the room")
		}
	})
	t.Run("replacing", func(t *testing.T) {
		c := cache.New(cache.Config{})
		for range 10 {
			c.Put([]byte("k"), policy.Decision{})
		}
		once := cache.New(cache.Config{})
		once.Put([]byte("k"), policy.Decision{})
		if c.Stats().Bytes != once.Stats().Bytes {
			t.Errorf("replacing leaks: %+v, %+v", c.Stats(), once.Stats())
		}
	})
	t.Run("none", func(t *testing.T) {
		c := cache.New(cache.Config{Entries: -1})
		c.Put([]byte("k"), policy.Decision{Allowed: true})
		if _, ok := c.Get([]byte("k")); ok {
			t.Error("kept")
		}
	})
}
