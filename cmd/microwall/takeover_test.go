//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// takeoverBound is how long there may be no beacon when the PDP that issues them
// is gone: three intervals without a tick, and one for a machine that has other
// things to do.
const takeoverBound = 4 * pdp.DefaultInterval

// issues are PDPs of one domain that may issue beacons, on one NATS, and who
// hears what they issue of shop.cart.
type issues struct {
	t     *testing.T
	d     *testkit.Domain
	nats  string
	beats chan *nats.Msg
	last  *bundles.SignedBeacon
	heard time.Time // when last came
}

// pdp starts a PDP with a beacon key.
func (i *issues) pdp(key string) *site {
	i.t.Helper()
	s := &site{t: i.t, Domain: i.d, dir: i.t.TempDir()}
	var err error
	s.serving, err = startServing(s.dir, "--trust", i.d.TrustFile, "--data-dir", s.dir, "--nats", i.nats, "--max-store", "100000000", "--instance", key, "--beacon-key", beaconKey(i.t, i.d, key))
	s.must(err)
	i.t.Cleanup(s.kill)
	_, err = s.waitFor(`"msg":"ready"`)
	s.must(err)
	s.taken = 0 // the issuer may have said something before
	s.conn = s.dial(s.GRPC)
	return s
}

// next returns the next beacon: of a later time than any before, and within a
// bound of the last one, if there is one.
func (i *issues) next(within time.Duration) *bundles.SignedBeacon {
	i.t.Helper()
	select {
	case m := <-i.beats:
		b, err := i.d.Trust().OpenBeacon(m.Data)
		if err != nil {
			i.t.Fatal(err)
		}
		if i.last != nil {
			if !b.Time().After(i.last.Time()) {
				i.t.Errorf("after a beacon of %s by %s came one of %s by %s", i.last.Time(), i.last.Issuer(), b.Time(), b.Issuer())
			}
			if gap := b.Time().Sub(i.last.Time()); gap > within {
				i.t.Errorf("no beacon for %s, want %s at most", gap, within)
			}
		}
		i.last, i.heard = b, time.Now()
		return b
	case <-time.After(patience):
		i.t.Fatalf("no beacon came within %s", patience)
		return nil
	}
}

// by wants the next beacon to be signed by a key, and to name a head.
func (i *issues) by(key string, head policy.Version, within time.Duration) {
	i.t.Helper()
	if b := i.next(within); b.Issuer() != key || len(b.Heads()) != 1 || b.Heads()[0] != head {
		i.t.Errorf("a beacon by %s of %s names %v; want one by %s that names %v", b.Issuer(), b.Time(), b.Heads(), key, head)
	}
}

// confirms asks a PDP for the confirmed head.
func (i *issues) confirms(s *site, head policy.Version) {
	i.t.Helper()
	asked := time.Now()
	m, err := microwallv1.NewPolicyServiceClient(s.conn).Confirm(i.t.Context(), &microwallv1.ConfirmRequest{Namespaces: []string{"shop.cart"}})
	s.must(err)
	b, err := i.d.Trust().OpenBeacon(m.GetHeads()[0].GetBeacon())
	s.must(err)
	if got, _ := b.Head("shop.cart"); got != head || b.Time().Before(asked.Truncate(time.Millisecond)) {
		i.t.Errorf("asked at %s, confirmed is %v by a beacon of %s; want %v", asked, got, b.Time(), head)
	}
}

// saidAge is how old the proof of shop.cart is, as a PDP's metrics say.
func saidAge(s *site) time.Duration {
	s.t.Helper()
	_, page := s.get("/metrics")
	found := regexp.MustCompile(`(?m)^microwall_proof_age_seconds\{namespace="shop\.cart"\} (.*)$`).FindStringSubmatch(page)
	if found == nil {
		s.t.Fatalf("no age in\n%s", page)
	}
	seconds, err := strconv.ParseFloat(found[1], 64)
	s.must(err)
	return time.Duration(seconds * float64(time.Second))
}

// Two PDPs may issue beacons. Whichever does is frozen, and later killed: the
// other one issues within a bound, both confirm heads all the time, and there are
// never two that issue, however the first one wakes up.
func TestBeaconsGoOnWhenThePDPThatIssuesThemIsFrozenOrKilled(t *testing.T) {
	t.Parallel() // it waits for beacons
	i := &issues{t: t, d: testkit.NewDomain(t), nats: testkit.NATS(t, t.TempDir()).URL(), beats: make(chan *nats.Msg, 1000)}
	i.d.WriteTrust(testkit.TrustOptions{NoGuardrail: true, Beacons: []string{"beat", "beat2"}})
	conn, err := nats.Connect(i.nats)
	must(t, err)
	t.Cleanup(conn.Close)
	_, err = conn.ChanSubscribe("pdp.beat.shop.shop_cart", i.beats)
	must(t, errors.Join(err, conn.Flush()))
	push := func(s *site, module string) policy.Version {
		t.Helper()
		result, err := pap.New(s.conn, s.GRPC, i.d.Trust()).Push(t.Context(), i.d.Draft("cart", "shop.cart", module))
		must(t, err)
		return result.Release.Version()
	}

	one := i.pdp("beat")
	_, err = one.waitFor(`"msg":"issuing beacons"`)
	must(t, err)
	head := push(one, allowsGet)
	two := i.pdp("beat2")
	_, err = two.waitFor(`"msg":"another PDP issues beacons; standing by"`)
	must(t, err)
	i.by("beat", head, 0)
	i.confirms(one, head)
	i.confirms(two, head) // it signs for itself when it is asked
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	watch, err := microwallv1.NewPolicyServiceClient(two.conn).Watch(ctx, &microwallv1.WatchRequest{Namespaces: []string{"shop.cart"}})
	must(t, err)
	// told waits until the watch tells of a head that is proven after a time.
	told := func(v policy.Version, since time.Time) {
		t.Helper()
		for {
			m, err := watch.Recv()
			must(t, err)
			path := m.GetPath()
			if len(path) == 1 && path[0].GetVersion().GetDigest() == v.Digest.String() && path[0].GetTime() != nil && !path[0].GetTime().AsTime().Before(since) {
				return
			}
		}
	}
	told(head, i.last.Time())

	frozen := time.Now()
	must(t, one.cmd.Process.Signal(syscall.SIGSTOP))
	head = push(two, allowsPut)
	for i.next(takeoverBound).Issuer() == "beat" { // those that were on their way
	}
	if b := i.last; b.Issuer() != "beat2" || b.Heads()[0] != head {
		t.Errorf("%s takes over with %v, want %v", b.Issuer(), b.Heads(), head)
	}
	t.Logf("frozen: the other one issues after %s", i.heard.Sub(frozen).Round(time.Millisecond))
	told(head, i.last.Time())

	// It wakes up, finds that another one issues, and leaves it at that.
	must(t, one.cmd.Process.Signal(syscall.SIGCONT))
	_, err = one.waitFor(`"msg":"another PDP issues beacons; standing by"`)
	must(t, err)
	i.by("beat2", head, 2*pdp.DefaultInterval)
	i.confirms(one, head)
	for _, s := range []*site{one, two} {
		if age := saidAge(s); age > takeoverBound {
			t.Errorf("a PDP that is proven by the beacons of both says that its proof is %s old", age)
		}
	}

	killed := time.Now()
	two.kill()
	i.confirms(one, head) // at once: that needs nobody else
	head = push(one, allowsGet)
	i.confirms(one, head)
	i.by("beat", head, takeoverBound)
	t.Logf("killed: the other one issues after %s", i.heard.Sub(killed).Round(time.Millisecond))

	// What it says of itself to the fleet carries the proof.
	ticker, late := time.NewTicker(pace), time.After(patience)
	defer ticker.Stop()
	for {
		stdout, stderr, code := one.run("cart", "", "status", "shop.cart", "--format", "json")
		var all []instanceStatus
		if err := json.Unmarshal([]byte(stdout), &all); err != nil || code == exitError {
			t.Fatalf("%d, %v: %s%s", code, err, stdout, stderr)
		}
		if slices.ContainsFunc(all, func(s instanceStatus) bool {
			return s.Instance == "beat" && s.Revision == head.Revision && s.State == stateHead && s.Proven.After(frozen)
		}) {
			break
		}
		select {
		case <-ticker.C:
		case <-late:
			t.Fatalf("nobody who runs the head says that it is proven: %s", stdout)
		}
	}
	must(t, one.end())
}
