package live_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

var stamp = rego.NewStamp(testkit.Created)

// state is a live state and the events that it reported.
type state struct {
	*live.Live
	t      testing.TB
	events []live.Event
}

func newState(t testing.TB, d *testkit.Domain, change ...func(*live.Config)) *state {
	t.Helper()
	s := &state{t: t}
	config := live.Config{Trust: d.Trust(), Events: func(e live.Event) { s.events = append(s.events, e) }}
	for _, c := range change {
		c(&config)
	}
	var err error
	if s.Live, err = live.New(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	return s
}

func inDir(dir string) func(*live.Config) { return func(c *live.Config) { c.Dir = dir } }

func packed(b []byte) live.Fetch {
	return func(context.Context) ([]byte, error) { return b, nil }
}

func never(t testing.TB) live.Fetch {
	return func(context.Context) ([]byte, error) {
		t.Error("the bundle was fetched before its release was verified")
		return nil, errors.New("no")
	}
}

func (s *state) offer(r testkit.Release) {
	s.t.Helper()
	if err := s.Offer(s.t.Context(), r.Note(), packed(r.Packed)); err != nil {
		s.t.Fatal(err)
	}
}

// ask returns "allow", "deny" or the kind of error, then reasons.
func ask(t testing.TB, s *live.Snapshot, n policy.Namespace, action string) string {
	t.Helper()
	r := testkit.Request(n, action)
	p, err := s.Path(n)
	if err != nil {
		return policy.KindOf(err).String()
	}
	d, err := p.Decide(t.Context(), rego.NewInput(&r, stamp))
	if err != nil {
		if d.Allowed {
			t.Error("allowed beside an error")
		}
		return policy.KindOf(err).String()
	}
	answer := "deny"
	if d.Allowed {
		answer = "allow"
	}
	for _, reason := range d.Reasons {
		answer += " [" + reason.String() + "]"
	}
	if d.Obligations.Len() > 0 {
		answer += " " + d.Obligations.String()
	}
	return answer
}

func (s *state) ask(n policy.Namespace, action string) string {
	s.t.Helper()
	return ask(s.t, s.Snapshot(), n, action)
}

func (s *state) expect(n policy.Namespace, action, want string) {
	s.t.Helper()
	if got := s.ask(n, action); got != want {
		s.t.Errorf("%s %s: got %q, want %q", n, action, got, want)
	}
}

func (s *state) lastRefusal() error {
	for _, e := range slices.Backward(s.events) {
		if r, ok := e.(live.Refused); ok {
			return r.Err
		}
	}
	return nil
}

const (
	openGuardrail  = `deny contains "never" if input.action.name == "Forbidden"`
	cartAllowsAdd  = "default allow := false\nallow if input.action.name in {\"Add\", \"Forbidden\"}"
	cartAllowsNone = "default allow := false"
)

func TestAReleaseDecides(t *testing.T) {
	d := testkit.NewDomain(t)
	s := newState(t, d)
	s.expect("shop.cart", "Add", "unavailable") // not loaded yet
	s.Synced()
	s.expect("shop.cart", "Add", "not found")
	guardrail := d.Release("center", "shop", nil, d.Rego(openGuardrail))
	s.offer(guardrail)
	cart := d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd))
	s.offer(cart)
	s.expect("shop.cart", "Add", "allow")
	s.expect("shop.cart", "Remove", "deny")
	s.expect("shop.cart", "Forbidden", "deny [shop: never]")
	s.expect("shop.other", "Add", "not found") // never an ancestor's allow
	s.expect("elsewhere", "Add", "not found")

	path, err := s.Snapshot().Path("shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(path.Versions()), fmt.Sprint([]policy.Version{guardrail.Version(), cart.Version()}); got != want {
		t.Errorf("versions %s, want %s", got, want)
	}

	next := d.Release("cart", "shop.cart", cart.Signed, d.Rego(cartAllowsNone))
	before := s.Snapshot()
	s.offer(next)
	s.expect("shop.cart", "Add", "deny")
	if got := ask(t, before, "shop.cart", "Add"); got != "allow" {
		t.Errorf("a snapshot changed: %s", got)
	}
	s.offer(next) // once more is no error
	if len(s.events) != 3 {
		t.Errorf("events: %v", s.events)
	}
}

func TestAGuardrailThatIsNotLoadedLetsNothingThrough(t *testing.T) {
	d := testkit.NewDomain(t)
	s := newState(t, d)
	s.Synced()
	cart := d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd))
	s.offer(cart)
	s.expect("shop.cart", "Add", "unavailable")
	guardrail := d.Release("center", "shop", nil, d.Rego(openGuardrail))
	s.offer(guardrail)
	s.expect("shop.cart", "Add", "allow")
	s.offer(d.Release("center", "shop", guardrail.Signed, nil))
	s.expect("shop.cart", "Add", "unavailable") // a retired one neither
}

func TestGuardrailsBindAndTeamsDecide(t *testing.T) {
	tests := []struct{ name, guardrail, cart, want string }{
		{"a guardrail's allow opens nothing", "allow := true", cartAllowsNone, "deny"},
		{"a team's deny", openGuardrail, "allow := true\ndeny contains \"closed\"", "deny [shop.cart: closed]"},
		{"both deny, sorted", "deny contains \"z\"", "allow := true\ndeny contains \"a\"", "deny [shop: z] [shop.cart: a]"},
		{"a denial has no obligations", "deny contains \"z\"\nobligations.a := 1", "allow := true\nobligations.b := 1", "deny [shop: z]"},
		{"reasons are the team's", "deny contains \"x\" if false\nreasons contains \"g\"", "allow := true\nreasons contains \"t\"", "allow [shop.cart: t]"},
		{"obligations are everybody's", openGuardrail + "\nobligations.log := true", "allow := true\nobligations.mfa := {\"age\": 1}", `allow {"log":true,"mfa":{"age":1}}`},
		{"the same obligation twice", openGuardrail + "\nobligations.mfa := {\"age\": 1}", "allow := true\nobligations.mfa := {\"age\": 1}", `allow {"mfa":{"age":1}}`},
		{"one obligation, two values", openGuardrail + "\nobligations.mfa := 1", "allow := true\nobligations.mfa := 2", "policy failed"},
		{"a guardrail fails", "deny contains \"x\" if to_number(input.subject.id) == 1", "allow := true", "policy failed"},
		{"a guardrail fails where the team denies", "deny contains \"x\" if to_number(input.subject.id) == 1", cartAllowsNone, "policy failed"},
		{"a guardrail's allow is not computed", "allow if to_number(input.subject.id) == 1\ndeny contains \"x\" if false", "allow := true", "allow"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := testkit.NewDomain(t)
			s := newState(t, d)
			s.offer(d.Release("center", "shop", nil, d.Rego(test.guardrail)))
			s.offer(d.Release("cart", "shop.cart", nil, d.Rego(test.cart)))
			s.expect("shop.cart", "Add", test.want)
		})
	}
}

func TestAnAncestorBindsOnlyIfTheTrustFileSaysSo(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	s := newState(t, d)
	s.offer(d.Release("center", "shop", nil, d.Rego(`deny contains "x"`)))
	s.offer(d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd)))
	s.expect("shop.cart", "Add", "allow")
}

// Whatever is wrong with a release, the last good one keeps deciding.
func TestWhatIsRefused(t *testing.T) {
	d := testkit.NewDomain(t)
	good := d.Rego(cartAllowsAdd)
	first := d.Release("cart", "shop.cart", nil, good)
	second := d.Release("cart", "shop.cart", first.Signed, d.Rego(cartAllowsAdd+"\n# 2"))
	evil := d.Rego("allow := true")
	flip := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[at] ^= 1
		return b
	}
	type offer struct {
		note  []byte
		fetch live.Fetch
	}
	release := func(r testkit.Release) offer { return offer{r.Note(), packed(r.Packed)} }
	forged := func(key string, n policy.Namespace, b *bundles.Bundle, change ...func(*bundles.Release)) offer {
		note, _ := d.Forge(key, n, second.Signed, b, change...)
		return offer{note, never(t)}
	}
	evilPacked := bundles.Pack(evil.Tar())
	third := d.Release("cart", "shop.cart", second.Signed, d.Rego(cartAllowsAdd+"\n# 3"))
	for name, test := range map[string]struct {
		offer offer
		kind  policy.Kind
		want  string
	}{
		"a stranger's key":              {forged("stranger", "shop.cart", evil), policy.Denied, "cart"},
		"another team's key":            {forged("pay", "shop.cart", evil), policy.Denied, "cart"},
		"the centre's key for a team":   {forged("center", "shop.cart", evil), policy.Denied, "cart"},
		"no note":                       {offer{[]byte("hello"), never(t)}, policy.BadRequest, ""},
		"an empty note":                 {offer{nil, never(t)}, policy.BadRequest, ""},
		"a flipped bit in the text":     {offer{flip(third.Note(), 30), never(t)}, policy.BadRequest, ""},
		"a replayed older release":      {offer{first.Note(), never(t)}, policy.Conflict, ""},
		"a fork at the same revision":   {release(d.Release("cart", "shop.cart", first.Signed, evil)), policy.Conflict, ""},
		"a fork of what is held":        {release(d.Release("cart", "shop.cart", second.Signed, evil, func(r *bundles.Release) { r.Previous = policy.Digest{9} })), policy.Conflict, ""},
		"an epoch above the trust file": {forged("cart", "shop.cart", evil, func(r *bundles.Release) { r.Epoch, r.Revision = 2, 1 }), policy.Denied, "epoch"},
		"another bundle":                {offer{third.Note(), packed(evilPacked)}, policy.BadRequest, ""},
		"a tampered bundle":             {offer{third.Note(), packed(flip(third.Packed, len(third.Packed)/2))}, policy.BadRequest, ""},
		"half a bundle":                 {offer{third.Note(), packed(third.Packed[:len(third.Packed)/2])}, policy.BadRequest, ""},
		"no bundle":                     {offer{third.Note(), packed(nil)}, policy.BadRequest, ""},
		"a bundle that cannot be had":   {offer{third.Note(), func(context.Context) ([]byte, error) { return nil, policy.Errorf(policy.Unavailable, "gone") }}, policy.Unavailable, "gone"},
		"Rego that does not compile":    {release(d.Release("cart", "shop.cart", second.Signed, d.Rego("allow if x"))), policy.BadRequest, "authz.rego:2:10"},
		"a bundle of another namespace": {release(d.Release("cart", "shop.cart", second.Signed, d.Bundle(map[string]string{"a.rego": "allow := true", ".manifest": `{"metadata":{"microwall":{"namespace":"shop.pay"}}}`}))), policy.BadRequest, "shop.pay"},
		"a canary":                      {forged("cart", "shop.cart", evil, func(r *bundles.Release) { r.Canary = 10 }), policy.BadRequest, "canary"},
		"a patch":                       {forged("cart", "shop.cart", evil, func(r *bundles.Release) { r.Patch = policy.Digest{1} }), policy.BadRequest, "patch"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newState(t, d)
			s.offer(d.Release("center", "shop", nil, d.Rego(openGuardrail)))
			s.offer(first)
			s.offer(second)
			held := s.Snapshot().Versions()
			err := s.Offer(t.Context(), test.offer.note, test.offer.fetch)
			if err == nil || policy.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v (%v), want %v with %q", err, policy.KindOf(err), test.kind, test.want)
			}
			if got := s.Snapshot().Versions(); !slices.Equal(got, held) {
				t.Errorf("versions are %v, were %v", got, held)
			}
			s.expect("shop.cart", "Add", "allow")
			s.expect("shop.cart", "Remove", "deny")
			if s.lastRefusal() == nil {
				t.Error("the refusal was not reported")
			}
		})
	}
}

func TestAForkKeepsTheFirstAndCarriesBoth(t *testing.T) {
	d := testkit.NewDomain(t)
	s := newState(t, d)
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	two := d.Release("cart", "shop.cart", nil, d.Rego("allow := false"))
	s.offer(one)
	err := s.Offer(t.Context(), two.Note(), packed(two.Packed))
	var fork *bundles.ForkError
	if !errors.As(err, &fork) || fork.Held.Digest() != one.Digest() || fork.Next.Digest() != two.Digest() {
		t.Errorf("got %v", err)
	}
	if !errors.As(s.lastRefusal(), &fork) {
		t.Errorf("the alarm has no evidence: %v", s.lastRefusal())
	}
}

func TestARefusedFirstReleaseIsSaidToWhoeverAsks(t *testing.T) {
	d := testkit.NewDomain(t)
	s := newState(t, d)
	s.Synced()
	bad := d.Release("cart", "shop.cart", nil, d.Rego("allow if x"))
	if err := s.Offer(t.Context(), bad.Note(), packed(bad.Packed)); err == nil {
		t.Fatal("taken")
	}
	_, err := s.Snapshot().Path("shop.cart")
	if policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), "authz.rego:2:10") {
		t.Errorf("got %v", err)
	}
	if status := s.Status(); len(status) != 1 || status[0].Refused == nil || status[0].Version.Revision != 0 {
		t.Errorf("status: %+v", status)
	}
}

func TestARetiredNamespaceAnswersClearlyAndCanComeBack(t *testing.T) {
	d := testkit.NewDomain(t)
	s := newState(t, d)
	s.offer(d.Release("center", "shop", nil, d.Rego(openGuardrail)))
	one := d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd))
	s.offer(one)
	gone := d.Release("cart", "shop.cart", one.Signed, nil)
	s.offer(gone)
	_, err := s.Snapshot().Path("shop.cart")
	if policy.KindOf(err) != policy.NotFound || !strings.Contains(err.Error(), "retired") {
		t.Errorf("got %v", err)
	}
	s.offer(d.Release("cart", "shop.cart", gone.Signed, d.Rego(cartAllowsAdd)))
	s.expect("shop.cart", "Add", "allow")
}

func TestTheLastGoodReleasesAreOnDisk(t *testing.T) {
	d := testkit.NewDomain(t)
	dir := t.TempDir()
	s := newState(t, d, inDir(dir))
	s.offer(d.Release("center", "shop", nil, d.Rego(openGuardrail)))
	one := d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsNone))
	s.offer(one)
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego(cartAllowsAdd))
	s.offer(two)

	again := newState(t, d, inDir(dir))
	again.expect("shop.cart", "Add", "allow")
	if err := again.Offer(t.Context(), one.Note(), never(t)); policy.KindOf(err) != policy.Conflict {
		t.Errorf("an older release after a restart: %v", err)
	}

	cart := filepath.Join(dir, "shop.cart.release")
	whole, err := os.ReadFile(cart)
	if err != nil {
		t.Fatal(err)
	}
	evil, evilPacked := d.Forge("stranger", "shop.cart", two.Signed, d.Rego("allow := true"))
	for name, content := range map[string][]byte{
		"empty":                    nil,
		"torn":                     whole[:len(whole)/2],
		"forged":                   bundles.Sealed{Note: evil, Packed: evilPacked}.Append(nil),
		"a bundle of another":      bundles.Sealed{Note: two.Note(), Packed: evilPacked}.Append(nil),
		"a release of another one": must(os.ReadFile(filepath.Join(dir, "shop.release"))),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(cart, content, 0o600); err != nil {
				t.Fatal(err)
			}
			s := newState(t, d, inDir(dir))
			if got := s.ask("shop.cart", "Add"); got != "unavailable" {
				t.Errorf("got %s", got)
			}
			if s.lastRefusal() == nil {
				t.Error("the refusal was not reported")
			}
			if got, err := os.ReadFile(cart); err != nil || string(got) != string(content) {
				t.Errorf("the file was touched: %v", err)
			}
		})
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestAFullDiskLosesNothingThatDecides(t *testing.T) {
	d := testkit.NewDomain(t)
	dir := t.TempDir()
	s := newState(t, d, inDir(dir))
	one := d.Release("center", "shop", nil, d.Rego("allow := true"))
	s.offer(one)
	// A folder in the file's place makes every write of it fail, for root too.
	file := filepath.Join(dir, "shop.release")
	if err := errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	s.offer(d.Release("center", "shop", one.Signed, d.Rego("allow := false")))
	s.expect("shop", "Add", "deny")
	if _, ok := s.events[len(s.events)-1].(live.NotKept); !ok {
		t.Errorf("last event is %#v", s.events[len(s.events)-1])
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A push and the head that comes back from NATS bring the same release at once,
// and the push is acknowledged when it is told that the other was first.
func TestWhoeverComesSecondIsToldSoWhenTheFirstIsOnDisk(t *testing.T) {
	d := testkit.NewDomain(t)
	one := d.Release("center", "shop", nil, d.Rego("default allow := false"))
	two := d.Release("center", "shop", one.Signed, d.Rego("allow := true"))
	for name, second := range map[string]testkit.Release{"the same release": two, "an older one": one} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var s *state
			var other *live.Candidate
			told := make(chan error, 1)
			s = newState(t, d, inDir(dir), func(c *live.Config) {
				c.Events = func(live.Event) { // the first one decides, and is not on disk yet
					go func() {
						err := s.Activate(other)
						if restarted, e := live.New(t.Context(), live.Config{Trust: d.Trust(), Dir: dir}); e != nil {
							t.Error(e)
						} else if got := ask(t, restarted.Snapshot(), "shop", "Add"); got != "allow" {
							t.Errorf("after a crash now: %s", got)
						}
						told <- err
					}()
					select {
					case err := <-told:
						t.Error("the second was told before the first was on disk")
						told <- err
					case <-time.After(100 * time.Millisecond): // it waits
					}
				}
			})
			first, err := s.Prepare(t.Context(), two.Note(), packed(two.Packed))
			if err != nil {
				t.Fatal(err)
			}
			if other, err = s.Prepare(t.Context(), second.Note(), packed(second.Packed)); err != nil {
				t.Fatal(err)
			}
			if err := s.Activate(first); err != nil {
				t.Fatal(err)
			}
			if err := <-told; policy.KindOf(err) != policy.Conflict {
				t.Errorf("the second was told %v", err)
			}
		})
	}
}

func TestOnlyWhatIsFollowedIsTaken(t *testing.T) {
	d := testkit.NewDomain(t)
	s := newState(t, d, func(c *live.Config) { c.Namespaces = []policy.Namespace{"shop.cart"} })
	if got := s.Namespaces(); !slices.Equal(got, []policy.Namespace{"shop", "shop.cart"}) {
		t.Errorf("follows %v", got)
	}
	pay := d.Release("pay", "shop.pay", nil, d.Rego(cartAllowsAdd))
	if err := s.Offer(t.Context(), pay.Note(), never(t)); policy.KindOf(err) != policy.BadRequest {
		t.Errorf("got %v", err)
	}
	s.expect("shop.pay", "Add", "bad request")
}

func TestForgedNamesDoNotFillTheMemory(t *testing.T) {
	d := testkit.NewDomain(t)
	s := newState(t, d)
	for i := range 2000 {
		note, _ := d.Forge("stranger", policy.Namespace(fmt.Sprintf("shop.n%d", i)), nil, nil)
		_ = s.Offer(t.Context(), note, never(t))
	}
	if n := len(s.Status()); n > 1024 {
		t.Errorf("%d namespaces are remembered", n)
	}
}
