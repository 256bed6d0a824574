package exactness_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

var (
	exactOps  = flag.Int64("exact.ops", 20_000, "how many requests are made at least")
	exactSeed = flag.Uint64("exact.seed", 0, "seed of what is asked and of what happens; 0 picks one")
)

const (
	// beaconInterval is how often PDPs prove what the heads are.
	beaconInterval = 400 * time.Millisecond
	// patience bounds every wait for what must come.
	patience = time.Minute
	// settling is how long it takes, with room, until proofs are there again after a
	// clock was set or a client started.
	settling = 5 * time.Second
)

const (
	shop = policy.Namespace("shop")
	cart = policy.Namespace("shop.cart")
	pay  = policy.Namespace("shop.pay")
	deep = policy.Namespace("shop.cart.deep")
)

// namespaces are all that there are; shop is a guardrail of the others, and shop.cart
// of the one below it, at times.
var namespaces = []policy.Namespace{shop, cart, pay, deep}

// believed is for how long releases are believed without proof, and what happens then, as
// the trust file says and [bundles] by default.
var believed = map[policy.Namespace]struct {
	most time.Duration
	deny bool
}{
	shop: {time.Hour, false}, cart: {15 * time.Minute, true}, pay: {30 * time.Minute, false}, deep: {15 * time.Minute, true},
}

// begins is what the time is at the start: a moment before a day, an hour and a
// minute end.
var begins = time.Date(2026, 11, 30, 23, 59, 50, 0, time.UTC)

// model is a domain to which everything happens, and what is true of it.
type model struct {
	t       *testing.T
	d       *testkit.Domain
	judge   *judge
	clock   *clock // of all but clients
	nodes   []*node
	clients []*subject
	stop    context.CancelFunc
	ops     atomic.Int64
	traces  atomic.Uint64
	// calm is odd while nothing happens that would explain that a call has no answer.
	calm atomic.Uint64

	// What only happenings use.
	random   *rand.Rand
	policies generator
	conn     *nats.Conn // sends old heads again
	trust    *bundles.Trust

	mu       sync.Mutex
	heads    map[policy.Namespace]policy.Version // acknowledged
	pushed   []policy.Version                    // the same, in order
	replaced map[policy.Digest]time.Time         // when that was known, by clock
	moved    time.Time                           // when clocks, or the trust file, were set
	lastCall uint64
	calls    map[uint64]*call
	counts   map[string]int
	written  map[policy.Digest]*source // by bundle
	sent     []*nats.Msg               // heads
	failures int
}

// note counts something that happened.
func (m *model) note(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[what]++
}

// fail reports a fault, and ends what goes on. It says after how many operations.
func (m *model) fail(format string, args ...any) {
	m.mu.Lock()
	m.failures++
	n := m.failures
	m.mu.Unlock()
	if n <= 3 {
		m.t.Errorf("after %d operations: %s", m.ops.Load(), fmt.Sprintf(format, args...))
	}
	m.stop()
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// worldAt returns what time it was for all but clients.
func (m *model) worldAt(moment time.Time) time.Time {
	return moment.Add(time.Duration(m.clock.ahead.Load()))
}

func (m *model) isCalm(c *call) bool { return c.calm%2 == 1 && m.calm.Load() == c.calm }

// isSteady reports whether no clock was set while a call was under way.
func (s *subject) isSteady(c *call) bool {
	s.model.mu.Lock()
	defer s.model.mu.Unlock()
	return s.moved.Before(c.begin)
}

// unsettled returns since when nothing has happened that makes proofs old.
func (s *subject) unsettled() time.Time {
	s.model.mu.Lock()
	at := s.moved
	s.model.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened.After(at) {
		at = s.opened
	}
	return at
}

// pathOf returns what decides in a namespace by a version of the trust file: by every
// other one, shop.cart is a guardrail.
func pathOf(n policy.Namespace, trust uint64) []policy.Namespace {
	if n == deep && isGuardrail(trust) {
		return []policy.Namespace{shop, cart, deep}
	}
	return []policy.Namespace{shop, n}
}

func isGuardrail(trust uint64) bool { return trust%2 == 0 }

func trustOptions(version uint64) testkit.TrustOptions {
	more := ""
	if isGuardrail(version) {
		more = ", guardrail: true"
	}
	return testkit.TrustOptions{
		Version: version, Beacons: []string{"beat", "beat2"}, Roots: []string{"ann"},
		More: map[policy.Namespace]string{cart: "max-staleness: 15m, when-stale: deny" + more, pay: "max-staleness: 30m"},
	}
}

func newModel(t *testing.T, seed uint64, stop context.CancelFunc) *model {
	m := &model{
		t: t, d: testkit.NewDomain(t), judge: newJudge(), clock: newClock(time.Until(begins)), stop: stop,
		random: rand.New(rand.NewPCG(seed, 0)), policies: generator{last: map[bool][]part{}},
		heads: map[policy.Namespace]policy.Version{}, replaced: map[policy.Digest]time.Time{}, calls: map[uint64]*call{}, counts: map[string]int{},
		written: map[policy.Digest]*source{},
	}
	m.d.WriteTrust(trustOptions(1))
	m.trust = m.d.Trust()
	url := m.d.ServeNATS(t.TempDir()).URL()
	for _, key := range []string{"beat", "beat2"} {
		n := &node{model: m, name: key, dir: t.TempDir(), way: testkit.NewWay(t, url)}
		n.start(t.Context())
		t.Cleanup(n.kill)
		m.nodes = append(m.nodes, n)
	}
	m.overhear(url)
	for _, n := range namespaces {
		m.push(t.Context(), n, false)
	}
	m.settle(t.Context())
	near, far, jumpy := 7*time.Second, -4*time.Minute, 20*time.Minute
	small, large := cache.Config{Entries: 40}, cache.Config{}
	for _, s := range []*subject{
		{name: "embedded-near", near: true, cache: large},
		{name: "embedded-small", near: true, cache: small},
		{name: "embedded-jumpy", cache: large},
		{name: "remote-near", near: true, nodes: m.nodes, cache: large},
		{name: "remote-small", near: true, nodes: m.nodes, cache: small},
		{name: "remote-one", nodes: m.nodes[:1], cache: large},
		{name: "remote-jumpy", nodes: m.nodes[1:], cache: large},
	} {
		s.model, s.floor = m, map[policy.Namespace]policy.Version{}
		own := map[string]time.Duration{"embedded-near": 0, "embedded-small": near, "embedded-jumpy": jumpy, "remote-near": -near, "remote-small": 0, "remote-one": far, "remote-jumpy": jumpy}[s.name]
		s.own.Store(int64(own))
		s.clock = newClock(time.Duration(m.clock.ahead.Load()) + own)
		if s.nodes == nil {
			s.way, s.dir = testkit.NewWay(t, url), t.TempDir()
		}
		if !s.open(t.Context()) {
			t.Fatalf("%s does not start", s.name)
		}
		m.clients = append(m.clients, s)
	}
	return m
}

// workers is how many ask one client.
const workers = 3

// least is what must have happened in a short run, so that what was asked of answers
// was asked.
var least = map[string]int{
	"push": 8, "rollback": 1, "old head sent again": 2, "old head refused": 2, "client cut off": 2, "PDP cut off": 1, "PDP killed": 1, "PDP held up": 1,
	"clock set": 1, "all clocks set": 1, "trust file": 1, "client started again": 1, "calm": 2,
	"allowed: true": 1000, "allowed: false": 1000, "policy that fails": 10, "batch": 200, "burst": 100, "call that was given up": 100, "call without answer": 1,
	"denial because of staleness": 20, "answer that says it is stale": 5, "answer as new as was asked for": 100, "asked for the head": 50, "asked with a token": 200,
	"made up token that is refused": 5, "answer by a PDP's clock alone": 1,
	"hits embedded": 1000, "hits remote": 500, "coalesced": 50, "evictions": 50,
}

func TestTheCachedAnswerIsTheAnswer(t *testing.T) {
	if *mutants {
		t.Skip("they are tested")
	}
	seed := *exactSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-exact.ops %d -exact.seed %d", *exactOps, seed)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	m := newModel(t, seed, stop)
	begin := time.Now()
	var work sync.WaitGroup
	for i, s := range m.clients {
		for j := range workers {
			r := rand.New(rand.NewPCG(seed, uint64(1+i*workers+j)))
			work.Go(func() { s.work(ctx, r) })
		}
	}
	work.Go(func() { m.happen(ctx) })
	work.Go(func() { m.watch(ctx, begin) })
	work.Wait()
	for _, s := range m.clients {
		s.close()
	}
	counts := m.counted()
	t.Logf("%d operations in %s: %s", m.ops.Load(), time.Since(begin).Round(time.Second), listed(counts))
	if missing := m.missing(counts); len(missing) > 0 && !t.Failed() {
		t.Errorf("too seldom: %v", missing)
	}
}

// watch ends all once there was enough of it, and says now and then how far it is.
func (m *model) watch(ctx context.Context, begin time.Time) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	told := begin
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		n := m.ops.Load()
		if n >= *exactOps && len(m.missing(m.counted())) == 0 || n >= 10**exactOps+100_000 {
			m.stop()
			return
		}
		if time.Since(told) > 20*time.Second {
			told = time.Now()
			fmt.Printf("%s: %d of %d operations; still to come: %q\n", time.Since(begin).Round(time.Second), n, *exactOps, m.missing(m.counted()))
		}
	}
}

// missing returns what has not happened as often as it must.
func (m *model) missing(counts map[string]int) (all []string) {
	for what, n := range least {
		if counts[what] < n {
			all = append(all, fmt.Sprintf("%s: %d of %d", what, counts[what], n))
		}
	}
	slices.Sort(all)
	return all
}

// counted returns all that was counted.
func (m *model) counted() map[string]int {
	m.mu.Lock()
	counts := maps.Clone(m.counts)
	m.mu.Unlock()
	for _, s := range m.clients {
		s.using.RLock()
		s.mu.Lock()
		kind, hits, evictions, coalesced, misses := "remote", s.hits, s.evictions, s.coalesced, s.misses
		if s.isEmbedded() {
			kind = "embedded"
		}
		now := cache.Stats{}
		switch {
		case s.embedded != nil:
			now = s.embedded.Status().Cache
		case s.remote != nil:
			status := s.remote.Status()
			now = status.Cache
			coalesced += status.Coalesced
		}
		s.mu.Unlock()
		s.using.RUnlock()
		counts["hits "+kind] += int(hits + now.Hits)
		counts["misses "+kind] += int(misses + now.Misses)
		counts["evictions"] += int(evictions + now.Evictions)
		counts["coalesced"] += int(coalesced)
	}
	return counts
}

func listed(counts map[string]int) string {
	var all []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%s: %d", what, counts[what]))
	}
	return fmt.Sprintf("%q", all)
}
