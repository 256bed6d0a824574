package embedded_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// client is an embedded client whose events can be waited for.
type client struct {
	*embedded.Client
	t      testing.TB
	mu     sync.Mutex
	events []any
	more   chan struct{}
}

func (c *client) tell(e any) {
	c.mu.Lock()
	c.events = append(c.events, e)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// wait returns when an event satisfies ok. Each event is looked at once.
func (c *client) wait(what string, ok func(any) bool) {
	c.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		for len(c.events) > 0 {
			e := c.events[0]
			c.events = c.events[1:]
			if ok(e) {
				c.mu.Unlock()
				return
			}
		}
		c.mu.Unlock()
		select {
		case <-c.more:
		case <-deadline:
			c.t.Fatalf("never happened: %s", what)
		}
	}
}

func (c *client) waitFor(v policy.Version) {
	c.t.Helper()
	c.wait(string(v.Namespace)+" activated", func(e any) bool {
		a, ok := e.(live.Activated)
		return ok && a.Version == v
	})
}

func newClient(t testing.TB, d *testkit.Domain, url string, change ...func(*embedded.Config)) *client {
	t.Helper()
	c, err := tryClient(t.Context(), t, d, url, change...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryClient(ctx context.Context, t testing.TB, d *testkit.Domain, url string, change ...func(*embedded.Config)) (*client, error) {
	c := &client{t: t, more: make(chan struct{}, 1)}
	config := embedded.Config{
		NATS: url, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{"shop.cart"},
		OnRelease: func(e live.Event) { c.tell(e) },
		OnNATS:    func(e jetstream.Event) { c.tell(e) },
	}
	for _, f := range change {
		f(&config)
	}
	var err error
	if c.Client, err = embedded.New(ctx, config); err != nil {
		return nil, err
	}
	t.Cleanup(c.Close)
	return c, nil
}

func (c *client) expect(n policy.Namespace, action, want string) policy.Decision {
	c.t.Helper()
	d, err := c.Authorize(c.t.Context(), testkit.Request(n, action))
	got := "deny"
	switch {
	case err != nil:
		got = policy.KindOf(err).String()
	case d.Allowed:
		got = "allow"
	}
	if got != want {
		c.t.Errorf("%s %s: got %s (%v), want %s", n, action, got, err, want)
	}
	return d
}

// start starts a PDP of a new domain and the NATS server, at url, that it uses.
func start(t testing.TB) (d *testkit.Domain, p *testkit.PDP, url string) {
	t.Helper()
	d = testkit.NewDomain(t)
	url = d.ServeNATS(t.TempDir()).URL()
	return d, d.StartPDP(url, t.TempDir()), url
}

const (
	guardrail = `deny contains "never" if input.action.name == "Forbidden"`
	allowsAdd = `allow if input.action.name in {"Add", "Forbidden"}`
	allowsNot = `default allow := false`
)

func TestAPushReachesAnEmbeddedClient(t *testing.T) {
	d, p, url := start(t)
	c := newClient(t, d, url)
	c.expect("shop.cart", "Add", "not found")
	g := d.Push(p, "center", "shop", guardrail)
	one := d.Push(p, "cart", "shop.cart", allowsAdd)
	c.waitFor(g.Release.Version())
	c.waitFor(one.Release.Version())
	c.expect("shop.cart", "Add", "allow")
	c.expect("shop.cart", "Forbidden", "deny")
	c.expect("shop.cart", "Remove", "deny")
	c.expect("shop.pay", "Add", "bad request")

	two := d.Push(p, "cart", "shop.cart", allowsNot)
	c.waitFor(two.Release.Version())
	got := c.expect("shop.cart", "Add", "deny")
	if len(got.Versions) != 2 || got.Versions[1] != two.Release.Version() {
		t.Errorf("versions: %v", got.Versions)
	}
	s := c.Status()
	if !s.Connected || len(s.Namespaces) != 2 || s.TrustVersion != 1 {
		t.Errorf("status: %+v", s)
	}
}

// large is a draft of a bundle that takes several chunks.
func large(d *testkit.Domain) pap.Draft {
	// What does not compress.
	var members strings.Builder
	seed := uint64(1)
	for members.Len() < 2<<20 {
		seed = seed*6364136223846793005 + 1442695040888963407
		members.WriteString(`,"`)
		for i := range 16 {
			members.WriteByte("0123456789abcdef"[seed>>(4*i)&15])
		}
		members.WriteString(`"`)
	}
	draft := d.Draft("cart", "shop.cart", allowsAdd)
	draft.Bundle = d.Bundle(map[string]string{"authz.rego": `allow if "first" in data.all`, "data.json": `{"all":["first"` + members.String() + `]}`})
	return draft
}

func TestALargeBundleArrivesInChunks(t *testing.T) {
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	c := newClient(t, d, url)
	result, err := d.PAP(p).Push(t.Context(), large(d))
	if err != nil {
		t.Fatal(err)
	}
	c.waitFor(result.Release.Version())
	c.expect("shop.cart", "Add", "allow")
}

func TestACachedDecisionIsNeverOneOfAnotherRelease(t *testing.T) {
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	c := newClient(t, d, url)
	for range 3 {
		c.expect("shop.cart", "Add", "allow")
	}
	if s := c.Status().Cache; s.Hits != 2 || s.Misses != 1 {
		t.Errorf("cache: %+v", s)
	}
	// The guardrail changes: a decision of the namespace below must follow.
	g := d.Push(p, "center", "shop", `deny contains "closed"`)
	c.waitFor(g.Release.Version())
	c.expect("shop.cart", "Add", "deny")
	failing := d.Push(p, "cart", "shop.cart", "allow if to_number(input.subject.id) == 1")
	c.waitFor(failing.Release.Version())
	before := c.Status().Cache.Entries
	for range 2 {
		c.expect("shop.cart", "Add", "policy failed")
	}
	if after := c.Status().Cache.Entries; after != before {
		t.Errorf("an error was cached: %d entries, then %d", before, after)
	}
}

func TestAPolicyThatReadsTheHourIsCachedForThatHour(t *testing.T) {
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", "allow if input.time.hour < 12")
	var now atomic.Int64
	now.Store(time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC).Unix())
	c := newClient(t, d, url, func(c *embedded.Config) { c.Now = func() time.Time { return time.Unix(now.Load(), 0) } })
	for range 60 {
		c.expect("shop.cart", "Add", "allow")
		now.Add(59)
	}
	if s := c.Status().Cache; s.Entries != 1 || s.Hits != 59 {
		t.Errorf("within the hour: %+v", s)
	}
	now.Add(60)
	c.expect("shop.cart", "Add", "deny")
}

func TestAClientDecidesOnWithoutNATSAndStartsFromDisk(t *testing.T) {
	d := testkit.NewDomain(t)
	nats := d.ServeNATS(t.TempDir())
	p := d.StartPDP(nats.URL(), t.TempDir())
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	dir := t.TempDir()
	inDir := func(c *embedded.Config) { c.Dir = dir }
	c := newClient(t, d, nats.URL(), inDir)
	c.expect("shop.cart", "Add", "allow")
	nats.Shutdown()
	c.wait("the connection is lost", func(e any) bool { _, ok := e.(jetstream.Disconnected); return ok })
	c.expect("shop.cart", "Add", "allow")
	c.expect("shop.cart", "Forbidden", "deny")
	if c.Status().Connected {
		t.Error("says that it is connected")
	}
	c.Close()

	again := newClient(t, d, nats.URL(), inDir)
	again.expect("shop.cart", "Add", "allow")
	again.expect("shop.cart", "Forbidden", "deny")
	again.expect("shop.cart", "Remove", "deny")
}

func TestAClientWithNothingToDecideByDoesNotStart(t *testing.T) {
	d := testkit.NewDomain(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "nats://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = tryClient(ctx, t, d, nobody)
	if policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), "NATS") {
		t.Errorf("got %v", err)
	}
	for name, test := range map[string]struct {
		change func(*embedded.Config)
		want   string
	}{
		"no namespace":             {func(c *embedded.Config) { c.Namespaces = nil }, "namespace"},
		"a malformed namespace":    {func(c *embedded.Config) { c.Namespaces = []policy.Namespace{"Shop"} }, "namespace"},
		"another domain":           {func(c *embedded.Config) { c.Namespaces = []policy.Namespace{"other.cart"} }, "domain"},
		"no NATS":                  {func(c *embedded.Config) { c.NATS = "" }, "NATS"},
		"a malformed URL":          {func(c *embedded.Config) { c.NATS = "nats://[" }, "NATS"},
		"another machine":          {func(c *embedded.Config) { c.NATS = "nats://nats.example:4222" }, "without TLS"},
		"no credentials":           {func(c *embedded.Config) { c.Credentials = "/nowhere/cart.nkey" }, "nats-config"},
		"no trust file":            {func(c *embedded.Config) { c.TrustFile = "/nowhere/trust.yaml" }, "keygen"},
		"a directory that is none": {func(c *embedded.Config) { c.Dir = d.TrustFile }, "directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tryClient(t.Context(), t, d, nobody, test.change)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// Whoever can publish on NATS can delay releases, and nothing else.
func TestForgedHeadsOnTheWireAreRefused(t *testing.T) {
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	one := d.Push(p, "cart", "shop.cart", allowsNot)
	two := d.Push(p, "cart", "shop.cart", allowsNot+"\n# 2")
	c := newClient(t, d, url)
	forged, packed := d.Forge("pay", "shop.cart", two.Release, d.Rego("allow := true"))
	for name, head := range map[string][]byte{
		"another team's key": append(append(forged, 0, 'I'), packed...),
		"a replayed release": one.Release.Note(),
		"garbage":            []byte("garbage"),
		"nothing":            {},
	} {
		if err := p.NATSConn.PublishMsg(&nats.Msg{Subject: "pdp.head.shop.shop_cart", Data: head, Header: nats.Header{"Nats-Subject": {"$KV.policy.shop.shop_cart.head"}}}); err != nil {
			t.Fatal(err)
		}
		c.wait(name+" is refused", func(e any) bool {
			switch e := e.(type) {
			case live.Refused:
				return true
			case jetstream.Ignored:
				return true
			case jetstream.Offered:
				return e.Err != nil
			}
			return false
		})
		c.expect("shop.cart", "Add", "deny")
	}
	three := d.Push(p, "cart", "shop.cart", allowsAdd)
	c.waitFor(three.Release.Version())
	c.expect("shop.cart", "Add", "allow")
}

func TestATrustFileThatChangesIsReadAgain(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	url := d.ServeNATS(t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	c := newClient(t, d, url)
	c.expect("shop.cart", "Forbidden", "allow")
	// Now shop is a guardrail; it is followed from now on, and binds.
	d.WriteTrust(testkit.TrustOptions{Version: 2})
	c.wait("the guardrail is activated", func(e any) bool {
		a, ok := e.(live.Activated)
		return ok && a.Version.Namespace == "shop"
	})
	c.expect("shop.cart", "Forbidden", "deny")
	// A lower version is refused.
	d.WriteTrust(testkit.TrustOptions{Version: 1, NoGuardrail: true})
	c.wait("the older trust file is refused", func(e any) bool { _, ok := e.(live.Refused); return ok })
	c.expect("shop.cart", "Forbidden", "deny")
}

func TestAReleaseByANewKeyOpensWithTheTrustFileThatNamesIt(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	url := d.ServeNATS(t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "cart", "shop.cart", allowsAdd)
	c := newClient(t, d, url)
	// The client still has the old trust file when the first release of the
	// new key arrives: it has a file of its own.
	old := d.TrustFile
	d.TrustFile = old + ".pdp"
	d.AddKey("cart")
	d.WriteTrust(testkit.TrustOptions{Version: 2, Epoch: 2, NoGuardrail: true})
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	next := d.Push(p, "cart", "shop.cart", allowsNot)
	c.wait("the new key is refused", func(e any) bool { _, ok := e.(live.Refused); return ok })
	c.expect("shop.cart", "Add", "allow") // the last good one
	d.TrustFile = old
	d.WriteTrust(testkit.TrustOptions{Version: 2, Epoch: 2, NoGuardrail: true})
	c.waitFor(next.Release.Version())
	c.expect("shop.cart", "Add", "deny")
}

func TestAKeyThatComesBackDecidesAgain(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	url := d.ServeNATS(t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	one := d.Push(p, "cart", "shop.cart", allowsAdd)
	c := newClient(t, d, url)
	c.waitFor(one.Release.Version())
	d.WriteTrust(testkit.TrustOptions{Version: 2, NoGuardrail: true, Without: []string{"cart"}})
	c.wait("the release is dropped", func(e any) bool {
		changed, ok := e.(live.TrustChanged)
		return ok && len(changed.Dropped) == 1
	})
	c.expect("shop.cart", "Add", "unavailable")
	d.WriteTrust(testkit.TrustOptions{Version: 3, NoGuardrail: true})
	c.waitFor(one.Release.Version())
	c.expect("shop.cart", "Add", "allow")
}

func TestABatchIsDecidedByOneSnapshot(t *testing.T) {
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	c := newClient(t, d, url)
	bad := testkit.Request("shop.cart", "")
	results, err := c.AuthorizeBatch(t.Context(), []policy.Request{testkit.Request("shop.cart", "Add"), bad, testkit.Request("shop.cart", "Remove")})
	if err != nil || len(results) != 3 {
		t.Fatal(results, err)
	}
	if !results[0].Decision.Allowed || policy.KindOf(results[1].Err) != policy.BadRequest || results[1].Decision.Allowed || results[2].Decision.Allowed || results[2].Err != nil {
		t.Errorf("got %+v", results)
	}
	if _, err := c.AuthorizeBatch(t.Context(), nil); policy.KindOf(err) != policy.BadRequest {
		t.Errorf("an empty batch: %v", err)
	}
	if _, err := c.AuthorizeBatch(t.Context(), make([]policy.Request, 1001)); policy.KindOf(err) != policy.Exhausted {
		t.Errorf("a large batch: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.AuthorizeBatch(ctx, []policy.Request{bad}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled batch: %v", err)
	}
}

func TestManyCallersAndPushesAtOnce(t *testing.T) {
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd+"\n# 0")
	c := newClient(t, d, url)
	done := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			last := uint64(0)
			for !isClosed(done) {
				got, err := c.Authorize(t.Context(), testkit.Request("shop.cart", "Add"))
				if err != nil || !got.Allowed {
					t.Errorf("got %+v, %v", got, err)
					return
				}
				r := got.Versions[1].Revision
				if r < last {
					t.Errorf("revision %d after %d", r, last)
					return
				}
				last = r
			}
		})
	}
	for i := range 10 {
		result := d.Push(p, "cart", "shop.cart", allowsAdd+strings.Repeat("\n# more", i+1))
		c.waitFor(result.Release.Version())
	}
	close(done)
	callers.Wait()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
