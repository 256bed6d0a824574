package policy_test

import (
	"strings"
	"testing"

	"github.com/microwall/microwall/policy"
)

func TestATokenStandsForItsRelease(t *testing.T) {
	for _, v := range []policy.Version{
		{Namespace: "shop", Epoch: 1, Revision: 1, Digest: policy.Digest{1}},
		{Namespace: "shop.cart", Epoch: 1 << 63, Revision: 1<<64 - 1, Digest: policy.DigestOf([]byte("x"))},
	} {
		got, err := v.Token().Version()
		if err != nil || got != v {
			t.Errorf("%+v became %+v, %v", v, got, err)
		}
	}
}

func TestATokenThatWasChangedIsNone(t *testing.T) {
	good := string(policy.Version{Namespace: "shop.cart", Epoch: 1, Revision: 300, Digest: policy.DigestOf([]byte("x"))}.Token())
	bad := []string{"", "mw1.", good[:len(good)-1], good + "A", good + "=", " " + good, strings.ToUpper(good), "mw2." + good[4:], strings.Repeat("A", 5000), "mw1." + strings.Repeat("A", 2000)}
	for i := range good {
		for _, c := range []byte("A_-9\n") {
			if good[i] != c {
				bad = append(bad, good[:i]+string(c)+good[i+1:])
			}
		}
	}
	for _, s := range bad {
		if v, err := policy.Token(s).Version(); policy.KindOf(err) != policy.BadRequest {
			t.Errorf("%.100q is %+v, %v", s, v, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(string(policy.Version{Namespace: "shop", Epoch: 1, Revision: 1}.Token()))
	f.Add("mw1.AQE")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := policy.Token(s).Version()
		if err == nil && string(v.Token()) != s {
			t.Errorf("%q and %q are one token", s, v.Token())
		}
	})
}

func TestFreshnessAddsUp(t *testing.T) {
	a, b := policy.Token("a"), policy.Token("b")
	var zero policy.Freshness
	if !zero.IsZero() || zero.IsHead() || policy.Head.IsZero() || policy.AtLeast(a).IsZero() || !policy.AtLeast().IsZero() {
		t.Error("zero is not what minimises latency alone")
	}
	both := policy.AtLeast(a).And(policy.AtLeast(b)).And(policy.Head)
	if !both.IsHead() || len(both.Tokens()) != 2 || len(policy.AtLeast(a).And(zero).Tokens()) != 1 {
		t.Errorf("%+v", both)
	}
	given := []policy.Token{a}
	f := policy.AtLeast(given...)
	given[0] = b
	if f.Tokens()[0] != a {
		t.Error("what was asked for changed afterwards")
	}
}

// One message has room for tens of thousands of releases: to put them together must
// not take the square of that.
func TestABatchThatNamesVeryManyReleasesHoldsUpNobody(t *testing.T) {
	const items, each = 1000, 40
	all := make([]policy.Freshness, items)
	for i := range all {
		var seen []policy.Version
		var tokens []policy.Token
		for j := range each {
			v := policy.Version{Namespace: "shop.cart", Epoch: 1, Revision: uint64(1 + i*each + j)}
			seen, tokens = append(seen, v), append(tokens, v.Token())
		}
		all[i] = policy.AtLeast(tokens...).NotBefore(seen...)
	}
	var f policy.Freshness
	allocated := testing.AllocsPerRun(1, func() { f = policy.Freshness{}.And(all...).And(all...) })
	if len(f.Tokens()) != items*each || len(f.Seen()) != items*each {
		t.Errorf("%d tokens, %d releases seen", len(f.Tokens()), len(f.Seen()))
	}
	if allocated > items*each/10 {
		t.Errorf("%d releases cost %v allocations", items*each, allocated)
	}
}

// A thousand items may share the tokens of a batch, and each is checked.
func TestTokensAreReadOnceHoweverManyShareThem(t *testing.T) {
	good, bad := policy.Version{Namespace: "shop", Revision: 1}.Token(), policy.Token("mw1.x")
	for name, test := range map[string]struct {
		f    policy.Freshness
		want policy.Kind
		fine bool
	}{
		"none":           {policy.Freshness{}, 0, true},
		"good ones":      {policy.AtLeast(good, good).And(policy.Head, policy.AtLeast(good)), 0, true},
		"a bad one":      {policy.AtLeast(good, bad), policy.BadRequest, false},
		"of the first":   {policy.AtLeast(bad).And(policy.AtLeast(good)), policy.BadRequest, false},
		"of the last":    {policy.Head.And(policy.AtLeast(good), policy.AtLeast(bad)), policy.BadRequest, false},
		"and seen":       {policy.AtLeast(bad).NotBefore(policy.Version{Namespace: "shop"}), policy.BadRequest, false},
		"the empty text": {policy.AtLeast(""), policy.BadRequest, false},
	} {
		err := test.f.Check()
		if (err == nil) != test.fine || err != nil && policy.KindOf(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := policy.AtLeast(good)
	if n := testing.AllocsPerRun(10, func() { _ = f.Check() }); n > 0 {
		t.Errorf("a check costs %v allocations: it reads the tokens again", n)
	}
}

func TestAReleaseReachesItselfAndThoseBeforeIt(t *testing.T) {
	v := policy.Version{Namespace: "shop", Epoch: 2, Revision: 5, Digest: policy.Digest{1}}
	for name, c := range map[string]struct {
		change func(w *policy.Version)
		want   bool
	}{
		"itself":                          {func(*policy.Version) {}, true},
		"an older one":                    {func(w *policy.Version) { w.Revision--; w.Digest[0]++ }, true},
		"a newer one of an earlier epoch": {func(w *policy.Version) { w.Epoch--; w.Revision++; w.Digest[0]++ }, true},
		"another one of its number":       {func(w *policy.Version) { w.Digest[0]++ }, false},
		"a newer one":                     {func(w *policy.Version) { w.Revision++; w.Digest[0]++ }, false},
		"an older one of a later epoch":   {func(w *policy.Version) { w.Epoch++; w.Revision--; w.Digest[0]++ }, false},
	} {
		w := v
		c.change(&w)
		if v.Reaches(w) != c.want {
			t.Errorf("%s: %v", name, !c.want)
		}
	}
}
