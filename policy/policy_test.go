package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/microwall/microwall/policy"
)

func TestParseNamespace(t *testing.T) {
	long := strings.Repeat("a", 63)
	for s, ok := range map[string]bool{
		"boutique": true, "boutique.cart": true, "a.b.c.d.e.f.g.h": true, "a-b.c1": true, long: true, "1": true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "A": false, "a_b": false, "-a": false, "a-": false,
		"a.b.c.d.e.f.g.h.i": false, long + "a": false, "a b": false, "ä": false, "a/b": false, "a.*": false, "a.>": false, "a\n": false,
	} {
		if _, err := policy.ParseNamespace(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		} else if err != nil && policy.KindOf(err) != policy.BadRequest {
			t.Errorf("%q: kind %v", s, policy.KindOf(err))
		}
	}
}

func TestNamespacesAreComparedLabelByLabel(t *testing.T) {
	for _, test := range []struct {
		n, ancestor policy.Namespace
		want        bool
	}{
		{"a.b", "a", true}, {"a.b", "a.b", true}, {"a.bc", "a.b", false}, {"ab", "a", false}, {"a", "a.b", false}, {"a", "", false},
	} {
		if got := test.n.Within(test.ancestor); got != test.want {
			t.Errorf("%q within %q: %v", test.n, test.ancestor, got)
		}
	}
	if got := fmt.Sprint(policy.Namespace("a.b.c").Ancestors()); got != "[a a.b]" {
		t.Errorf("ancestors: %s", got)
	}
}

func TestTheZeroDecisionDenies(t *testing.T) {
	var d policy.Decision
	var r policy.Result
	if d.Allowed || r.Decision.Allowed {
		t.Error("the zero value allows")
	}
}

func TestNumbersHaveOneSpelling(t *testing.T) {
	for _, test := range []struct {
		in   any
		want string
	}{
		{1, "1"}, {1.0, "1"}, {float32(1), "1"}, {json.Number("1"), "1"}, {json.Number("1.0"), "1"}, {json.Number("1e0"), "1"},
		{json.Number("10e-1"), "1"}, {uint64(math.MaxUint64), "18446744073709551615"}, {int64(math.MinInt64), "-9223372036854775808"},
		{json.Number("9007199254740993"), "9007199254740993"}, {json.Number("123456789012345678901234567890"), "123456789012345678901234567890"},
		{json.Number("-0"), "0"}, {math.Copysign(0, -1), "0"}, {0.1, "0.1"}, {json.Number("0.10"), "0.1"}, {float64(1<<53 - 1), "9007199254740991"},
		{1e-7, "1e-07"}, {json.Number("0.0000001"), "1e-07"},
	} {
		p, err := policy.NewProperties(map[string]any{"n": test.in})
		if err != nil {
			t.Errorf("%v: %v", test.in, err)
			continue
		}
		if got := p.String(); got != `{"n":`+test.want+`}` {
			t.Errorf("%T(%v): %s", test.in, test.in, got)
		}
	}
}

func TestWhatIsNotTheSameAtEveryDoorIsRefused(t *testing.T) {
	type own struct{}
	loop := map[string]any{}
	loop["again"] = loop
	for name, test := range map[string]struct {
		in   any
		want string
	}{
		"NaN":                            {math.NaN(), "x.y[1] is not a finite number"},
		"infinity":                       {math.Inf(1), "finite"},
		"a large double":                 {float64(1 << 53), "2^53-1"},
		"a large double as text":         {json.Number("9007199254740992.0"), "2^53-1"},
		"a number out of range":          {json.Number("1e999"), "range"},
		"a whole number out of range":    {json.Number("-1" + strings.Repeat("0", 309)), "range"},
		"no number":                      {json.Number("0x10"), "grammar"},
		"a number with leading zeros":    {json.Number("01"), "grammar"},
		"an empty number":                {json.Number(""), "grammar"},
		"a lone minus":                   {json.Number("-"), "grammar"},
		"a number that ends in a point":  {json.Number("1."), "grammar"},
		"an exponent without digits":     {json.Number("1e+"), "grammar"},
		"a struct":                       {own{}, "x.y[1] has a Go type"},
		"a pointer":                      {new(int), "Go type"},
		"a channel":                      {make(chan int), "Go type"},
		"bytes":                          {[]byte("x"), "Go type"},
		"invalid UTF-8":                  {"\xff", "UTF-8"},
		"invalid UTF-8 in a string list": {[]string{"ok", "\xff"}, "x.y[1][1] is not valid UTF-8"},
		"invalid UTF-8 in a name":        {map[string]any{"\xff": 1}, "name"},
		"a map that contains itself":     {loop, "nested deeper"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.NewProperties(map[string]any{"x": map[string]any{"y": []any{1, test.in}}})
			if policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestPropertiesAreReadInPlaceWithoutAllocating(t *testing.T) {
	m := map[string]any{"n": 1, "s": "text", "list": []any{"a", 2.5}, "names": []string{"x"}}
	var p policy.Properties
	allocs := testing.AllocsPerRun(100, func() {
		var err error
		if p, err = policy.NewProperties(m); err != nil {
			t.Fatal(err)
		}
		v, _ := p.Get("list")
		if f, ok := v.Index(1).Float64(); !ok || f != 2.5 {
			t.Fatal(f, ok)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestLimitsCheck(t *testing.T) {
	path := func(n int) policy.Properties {
		p, err := policy.NewProperties(map[string]any{"call_path": make([]string, n)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	odd := func(v any) policy.Properties {
		p, err := policy.NewProperties(map[string]any{"call_path": v})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, test := range map[string]struct {
		change func(*policy.Request)
		kind   policy.Kind
		want   string
	}{
		"no namespace":           {func(r *policy.Request) { r.Namespace = "" }, policy.BadRequest, "namespace"},
		"a malformed namespace":  {func(r *policy.Request) { r.Namespace = "A" }, policy.BadRequest, "namespace"},
		"no subject type":        {func(r *policy.Request) { r.Subject.Type = "" }, policy.BadRequest, "subject.type"},
		"no subject id":          {func(r *policy.Request) { r.Subject.ID = "" }, policy.BadRequest, "subject.id"},
		"no action":              {func(r *policy.Request) { r.Action.Name = "" }, policy.BadRequest, "action.name"},
		"no resource type":       {func(r *policy.Request) { r.Resource.Type = "" }, policy.BadRequest, "resource.type"},
		"no resource id":         {func(r *policy.Request) { r.Resource.ID = "" }, policy.BadRequest, "resource.id"},
		"an id that is no UTF-8": {func(r *policy.Request) { r.Subject.ID = "\xff" }, policy.BadRequest, "UTF-8"},
		"too large":              {func(r *policy.Request) { r.Subject.ID = strings.Repeat("x", 1<<20) }, policy.Exhausted, "--max-request-bytes"},
		"a long call path":       {func(r *policy.Request) { r.Context = path(33) }, policy.Exhausted, "call_path"},
		"a call path of 32":      {func(r *policy.Request) { r.Context = path(32) }, policy.Internal, ""},
		"a call path as text":    {func(r *policy.Request) { r.Context = odd("spiffe://x") }, policy.BadRequest, "call_path"},
		"a call path of numbers": {func(r *policy.Request) { r.Context = odd([]any{1}) }, policy.BadRequest, "call_path[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			r := policy.Request{
				Namespace: "a", Subject: policy.Entity{Type: "t", ID: "i"}, Action: policy.Action{Name: "n"}, Resource: policy.Entity{Type: "t", ID: "i"},
			}
			test.change(&r)
			err := policy.Limits{}.Check(&r)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if policy.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v (%v), want %q (%v)", err, policy.KindOf(err), test.want, test.kind)
			}
		})
	}
}

func TestErrorsKeepTheirKindAndCause(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("outer: %w", policy.Errorf(policy.Conflict, "lost: %w", cause))
	if policy.KindOf(err) != policy.Conflict || !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if policy.KindOf(cause) != policy.Internal {
		t.Error("an unknown error has a kind")
	}
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-1", "1.5", "1e3", "01", "1.", "9007199254740993", "1e400"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := policy.NewProperties(map[string]any{"n": json.Number(s)})
		if err != nil {
			return
		}
		if !json.Valid([]byte(s)) {
			t.Fatalf("%q is taken but is not JSON", s)
		}
		// The spelling that is read is read again as the same.
		v, _ := p.Get("n")
		again, err := policy.NewProperties(map[string]any{"n": v.Number()})
		if err != nil || again.String() != p.String() {
			t.Fatalf("%q: %s, then %s, %v", s, p, again, err)
		}
	})
}
