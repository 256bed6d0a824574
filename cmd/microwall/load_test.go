//go:build unix

package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// load is a domain in which authors push and clients decide without a pause,
// whatever happens to the servers meanwhile. It watches every decision: a client
// that goes back to an older release, decides by what nobody released, or does
// not decide at all, fails the test.
type load struct {
	*testkit.Domain
	t    *testing.T
	ctx  context.Context
	work sync.WaitGroup
	pdps []*loadPDP
	// nkey is the file by which NATS knows the clients; "" is nobody in particular.
	nkey string
	// clients decide in this process.
	clients map[string]*embedded.Client

	decisions atomic.Int64
	// attacked is true once somebody pushes forgeries, of which so many were
	// refused by those who decide in this process.
	attacked atomic.Bool
	refused  atomic.Int64
	// rebuilding is true while the domain is: authors may be refused then.
	rebuilding atomic.Bool

	mu      sync.Mutex
	changed chan struct{} // closed when one of those below has, and made again
	// latest is what each client decided by last, of each namespace.
	latest map[string]map[policy.Namespace]policy.Version
	pushed map[string]bool          // the reasons that were ever pushed
	reason map[policy.Digest]string // which one a release gives
	acked  map[policy.Namespace][]ack
}

// ack is a push that was acknowledged.
type ack struct {
	version policy.Version
	begun   time.Time
}

// teams are the namespaces that are pushed without a pause, and their keys.
var teams = map[policy.Namespace]string{"shop.cart": "cart", "shop.pay": "pay"}

const (
	// pace is the pause between two pushes of a team.
	pace = 50 * time.Millisecond
	// loadPatience bounds the wait for everybody to be where they should be.
	loadPatience = 90 * time.Second
)

func newLoad(t *testing.T, d *testkit.Domain) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		Domain: d, t: t, ctx: ctx, changed: make(chan struct{}),
		latest: map[string]map[policy.Namespace]policy.Version{}, pushed: map[string]bool{}, reason: map[policy.Digest]string{},
		acked: map[policy.Namespace][]ack{}, clients: map[string]*embedded.Client{},
	}
	t.Cleanup(func() {
		cancel()
		l.work.Wait()
		for _, p := range l.pdps {
			p.end()
			if p.server != nil {
				p.server.kill()
			}
		}
		t.Logf("%d decisions were watched, %d forgeries refused", l.decisions.Load(), l.refused.Load())
		if l.attacked.Load() && l.refused.Load() == 0 {
			t.Error("no forgery ever reached anybody")
		}
	})
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// loadPDP is a PDP that is asked without a pause.
type loadPDP struct {
	load   *load
	name   string
	args   []string
	server *serving
	conn   *grpc.ClientConn
	ask    *remote.Client
	down   atomic.Bool
	asking sync.WaitGroup
}

// pdp starts a PDP that keeps what it has in dir.
func (l *load) pdp(name, dir string, args ...string) *loadPDP {
	l.t.Helper()
	p := &loadPDP{load: l, name: name, args: append([]string{"--trust", l.TrustFile, "--data-dir", dir}, args...)}
	p.down.Store(true)
	l.pdps = append(l.pdps, p)
	p.start(l.t)
	return p
}

func (p *loadPDP) start(t *testing.T) {
	t.Helper()
	var err error
	p.server, err = startServing(p.load.t.TempDir(), p.args...)
	must(t, err)
	_, err = p.server.waitFor(`"msg":"ready"`)
	must(t, err)
	p.conn, err = grpc.NewClient(p.server.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	p.ask, err = remote.New(p.load.ctx, remote.Config{Servers: []string{p.server.GRPC}, Cache: cache.Config{Entries: -1}})
	must(t, err)
	p.down.Store(false)
}

// author is somebody who pushes there, by the trust file as it is now.
func (p *loadPDP) author() *pap.Client { return pap.New(p.conn, p.server.GRPC, p.load.Trust()) }

// decide begins to ask it; end and kill stop that.
func (p *loadPDP) decide() {
	p.asking.Go(func() { p.load.decide(p.name, 5*time.Millisecond, p.ask, &p.down) })
}

// kill ends the PDP with SIGKILL, in the middle of what it does.
func (p *loadPDP) kill() {
	p.down.Store(true)
	p.server.kill()
	p.close()
}

func (p *loadPDP) end() {
	if !p.down.Swap(true) {
		p.load.t.Helper()
		if err := p.server.end(); err != nil {
			p.load.t.Error(err)
		}
		p.close()
	}
}

func (p *loadPDP) close() {
	p.asking.Wait()
	_ = p.ask.Close() // nobody is there any more
	_ = p.conn.Close()
}

// client starts a client that decides in this process.
func (l *load) client(name, natsURL string) {
	l.t.Helper()
	c, err := embedded.New(l.ctx, embedded.Config{
		NATS: natsURL, Credentials: l.nkey, TrustFile: l.TrustFile, Namespaces: slices.Sorted(maps.Keys(teams)), Dir: filepath.Join(l.t.TempDir(), name),
		OnRelease: func(e live.Event) {
			if r, ok := e.(live.Refused); ok && policy.KindOf(r.Err) == policy.Denied {
				l.refused.Add(1)
			}
		},
	})
	must(l.t, err)
	l.clients[name] = c
	l.work.Go(func() {
		defer c.Close()
		l.decide(name, 2*time.Millisecond, c, nil)
	})
}

// decide asks again and again, until the end, or until what is asked is down.
func (l *load) decide(name string, every time.Duration, ask policy.Authorizer, down *atomic.Bool) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	decided := map[policy.Namespace]bool{}
	for {
		for n := range teams {
			d, err := ask.Authorize(l.ctx, testkit.Request(n, "Get"))
			switch {
			case l.ctx.Err() != nil, down != nil && down.Load():
				return
			case policy.KindOf(err) == policy.NotFound && !decided[n]:
				continue // the first releases are on their way
			case err != nil:
				l.t.Errorf("%s does not decide in %s: %v", name, n, err)
				return
			}
			decided[n] = true
			l.saw(name, n, d)
		}
		select {
		case <-ticker.C:
		case <-l.ctx.Done():
			return
		}
	}
}

// saw holds a decision against all that this client and others have decided.
func (l *load) saw(client string, n policy.Namespace, d policy.Decision) {
	l.decisions.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(d.Versions) != 2 || d.Versions[1].Namespace != n || !d.Allowed || len(d.Reasons) != 1 {
		l.t.Errorf("%s decides %+v", client, d)
		return
	}
	reason, by := d.Reasons[0].Text, d.Versions[1]
	if known, ok := l.reason[by.Digest]; !l.pushed[reason] || ok && known != reason {
		l.t.Errorf("%s decides by %v, which says %q; it was released with %q", client, by, reason, known)
	}
	l.reason[by.Digest] = reason
	if l.latest[client] == nil {
		l.latest[client] = map[policy.Namespace]policy.Version{}
	}
	for _, v := range d.Versions {
		before := l.latest[client][v.Namespace]
		switch c := v.Compare(before); {
		case before.Namespace == "":
		case c < 0, c == 0 && v.Digest != before.Digest:
			l.t.Errorf("%s went from %v to %v", client, before, v)
		}
		if v != before {
			l.latest[client][v.Namespace] = v
			l.tell()
		}
	}
}

// tell says that something has changed. l.mu is held.
func (l *load) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// push releases one bundle after the other in a namespace, by whichever PDP is
// there.
func (l *load) push(n policy.Namespace, key string) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for i := 0; ; i++ {
		p := l.pdps[i%len(l.pdps)]
		if !p.down.Load() {
			l.pushOnce(p, n, key, i)
		}
		select {
		case <-ticker.C:
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *load) pushOnce(p *loadPDP, n policy.Namespace, key string, i int) {
	reason := fmt.Sprintf("%s %d", n, i)
	l.mu.Lock()
	l.pushed[reason] = true
	l.mu.Unlock()
	b := l.Bundle(map[string]string{
		"authz.rego": "allow if input.action.name == \"Get\"\nreasons contains data.push",
		"data.json":  fmt.Sprintf(`{"push": %q, "ballast": %q}`, reason, ballast(sizes[i%len(sizes)])),
	})
	draft := l.Draft(key, n, "")
	draft.Bundle = b
	begun, lenient := time.Now(), l.rebuilding.Load()
	result, err := p.author().Push(l.ctx, draft)
	switch {
	case err == nil:
		l.mu.Lock()
		l.acked[n] = append(l.acked[n], ack{result.Release.Version(), begun})
		l.tell()
		l.mu.Unlock()
	case l.ctx.Err() != nil, p.down.Load(), lenient || l.rebuilding.Load():
	case policy.KindOf(err) == policy.Unavailable: // and says so
	case policy.KindOf(err) == policy.Conflict: // what was in doubt has come after all
	default:
		l.t.Errorf("push of %s: %v", reason, err)
	}
}

// begin pushes the first releases.
func (l *load) begin() {
	l.t.Helper()
	l.guard(l.t)
	for n, key := range teams {
		l.pushOnce(l.pdps[0], n, key, -len(sizes))
	}
}

// guard pushes what binds all teams.
func (l *load) guard(t *testing.T) {
	t.Helper()
	_, err := l.pdps[0].author().Push(t.Context(), l.Draft("center", "shop", `deny contains "never" if input.action.name == "Forbidden"`))
	must(t, err)
}

// run lets authors push and PDPs be asked.
func (l *load) run() {
	for n, key := range teams {
		l.work.Go(func() { l.push(n, key) })
	}
	for _, p := range l.pdps {
		p.decide()
	}
}

// attack lets a stranger, who may publish everything, push what looks like
// releases of the future.
func (l *load) attack(natsURL string, as jetstream.Credentials) {
	l.t.Helper()
	conn, err := jetstream.Connect(l.ctx, natsURL, jetstream.ConnectOptions{Credentials: as})
	must(l.t, err)
	var forged []*nats.Msg
	for n := range teams {
		note, packed := l.Forge("stranger", n, nil, l.Rego(`allow := true
			reasons contains "forged"`), func(r *bundles.Release) {
			r.Revision, r.Previous = 1_000_000, policy.DigestOf([]byte("nothing"))
		})
		name := strings.ReplaceAll(string(n), ".", "_")
		forged = append(forged, &nats.Msg{
			Subject: "pdp.head.shop." + name, Data: slices.Concat(note, []byte("\x00I"), packed),
			Header: nats.Header{"Nats-Subject": {"$KV.policy.shop." + name + ".head"}}, // as if it were stored
		})
	}
	l.attacked.Store(true)
	l.work.Go(func() {
		defer conn.Close()
		ticker := time.NewTicker(2 * pace)
		defer ticker.Stop()
		for {
			for _, m := range forged {
				_ = conn.PublishMsg(m) // there may be no connection
			}
			select {
			case <-ticker.C:
			case <-l.ctx.Done():
				return
			}
		}
	})
}

// await waits until reached says so, which is asked with l.mu held whenever
// something has changed.
func (l *load) await(t *testing.T, what string, reached func() bool) {
	t.Helper()
	timeout := time.After(loadPatience)
	for {
		l.mu.Lock()
		done, changed := reached(), l.changed
		l.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			l.mu.Lock()
			defer l.mu.Unlock()
			for n, all := range l.acked {
				t.Logf("acknowledged of %s last: %v", n, all[len(all)-1].version)
			}
			for client, at := range l.latest {
				t.Logf("%s decides by %v", client, at)
			}
			for _, p := range l.pdps {
				text := p.server.text()
				t.Logf("the end of the log of %s:\n%s", p.name, text[max(0, len(text)-3000):])
			}
			t.Fatalf("%s: not within %s", what, loadPatience)
		}
	}
}

// converge waits until of each team a push was acknowledged that began after
// since, and everybody who runs decides by it or by a later one.
func (l *load) converge(t *testing.T, when string, since time.Time, without ...string) {
	t.Helper()
	targets := map[policy.Namespace]policy.Version{}
	l.await(t, "pushes are acknowledged", func() bool {
		for n, all := range l.acked {
			i := slices.IndexFunc(all, func(a ack) bool { return a.begun.After(since) })
			if _, ok := targets[n]; !ok && i >= 0 {
				targets[n] = all[i].version
			}
		}
		return len(targets) == len(teams)
	})
	acked := time.Since(since)
	l.await(t, "everybody decides by the newest", func() bool {
		for client, at := range l.latest {
			if slices.Contains(without, client) {
				continue
			}
			for n, target := range targets {
				if at[n].Compare(target) < 0 {
					return false
				}
			}
		}
		return true
	})
	t.Logf("%s a push of each team is acknowledged after %s, and everybody decides by it after %s", when, acked.Round(time.Millisecond), time.Since(since).Round(time.Millisecond))
}

// proven waits until every client has proof, from after since, that it is not
// behind. It is the guardrail that tells, as teams push too often for that.
func (l *load) proven(t *testing.T, since time.Time) {
	t.Helper()
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	timeout := time.After(loadPatience)
	for name, c := range l.clients {
		for !slices.ContainsFunc(c.Status().Namespaces, func(s live.Status) bool { return s.Namespace == "shop" && s.Proven.After(since) }) {
			select {
			case <-ticker.C:
			case <-timeout:
				t.Fatalf("%s has no proof from after %s within %s: %+v", name, since, loadPatience, c.Status())
			}
		}
	}
	t.Logf("everybody has proof that is newer after %s", time.Since(since).Round(time.Millisecond))
}

// check wants every release that was acknowledged to be in the store, each
// behind the one before, and the newest of them with its bundle.
func (l *load) check(t *testing.T) {
	t.Helper()
	p := l.pdps[0]
	for n := range teams {
		l.mu.Lock()
		acked := slices.Clone(l.acked[n])
		l.mu.Unlock()
		history, err := p.author().History(t.Context(), n)
		must(t, err)
		slices.Reverse(history)
		there := map[policy.Digest]bool{}
		var last policy.Version
		for i, e := range history {
			must(t, e.Err)
			if i > 0 && e.Signed.Release().Previous != last.Digest {
				t.Errorf("%v does not follow %v", e.Signed.Version(), last)
			}
			last = e.Signed.Version()
			there[last.Digest] = true
		}
		first := history[0].Signed.Version()
		for _, a := range acked {
			if a.version.Compare(first) >= 0 && !there[a.version.Digest] {
				t.Errorf("%v was acknowledged and is lost", a.version)
			}
		}
		if err := fetchBundle(t.Context(), p.conn, history[len(history)-1].Signed); err != nil {
			t.Errorf("bundle of %v: %v", last, err)
		}
		t.Logf("%s: %d acknowledged so far; %d are there, up to epoch %d revision %d", n, len(acked), len(history), last.Epoch, last.Revision)
	}
}

// ballast is text of so many random bytes.
func ballast(n int) string {
	data := make([]byte, n)
	_, _ = rand.Read(data) // it never fails
	return base64.StdEncoding.EncodeToString(data)
}
