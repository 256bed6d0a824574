package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

var (
	modelFor  = flag.Duration("model.for", 12*time.Second, "how long releases are pushed while servers and clients are killed, paused and cut off")
	modelSeed = flag.Uint64("model.seed", 0, "seed of what happens; 0 picks one")
)

// believed is for how long a release of the model is believed without proof: the
// shortest time that there is.
const believed = bundles.MinMaxStaleness

// model is what is true of all releases, whatever anybody decides by.
type model struct {
	*killable
	random  *rand.Rand
	clients []*subject

	mu sync.Mutex
	// signed are the releases that authors have signed, whether they were
	// released or not.
	signed map[policy.Digest]policy.Version
	// replaced is when a release was known not to be the head any more: when the
	// push of a later one was acknowledged.
	replaced map[policy.Namespace]map[uint64]time.Time
	heads    map[policy.Namespace]*bundles.Signed // acknowledged last
	did      map[string]int
}

// subject is a client that is watched.
type subject struct {
	*model
	name  string
	relay *relay

	mu     sync.Mutex
	client *embedded.Client
	// last is the newest of each namespace that it decided by, also before it was
	// started again.
	last           map[policy.Namespace]policy.Version
	decided, stale int
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		random: rand.New(rand.NewPCG(seed, 0)), signed: map[policy.Digest]policy.Version{},
		replaced: map[policy.Namespace]map[uint64]time.Time{}, heads: map[policy.Namespace]*bundles.Signed{}, did: map[string]int{},
	}
	tight := fmt.Sprintf("max-staleness: %s", believed)
	o := testkit.TrustOptions{Beacons: []string{"beat"}, More: map[policy.Namespace]string{"shop": tight, "shop.cart": tight + ", when-stale: deny"}}
	d := testkit.NewDomain(t)
	d.WriteTrust(o)
	key := filepath.Join(t.TempDir(), "beat.key")
	if err := os.WriteFile(key, []byte(d.Private("beat")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.killable = newKillableOf(t, d, "--beacon-key", key)
	m.heads["shop"] = m.head("shop")
	m.signed[m.heads["shop"].Digest()] = m.heads["shop"].Version()
	return m
}

// watch decides by the client, again and again, until ctx ends, and holds each
// decision against the model.
func (s *subject) watch(ctx context.Context) {
	for ctx.Err() == nil {
		for _, n := range []policy.Namespace{"shop.cart", "shop.pay"} {
			s.look(ctx, n)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (s *subject) look(ctx context.Context, n policy.Namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return
	}
	at := time.Now()
	d, err := s.client.Authorize(ctx, testkit.Request(n, "Get"))
	if err != nil {
		if kind := policy.KindOf(err); ctx.Err() == nil && kind != policy.Unavailable && kind != policy.NotFound {
			s.t.Errorf("%s: %s: %v", s.name, n, err)
		}
		return
	}
	s.decided++
	if len(d.Stale) > 0 {
		s.stale++
	}
	if n == "shop.cart" && d.Allowed && slices.Contains(d.Stale, n) {
		s.t.Errorf("%s: %s is stale, says \"deny\", and allows", s.name, n)
	}
	s.model.mu.Lock()
	defer s.model.mu.Unlock()
	for _, v := range d.Versions {
		if s.signed[v.Digest] != v {
			s.t.Errorf("%s: decides by %v, which nobody has signed", s.name, v)
		}
		if last := s.last[v.Namespace]; v.Compare(last) < 0 {
			s.t.Errorf("%s: goes back from %v to %v", s.name, last, v)
		}
		s.last[v.Namespace] = v
		if slices.Contains(d.Stale, v.Namespace) {
			continue
		}
		if since, ok := s.replaced[v.Namespace][v.Revision]; ok && at.Sub(since) > believed {
			s.t.Errorf("%s: decides by %v, which was replaced %s ago, and does not say that it is stale", s.name, v, at.Sub(since))
		}
	}
}

// start starts the client, over what it left on disk.
func (s *subject) start() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	client, err := embedded.New(ctx, embedded.Config{
		NATS: s.relay.url(), TrustFile: s.TrustFile, Namespaces: []policy.Namespace{"shop.cart", "shop.pay"}, Dir: filepath.Join(s.dir, s.name),
		OnRelease: func(e live.Event) {
			if r, ok := e.(live.Refused); ok && policy.KindOf(r.Err) == policy.Denied {
				s.t.Errorf("%s: refused %v", s.name, r.Err)
			}
		},
	})
	if err != nil {
		return // it reaches nobody, and has nothing on disk yet; it is started later
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = client
}

func (s *subject) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
}

// release pushes what comes next, or goes back to what was, and reports whether
// that was acknowledged.
func (m *model) release(n policy.Namespace, back bool) bool {
	m.t.Helper()
	key := map[policy.Namespace]string{"shop": "center", "shop.cart": "cart", "shop.pay": "pay"}[n]
	ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Second)
	defer cancel()
	b := m.allows("Get", []int{10, 70 << 10}[m.random.IntN(2)])
	if n == "shop" {
		b = m.Rego(fmt.Sprintf("deny contains %q if input.action.name == \"Forbidden\"", fmt.Sprint(m.random.Uint64())))
	}
	d := m.draft(key, n, b)
	d.MaxStaleness = believed
	head := m.heads[n]
	if back && head != nil && head.Release().Revision > 1 {
		var err error
		if d, err = m.author.Restore(ctx, d, 1, 1+m.random.Uint64N(head.Release().Revision-1), bundles.Limits{}); err != nil {
			return false
		}
	}
	_, proposal, sealed, err := m.author.Sign(ctx, d)
	if err != nil || proposal == nil {
		return false
	}
	signed, err := m.Trust().Open(proposal.Note())
	m.must(err)
	m.mu.Lock()
	m.signed[signed.Digest()] = signed.Version()
	m.mu.Unlock()
	result, err := m.author.Release(ctx, sealed, bundles.Limits{})
	if err != nil {
		if k := policy.KindOf(err); k != policy.Unavailable && k != policy.Conflict {
			m.t.Errorf("push to %s: %v", n, err)
		}
		return false
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.replaced[n] == nil {
		m.replaced[n] = map[uint64]time.Time{}
	}
	for r := range result.Release.Release().Revision {
		if _, ok := m.replaced[n][r]; !ok {
			m.replaced[n][r] = now
		}
	}
	m.heads[n] = result.Release
	return true
}

func (m *model) namespace() policy.Namespace {
	return []policy.Namespace{"shop.cart", "shop.pay", "shop"}[m.random.IntN(3)]
}

// one does something at random.
func (m *model) one() (what string) {
	s := m.clients[m.random.IntN(len(m.clients))]
	switch n := m.random.IntN(20); {
	case n < 9:
		m.release(m.namespace(), false)
		return "push"
	case n < 11:
		m.release(m.namespace(), true)
		return "rollback"
	case n < 13 && s != m.clients[0]: // the first one's is told apart
		s.relay.cutOff(true)
		return "cut"
	case n < 16 && s != m.clients[0]:
		s.relay.cutOff(false)
		return "mend"
	case n < 18:
		s.stop()
		s.start()
		return "restart of a client"
	case n == 18:
		m.server.kill()
		m.restart()
		return "kill of the server"
	}
	m.must(m.server.cmd.Process.Signal(syscall.SIGSTOP))
	<-time.After(time.Duration(m.random.IntN(1000)) * time.Millisecond) // it is what happens, and nothing is waited for
	m.must(m.server.cmd.Process.Signal(syscall.SIGCONT))
	return "pause of the server"
}

func (m *model) restart() {
	m.start()
	for _, s := range m.clients {
		s.relay.to(m.server.NATS)
	}
}

// head is the release of a namespace that the server has for the newest.
func (m *model) head(n policy.Namespace) *bundles.Signed {
	m.t.Helper()
	head, err := m.author.Head(m.t.Context(), n)
	m.must(err)
	return head
}

func TestWhateverHappensNobodyGoesBackOrIsBehindWithoutSayingSo(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-model.for %s -model.seed %d", *modelFor, seed)
	m := newModel(t, seed)
	for _, n := range []policy.Namespace{"shop", "shop.cart", "shop.pay"} {
		if !m.release(n, false) {
			t.Fatalf("the first push to %s was lost", n)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for i := range 4 {
		s := &subject{model: m, name: fmt.Sprintf("client-%d", i), relay: newRelay(t, m.server.NATS), last: map[policy.Namespace]policy.Version{}}
		s.start()
		m.clients = append(m.clients, s)
		work.Go(func() { s.watch(ctx) })
	}
	defer func() {
		cancel()
		work.Wait()
		for _, s := range m.clients {
			s.stop()
		}
	}()

	// The first client is cut off for as long as it takes to become stale.
	m.clients[0].relay.cutOff(true)
	mend := time.After(min(*modelFor, believed+3*time.Second))
	for end := time.After(*modelFor); end != nil; {
		select {
		case <-mend:
			m.clients[0].relay.cutOff(false)
		case <-end:
			end = nil
		case <-time.After(time.Duration(m.random.IntN(200)) * time.Millisecond):
			m.did[m.one()]++
		}
	}

	// Once all is well, everybody gets what is newest, and soon.
	begin := time.Now()
	for _, s := range m.clients {
		s.relay.cutOff(false)
	}
	for _, n := range []policy.Namespace{"shop", "shop.cart", "shop.pay"} {
		for !m.release(n, false) {
			if time.Since(begin) > patience {
				t.Fatalf("nothing can be pushed to %s", n)
			}
		}
	}
	for _, s := range m.clients {
		for !s.has(m.heads) {
			if time.Since(begin) > patience {
				t.Fatalf("%s has %v, and never gets the newest", s.name, s.last)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	decided, stale := 0, 0
	for _, s := range m.clients {
		s.mu.Lock()
		decided, stale = decided+s.decided, stale+s.stale
		s.mu.Unlock()
	}
	t.Logf("%v; %d decisions by %d releases, %d of them said to be stale; everybody had the newest after %s", m.did, decided, len(m.signed), stale, time.Since(begin).Round(time.Millisecond))
	if stale == 0 && *modelFor > believed+3*time.Second {
		t.Error("nothing ever became stale")
	}
}

// has reports whether the client decides by the newest releases, and says of none
// that it is stale.
func (s *subject) has(heads map[policy.Namespace]*bundles.Signed) bool {
	s.mu.Lock()
	if s.client == nil {
		s.mu.Unlock()
		s.start()
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	for n := range maps.Keys(heads) {
		if s.last[n].Digest != heads[n].Digest() {
			return false
		}
	}
	return true
}
