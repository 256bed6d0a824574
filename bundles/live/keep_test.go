package live_test

import (
	"slices"
	"testing"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// Whoever is answered by a release, and then meets the process after a crash, is
// answered by it again.
func TestACrashRightAfterAReleaseDecidesTakesNobodyBack(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	dir := t.TempDir()
	one := d.Release("cart", "shop.cart", nil, d.Rego(`allow := true`))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego(`allow := false`))
	var decides policy.Version
	s := newState(t, d, inDir(dir), func(c *live.Config) {
		c.Events = func(e live.Event) {
			a, ok := e.(live.Activated)
			if !ok {
				return
			}
			// It has just begun to decide; the process may end here.
			decides = a.Version
			again, err := live.New(t.Context(), live.Config{Trust: d.Trust(), Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			if held := again.Snapshot().Versions(); !slices.Contains(held, decides) {
				t.Errorf("%v decides, and after a crash %v", decides, held)
			}
		}
	})
	for _, r := range []testkit.Release{one, two} {
		s.offer(r)
		if decides != r.Version() {
			t.Fatalf("%v decides, not %v", decides, r.Version())
		}
	}
}
