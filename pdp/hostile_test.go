package pdp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
)

// A team may push tests of any kind. They run here, while everybody else is
// answered.
func TestTheTestsOfABundleHoldNobodyUp(t *testing.T) {
	const (
		budget = time.Second
		prompt = 2 * time.Second // of an answer, on a machine that does other things, too
	)
	d := testkit.NewDomain(t)
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir(), func(c *pdp.ReleasesConfig) { c.TestBudget = budget })
	d.Push(p, "center", "shop", guardrail)
	one := d.Push(p, "cart", "shop.cart", allowsAdd)
	loop := "some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); some c in numbers.range(1, 3000); a + b + c < 0"
	var many strings.Builder
	for i := range 20 {
		fmt.Fprintf(&many, "r%d := %d if input.action.name\n", i, i)
	}
	for name, test := range map[string]struct{ tests, want string }{
		"a test without end":           {"test_x if { " + loop + " }", "tests of the bundle"},
		"many tests without end":       {strings.Repeat("test_x if { "+loop+" }\n", 100), "took over 1s; make them do less"},
		"a shift by two billion":       {"test_x if bits.lsh(1, 2000000000) > 0", "authz_test.test_x at authz_test.rego:2: went over its budget of"},
		"a range of a billion":         {"test_x if count(numbers.range(1, 1000000000)) > 0", "went over its budget of"},
		"all memory":                   {"test_x if count({[a, b] | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000)}) > 0", "tests of the bundle"},
		"lines without end":            {"test_x if { every i in numbers.range(1, 10000000) { print(i) } }", "tests of the bundle"},
		"cases without end":            {"test_x[n] if some n in numbers.range(1, 10000000)", "tests of the bundle"},
		"a case below a case":          {`test_x[n] if { n := "a"; internal.test_case(["a", "b"]) }`, "authz_test.test_x[a][b] at authz_test.rego:2: is not true"},
		"tests that cannot be planned": {"test_x if { data.many[a] == 1; data.many[b] == 2; data.many[c] == 3; data.many[d] == 4; data.many[e] == 5 }", "tests of the bundle"},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := d.Bundle(map[string]string{"authz.rego": allowsAdd, "authz_test.rego": "package authz_test\n" + test.tests, "many.rego": "package many\n" + many.String()})
			note, packed := d.Forge("cart", "shop.cart", one.Release, bundle)
			stop, done := make(chan struct{}), make(chan struct{})
			var asked int
			var slowest time.Duration
			go func() {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					default:
					}
					start := time.Now()
					if got := ask(t, p.Service, "shop.cart", "Add"); got != "allow" {
						t.Errorf("answered %s meanwhile", got)
						return
					}
					asked++
					slowest = max(slowest, time.Since(start))
				}
			}()
			start := time.Now()
			err := push(t, p, note, packed)
			took := time.Since(start)
			close(stop)
			<-done
			t.Logf("refused after %s: %v; %d questions meanwhile, the slowest answer after %s", took, err, asked, slowest)
			if err == nil || !strings.Contains(err.Error(), "code = InvalidArgument") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if took > budget+5*time.Second {
				t.Errorf("it took %s", took)
			}
			if asked == 0 || slowest > prompt {
				t.Errorf("%d questions were answered meanwhile, the slowest after %s", asked, slowest)
			}
			head, err := d.PAP(p).Head(t.Context(), "shop.cart")
			if err != nil || head.Digest() != one.Release.Digest() {
				t.Errorf("the head is %v, %v", head, err)
			}
		})
	}
}
