package decisions_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/decisions"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

const shopPolicy = `package authz

deny contains "outside" if input.subject.type != "workload"

obligations["log"] := "all" if input.action.name == "Charge"
`

const cartPolicy = `package authz

allow if input.action.name in {"Get", "Charge"}

allow if {
	input.action.name == "Late"
	input.time.hour < 13
}

reasons contains "on call" if input.time.weekday == "monday"

reasons contains "read only" if input.action.name == "Get"

obligations["mfa"] := {"max_age": 300} if input.action.name == "Charge"

deny contains sprintf("not %d", [to_number(input.context.n)]) if input.context.n
`

// shop is a snapshot with the guardrail shop and the namespace shop.cart.
func shop(t *testing.T) *live.Snapshot {
	t.Helper()
	all := map[policy.Namespace]*bundles.Bundle{}
	for n, source := range map[policy.Namespace]string{"shop": shopPolicy, "shop.cart": cartPolicy} {
		b, err := bundles.Read(fstest.MapFS{"authz.rego": {Data: []byte(source)}})
		if err != nil {
			t.Fatal(err)
		}
		all[n] = b
	}
	s, err := live.NewLocal(t.Context(), all, []policy.Namespace{"shop"}, rego.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatDiffersIsShown(t *testing.T) {
	get := "request: {subject: {type: workload, id: a}, action: {name: Get}, resource: {type: grpc, id: Cart}}\n    "
	charge := strings.Replace(get, "Get", "Charge", 1)
	drop := strings.Replace(get, "Get", "Drop", 1)
	stranger := strings.Replace(get, "type: workload", "type: user", 1)
	n := func(value string) string {
		return strings.Replace(get, "}}\n", "}, context: {n: "+value+"}}\n", 1)
	}
	for _, c := range []struct{ name, body, failure string }{
		{"an allow", get + "want: {allowed: true}", ""},
		{"an allow with its reasons, in any order", get + "want: {allowed: true, reasons: ['shop.cart: read only', 'shop.cart: on call']}", ""},
		{"an allow with obligations of the guardrail too", charge + "want: {allowed: true, obligations: {log: all, mfa: {max_age: 300.0}}}", ""},
		{"a denial by default", drop + "want: {allowed: false, reasons: [], obligations: {}}", ""},
		{"a denial by the guardrail", stranger + "want: {allowed: false, reasons: ['shop: outside']}", ""},
		{"a denial in a namespace without allow", "namespace: shop\n    " + get + "want: {allowed: false, reasons: []}", ""},
		{"an error", "request: {subject: {type: workload}}\n    want: {error: subject.id is missing}", ""},
		{"an error of the policy", n("x") + "want: {error: 'namespace shop.cart: policy failed'}", ""},
		{"an unknown namespace", "namespace: shop.payment\n    " + get + "want: {error: namespace shop.payment has no folder here}", ""},
		{"a limit", strings.Replace(get, "}}\n", "}, context: {call_path: a}}\n", 1) + "want: {error: context.call_path is not an array}", ""},
		{"the default time is a Monday noon", strings.Replace(get, "Get", "Late", 1) + "want: {allowed: true, reasons: ['shop.cart: on call']}", ""},
		{"another time", "time: 2026-01-06T13:00:00Z\n    " + strings.Replace(get, "Get", "Late", 1) + "want: {allowed: false}", ""},

		{"denied, not allowed", drop + "want: {allowed: true}", "- allowed: true\n+ allowed: false\n  no rule of shop.cart allowed it"},
		{"denied by the guardrail, not allowed", stranger + "want: {allowed: true}", "- allowed: true\n+ allowed: false\n  reason: shop: outside"},
		{"allowed, not denied", get + "want: {allowed: false}", "- allowed: false\n+ allowed: true\n  reason: shop.cart: on call\n  reason: shop.cart: read only"},
		{"denied for another reason", n("7") + "want: {allowed: false, reasons: ['shop: outside']}", "- reason: shop: outside\n+ reason: shop.cart: not 7"},
		{"a reason too many", get + "want: {allowed: true, reasons: ['shop.cart: on call']}", "+ reason: shop.cart: read only"},
		{"a reason too few", drop + "want: {allowed: false, reasons: ['shop: outside']}", "- reason: shop: outside"},
		{"a reason that is wanted twice", stranger + "want: {allowed: false, reasons: ['shop: outside', 'shop: outside']}", "- reason: shop: outside"},
		{"allowed, with reasons of a denial", get + "want: {allowed: false, reasons: ['shop: outside']}",
			"- allowed: false\n+ allowed: true\n- reason: shop: outside\n+ reason: shop.cart: on call\n+ reason: shop.cart: read only"},
		{"other obligations", charge + "want: {allowed: true, obligations: {mfa: {max_age: 300}}}",
			"- obligations: {\"mfa\":{\"max_age\":300}}\n+ obligations: {\"log\":\"all\",\"mfa\":{\"max_age\":300}}"},
		{"obligations, not none", charge + "want: {allowed: true, obligations: {}}",
			"- obligations: {}\n+ obligations: {\"log\":\"all\",\"mfa\":{\"max_age\":300}}"},
		{"an error is no denial", "request: {}\n    want: {allowed: false}", "- allowed: false\n+ error: subject.type is missing or empty; every request names it"},
		{"a denial is no error", drop + "want: {error: nothing allows it}", "- error: nothing allows it\n+ allowed: false\n  no rule of shop.cart allowed it"},
		{"another error", "request: {}\n    want: {error: resource}", "- error: resource\n+ error: subject.type is missing or empty; every request names it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cases, err := decisions.Parse([]byte("decisions:\n  - name: x\n    "+c.body), "")
			if err != nil {
				t.Fatal(err)
			}
			results, err := decisions.Run(t.Context(), shop(t), cases, "shop.cart")
			if err != nil {
				t.Fatal(err)
			}
			if len(results) != 1 || results[0].Failure != c.failure {
				t.Errorf("got\n%s\nwant\n%s", results[0].Failure, c.failure)
			}
		})
	}
}

func TestARunThatIsCutOffSaysSo(t *testing.T) {
	cases, err := decisions.Parse([]byte("decisions:\n  - name: x\n    request: {}\n    want: {error: context canceled}"), "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if results, err := decisions.Run(ctx, shop(t), cases, "shop.cart"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, %v", results, err)
	}
}
