package pdp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// doors are all ways to ask one PDP's domain for a decision.
func doors(t *testing.T, d *testkit.Domain, p *testkit.PDP, url string) map[string]policy.Authorizer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := map[string]policy.Authorizer{"RPC": rpc{microwallv1.NewAuthorizationServiceClient(p.Conn)}, "PDP": p.Service}
	for name, mode := range map[string]embedded.Mode{"embedded": embedded.Push(), "embedded, that polls": embedded.Poll(time.Hour)} {
		near, err := embedded.New(ctx, embedded.Config{NATS: url, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}, Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(near.Close)
		all[name] = near
	}
	for name, keep := range map[string]cache.Config{"remote": {}, "remote, without a cache": {Entries: -1}} {
		far, err := remote.New(t.Context(), remote.Config{Servers: []string{p.Addr}, Cache: keep})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = far.Close() })
		all[name] = far
	}
	return all
}

// rpc asks as one does who has the contract on the wire and no client of ours. What a
// batch asks for stands beside its items.
type rpc struct {
	microwallv1.AuthorizationServiceClient
}

func (c rpc) Authorize(ctx context.Context, r policy.Request) (policy.Decision, error) {
	m, err := wire.RequestProto(&r)
	if err != nil {
		return policy.Decision{}, err
	}
	answer, err := c.AuthorizationServiceClient.Authorize(ctx, m)
	if err != nil {
		return policy.Decision{}, wire.Error("PDP", err)
	}
	versions, err := wire.Versions(answer.GetVersions())
	return policy.Decision{Allowed: answer.GetDecision().GetAllowed(), Versions: versions}, err
}

func (c rpc) AuthorizeBatch(ctx context.Context, rs []policy.Request) ([]policy.Result, error) {
	var fresh policy.Freshness
	m := new(microwallv1.AuthorizeBatchRequest)
	for _, r := range rs {
		fresh = fresh.And(r.Freshness)
		r.Freshness = policy.Freshness{}
		item, err := wire.RequestProto(&r)
		if err != nil {
			return nil, err
		}
		m.Items = append(m.Items, item)
	}
	m.Freshness = wire.FreshnessProto(fresh)
	answer, err := c.AuthorizationServiceClient.AuthorizeBatch(ctx, m)
	if err != nil {
		return nil, wire.Error("PDP", err)
	}
	results := make([]policy.Result, len(rs))
	for i, item := range answer.GetResults() {
		if e := item.GetError(); e != nil {
			results[i].Err = wire.BatchError("PDP", e)
			continue
		}
		for _, place := range item.GetPath() {
			v, err := wire.Version(answer.GetVersions()[place])
			if err != nil {
				return nil, err
			}
			results[i].Decision.Versions = append(results[i].Decision.Versions, v)
		}
		results[i].Decision.Allowed = item.GetDecision().GetAllowed()
	}
	return results, nil
}

// startFresh is startBeacons with a NATS server that has the accounts which clients
// need.
func startFresh(t *testing.T) (*testkit.Domain, *testkit.PDP, string) {
	t.Helper()
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat", "beat2"}})
	url := d.ServeNATS(t.TempDir()).URL()
	return d, d.StartPDP(url, t.TempDir()), url
}

// asking returns the usual request with a freshness.
func asking(f policy.Freshness) policy.Request {
	r := testkit.Request("shop.cart", "Add")
	r.Freshness = f
	return r
}

// inOneCall asks for one decision in a call of its own, and for two in a batch of which
// only one asks for the freshness. Both items of that are decided by the same releases.
func inOneCall(ctx context.Context, door policy.Authorizer, f policy.Freshness) map[string]policy.Result {
	var single policy.Result
	single.Decision, single.Err = door.Authorize(ctx, asking(f))
	all := map[string]policy.Result{"alone": single}
	results, err := door.AuthorizeBatch(ctx, []policy.Request{asking(policy.Freshness{}), asking(f), {Namespace: "shop.none"}})
	switch {
	case err != nil:
		all["in a batch"] = policy.Result{Err: err}
	case len(results) != 3 || results[2].Err == nil:
		all["in a batch"] = policy.Result{Err: errors.New("a bad request was answered")}
	default:
		all["in a batch"], all["beside one that asks, in a batch"] = results[1], results[0]
	}
	return all
}

func TestWhoeverKnowsOfAPushIsNotAnsweredByWhatWasBefore(t *testing.T) {
	d, p, url := startFresh(t)
	startIssuer(t, d, p, "beat", "one")
	d.Push(p, "center", "shop", guardrail)
	first := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	pay := d.Push(p, "pay", "shop.pay", allowsAdd).Release.Version()
	earlier := first
	earlier.Epoch--
	all := doors(t, d, p, url)
	for n := range 4 {
		for name, door := range all {
			for what, f := range map[string]func(policy.Version) policy.Freshness{
				"its token":                  func(v policy.Version) policy.Freshness { return policy.AtLeast(v.Token()) },
				"its token, that was stored": func(v policy.Version) policy.Freshness { return policy.AtLeast(stored(t, v.Token())) },
				"its token and an older one": func(v policy.Version) policy.Freshness { return policy.AtLeast(first.Token(), v.Token()) },
				"the head":                   func(policy.Version) policy.Freshness { return policy.Head },
				"one of an earlier epoch":    func(policy.Version) policy.Freshness { return policy.AtLeast(earlier.Token()) },
				"one of another namespace":   func(policy.Version) policy.Freshness { return policy.AtLeast(pay.Token()) },
			} {
				// Each has a release that it has not heard of when it is asked.
				pushed := d.Push(p, "cart", "shop.cart", fmt.Sprintf("%s\n# %d %s %s", allowsAdd, n, name, what)).Release.Version()
				for how, got := range inOneCall(t.Context(), door, f(pushed)) {
					if got.Err != nil || !got.Decision.Allowed || got.Decision.Versions[1] != pushed {
						t.Fatalf("%s, asked for %s %s, after %v: %+v", name, what, how, pushed, got)
					}
				}
			}
		}
	}
	// A guardrail is on the path as well.
	for name, door := range all {
		pushed := d.Push(p, "center", "shop", fmt.Sprintf("deny contains \"closed\"\n# %s", name)).Release.Version()
		for how, got := range inOneCall(t.Context(), door, policy.AtLeast(pushed.Token())) {
			if got.Err != nil || got.Decision.Allowed || got.Decision.Versions[0] != pushed {
				t.Errorf("%s, %s: %+v", name, how, got)
			}
		}
	}
}

// stored returns a token as one has it back that stood beside data in a file of JSON.
func stored(t *testing.T, token policy.Token) policy.Token {
	t.Helper()
	file := filepath.Join(t.TempDir(), "order.json")
	written, err := json.Marshal(map[string]any{"order": 4711, "policy": token})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, written, 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var order struct{ Policy string }
	if err := json.Unmarshal(read, &order); err != nil {
		t.Fatal(err)
	}
	return policy.Token(order.Policy)
}

func TestTokensThatPromiseNothing(t *testing.T) {
	d, p, url := startFresh(t)
	startIssuer(t, d, p, "beat", "one")
	d.Push(p, "center", "shop", guardrail)
	first := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	head := d.Push(p, "cart", "shop.cart", allowsAdd+" ").Release.Version()
	pay := d.Push(p, "pay", "shop.pay", allowsAdd).Release.Version()
	change := func(v policy.Version, change func(*policy.Version)) policy.Token {
		change(&v)
		return v.Token()
	}
	all := doors(t, d, p, url)
	for name, c := range map[string]struct {
		token policy.Token
		want  policy.Kind // 0: decided by the head
	}{
		"of an older release":       {token: first.Token()},
		"of the head":               {token: head.Token()},
		"of an earlier epoch":       {token: change(head, func(v *policy.Version) { v.Epoch-- })},
		"of another team":           {token: pay.Token()},
		"of nobody":                 {token: change(pay, func(v *policy.Version) { v.Namespace = "shop.nobody" })},
		"of the future":             {change(head, func(v *policy.Version) { v.Revision++ }), policy.Failed},
		"of the far future":         {change(head, func(v *policy.Version) { v.Revision = 1 << 63 }), policy.Failed},
		"of a later epoch":          {change(head, func(v *policy.Version) { v.Epoch++ }), policy.Failed},
		"made up":                   {change(head, func(v *policy.Version) { v.Digest[0]++ }), policy.Failed},
		"no token":                  {"mw1.nothing", policy.BadRequest},
		"half of one":               {head.Token()[:40], policy.BadRequest},
		"of a release of the realm": {change(head, func(v *policy.Version) { v.Namespace = "elsewhere.cart" }), 0},
	} {
		for door, a := range all {
			// There is all the time in the world, and none of it is taken.
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			begun := time.Now()
			for how, got := range inOneCall(ctx, a, policy.AtLeast(c.token)) {
				// Beside what is no request, what asks for nothing is decided.
				if c.want == policy.BadRequest && strings.HasPrefix(how, "beside") && door != "RPC" {
					if got.Err != nil || got.Decision.Versions[1] != head {
						t.Errorf("%s, a token %s, %s: %+v", door, name, how, got)
					}
					continue
				}
				switch {
				case c.want != 0 && (policy.KindOf(got.Err) != c.want || got.Decision.Allowed):
					t.Errorf("%s, a token %s, %s: %+v", door, name, how, got)
				case c.want == 0 && (got.Err != nil || got.Decision.Versions[1] != head):
					t.Errorf("%s, a token %s, %s: %+v", door, name, how, got)
				}
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("%s, a token %s: it took %s", door, name, took)
			}
			cancel()
		}
	}
}

func TestWhoCannotAskAnybodySaysSo(t *testing.T) {
	d, p, _ := startBeacons(t)
	d.Push(p, "center", "shop", guardrail)
	head := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	older := head
	older.Revision++
	nobody := pdp.New(pdp.Config{Source: p.Live})
	for name, f := range map[string]policy.Freshness{"the head": policy.Head, "a newer one": policy.AtLeast(older.Token())} {
		if decision, err := nobody.Authorize(t.Context(), asking(f)); policy.KindOf(err) != policy.Unavailable || decision.Allowed {
			t.Errorf("%s: %+v, %v", name, decision, err)
		}
	}
	// What is there needs nobody.
	if decision, err := nobody.Authorize(t.Context(), asking(policy.AtLeast(head.Token()))); err != nil || decision.Versions[1] != head {
		t.Errorf("%+v, %v", decision, err)
	}
	// Another PDP was ahead: this one does not wait.
	if decision, err := p.Service.Authorize(t.Context(), asking(policy.Freshness{}.NotBefore(older))); policy.KindOf(err) != policy.Unavailable || decision.Allowed {
		t.Errorf("%+v, %v", decision, err)
	}
	if decision, err := nobody.Authorize(t.Context(), asking(policy.Freshness{}.NotBefore(head))); err != nil || decision.Versions[1] != head {
		t.Errorf("%+v, %v", decision, err)
	}
}

func TestAReleaseThatDoesNotArriveIsWaitedForUntilTheDeadline(t *testing.T) {
	d, p, _ := startBeacons(t)
	d.Push(p, "center", "shop", guardrail)
	newer := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	newer.Revision++
	behind := pdp.New(pdp.Config{Source: p.Live, Confirm: func(_ context.Context, n policy.Namespace) (policy.Version, error) {
		if n == "shop.cart" {
			return newer, nil
		}
		return p.Live.Snapshot().Versions()[0], nil
	}})
	for name, f := range map[string]policy.Freshness{"the head": policy.Head, "its token": policy.AtLeast(newer.Token())} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		decision, err := behind.Authorize(ctx, asking(f))
		cancel()
		if policy.KindOf(err) != policy.Unavailable || !errors.Is(err, context.DeadlineExceeded) || decision.Allowed {
			t.Errorf("%s: %+v, %v", name, decision, err)
		}
	}
}

func TestWhatArrivesNeedsNobodyToConfirmIt(t *testing.T) {
	d, p, _ := startBeacons(t)
	d.Push(p, "center", "shop", guardrail)
	next := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	next.Revision++
	asked := make(chan struct{})
	silent := pdp.New(pdp.Config{Source: p.Live, Confirm: func(ctx context.Context, _ policy.Namespace) (policy.Version, error) {
		close(asked)
		<-ctx.Done()
		return policy.Version{}, policy.Errorf(policy.Unavailable, "nobody has answered: %w", ctx.Err())
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answer := make(chan policy.Result, 1)
	go func() {
		decision, err := silent.Authorize(ctx, asking(policy.AtLeast(next.Token())))
		answer <- policy.Result{Decision: decision, Err: err}
	}()
	<-asked
	d.Push(p, "pay", "shop.pay", allowsAdd) // which is not asked for
	select {
	case got := <-answer:
		t.Fatalf("before it arrived: %+v", got)
	case <-time.After(50 * time.Millisecond):
	}
	d.Push(p, "cart", "shop.cart", allowsAdd+" ")
	newest := d.Push(p, "cart", "shop.cart", allowsAdd+"  ").Release.Version()
	if got := <-answer; got.Err != nil || !got.Decision.Allowed || got.Decision.Versions[1].Compare(next) < 0 || got.Decision.Versions[1].Compare(newest) > 0 {
		t.Errorf("%+v", got)
	}
}
