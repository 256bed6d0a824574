package embedded_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// heads collects how the heads came that a client has seen.
type heads struct {
	mu            sync.Mutex
	pushed, asked int
}

func (h *heads) collect(c *embedded.Config) {
	also := c.OnNATS
	c.OnNATS = func(e jetstream.Event) {
		if seen, ok := e.(jetstream.HeadSeen); ok {
			h.mu.Lock()
			if seen.Pushed {
				h.pushed++
			} else {
				h.asked++
			}
			h.mu.Unlock()
		}
		also(e)
	}
}

func in(m embedded.Mode) func(*embedded.Config) { return func(c *embedded.Config) { c.Mode = m } }

func TestAClientIsPushedToOrPolls(t *testing.T) {
	for _, tt := range []struct {
		mode   embedded.Mode
		name   string
		pushed bool
	}{
		{embedded.Mode{}, "push", true},
		{embedded.Push(), "push", true},
		{embedded.Poll(20 * time.Millisecond), "poll", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := testkit.NewDomain(t)
			d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
			url := d.ServeNATS(t.TempDir()).URL()
			p := d.StartPDP(url, t.TempDir())
			d.Push(p, "center", "shop", guardrail)
			d.Push(p, "cart", "shop.cart", allowsNot)
			var h heads
			c := newClient(t, d, url, in(tt.mode), h.collect)
			if got := c.Status().Mode; got != tt.name {
				t.Errorf("mode is %q", got)
			}
			c.expect("shop.cart", "Add", "deny")
			var newest policy.Version
			for i := range 3 {
				newest = d.Push(p, "cart", "shop.cart", fmt.Sprintf("%s\n# %d", allowsAdd, i)).Release.Version()
				c.waitFor(newest)
			}
			c.expect("shop.cart", "Add", "allow")
			beacon := jetstream.Beacon{Namespace: "shop.cart", Note: d.Beacon("beat", time.Now(), newest)}
			if err := p.Store.PutBeacons(t.Context(), []jetstream.Beacon{beacon}); err != nil {
				t.Fatal(err)
			}
			c.wait("it is proven", func(e any) bool {
				proven, ok := e.(live.Proven)
				return ok && proven.Version == newest
			})
			c.Close()
			h.mu.Lock()
			defer h.mu.Unlock()
			if (h.pushed > 0) != tt.pushed || h.asked == 0 {
				t.Errorf("%d heads came by themselves, %d were asked for", h.pushed, h.asked)
			}
		})
	}
}

func TestAClientThatAsksOnceLeavesNATSAlone(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsNot)
	dir := t.TempDir()
	once := func(c *embedded.Config) { c.Mode, c.Dir = embedded.Once(), dir }
	left := func(c *client) {
		t.Helper()
		c.wait("the connection is closed", func(e any) bool { _, ok := e.(jetstream.Disconnected); return ok })
		if s := c.Status(); s.Connected || s.Mode != "once" {
			t.Errorf("status is %+v", s)
		}
	}
	c := newClient(t, d, url, once)
	c.expect("shop.cart", "Add", "deny")
	left(c)
	next := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	c.expect("shop.cart", "Add", "deny")
	c.Close()

	// The next start has what is on disk at once, and then asks again.
	again := newClient(t, d, url, once)
	again.waitFor(next)
	again.expect("shop.cart", "Add", "allow")
	left(again)
}

func TestAClientThatAsksOnceAsksUntilItIsAnswered(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d := testkit.NewDomain(t)
	stored := t.TempDir()
	nats := d.ServeNATS(stored)
	url := nats.URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "center", "shop", guardrail)
	one := d.Push(p, "cart", "shop.cart", allowsNot).Release
	dir := t.TempDir()
	c := newClient(t, d, url, func(c *embedded.Config) { c.Dir = dir })
	c.waitFor(one.Version())
	c.Close()
	two := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	nats.Shutdown()

	late := newClient(t, d, url, func(c *embedded.Config) { c.Mode, c.Dir = embedded.Once(), dir })
	late.expect("shop.cart", "Add", "deny")
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "nats://"), ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	d.ServeNATSAt(number, stored)
	late.waitFor(two.Version())
	late.expect("shop.cart", "Add", "allow")
	late.wait("the connection is closed", func(e any) bool { _, ok := e.(jetstream.Disconnected); return ok })
}

// write puts a release into a directory as its users do.
func write(t *testing.T, dir string, n policy.Namespace, content []byte) {
	t.Helper()
	temp := filepath.Join(dir, ".next")
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(dir, string(n)+".release")); err != nil {
		t.Fatal(err)
	}
}

func sealed(note, packed []byte) []byte {
	return bundles.Sealed{Note: note, Packed: packed}.Append(nil)
}

// newInDirectory starts a client without NATS.
func newInDirectory(t *testing.T, d *testkit.Domain, dir string, change ...func(*embedded.Config)) *client {
	t.Helper()
	return newClient(t, d, "", append(change, in(embedded.Directory(dir)))...)
}

func TestAClientOfADirectoryNeedsNoNATS(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d := testkit.NewDomain(t)
	dir, kept := t.TempDir(), t.TempDir()
	g := d.Release("center", "shop", nil, d.Rego(guardrail))
	one := d.Release("cart", "shop.cart", nil, d.Rego(allowsNot))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego(allowsAdd))
	forged, packed := d.Forge("pay", "shop.cart", two.Signed, d.Rego("allow := true"))
	write(t, dir, "shop", sealed(g.Note(), g.Packed))
	write(t, dir, "shop.cart", sealed(one.Note(), one.Packed))
	c := newInDirectory(t, d, dir, func(c *embedded.Config) { c.Dir = kept })
	c.expect("shop.cart", "Add", "deny")
	if s := c.Status(); s.Mode != "directory" || s.Connected || len(s.Namespaces) != 2 {
		t.Errorf("status is %+v", s)
	}
	write(t, dir, "shop.cart", sealed(two.Note(), two.Packed))
	c.waitFor(two.Version())
	c.expect("shop.cart", "Add", "allow")
	c.expect("shop.cart", "Forbidden", "deny")

	// Whoever can write there can hold up releases, and nothing else.
	for name, content := range map[string][]byte{
		"an older one":        sealed(one.Note(), one.Packed),
		"by another's key":    sealed(forged, packed),
		"half of it":          sealed(two.Note(), two.Packed)[:len(two.Note())/2],
		"with another bundle": sealed(d.Release("cart", "shop.cart", two.Signed, d.Rego(allowsNot)).Note(), g.Packed),
	} {
		write(t, dir, "shop.cart", content)
		c.wait(name+" is refused", func(e any) bool { _, ok := e.(live.Refused); return ok })
		c.expect("shop.cart", "Add", "allow")
	}
	c.Close()

	// Not even by a restart.
	write(t, dir, "shop.cart", sealed(one.Note(), one.Packed))
	again := newInDirectory(t, d, dir, func(c *embedded.Config) { c.Dir = kept })
	again.expect("shop.cart", "Add", "allow")
}

func TestWhatAClientOrAPDPKeepsIsADirectory(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d := testkit.NewDomain(t)
	url, dir := d.ServeNATS(t.TempDir()).URL(), t.TempDir()
	p := d.StartPDP(url, dir)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	newInDirectory(t, d, copied).expect("shop.cart", "Add", "allow")
}

func TestADirectoryProvesNothing(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true, Beacons: []string{"beat"}})
	dir := t.TempDir()
	one := d.Release("cart", "shop.cart", nil, d.Rego(allowsAdd), func(r *bundles.Release) { r.MaxStaleness, r.WhenStale = time.Minute, bundles.Deny })
	write(t, dir, "shop.cart", sealed(one.Note(), one.Packed))
	c := newInDirectory(t, d, dir)
	got := c.expect("shop.cart", "Add", "deny")
	if len(got.Stale) != 1 {
		t.Errorf("decision is %+v, and says nothing of being stale", got)
	}
}

func TestModesThatContradictThemselvesAreRefused(t *testing.T) {
	d := testkit.NewDomain(t)
	dir := t.TempDir()
	const nats = "nats://127.0.0.1:4222"
	for name, tt := range map[string]struct {
		change func(*embedded.Config)
		want   string
	}{
		"neither NATS nor a directory": {func(c *embedded.Config) { c.NATS = "" }, "embedded.Directory(DIR)"},
		"polling without NATS":         {func(c *embedded.Config) { c.NATS, c.Mode = "", embedded.Poll(0) }, "no NATS server"},
		"NATS and a directory":         {func(c *embedded.Config) { c.NATS, c.Mode = nats, embedded.Directory(dir) }, "Config.NATS is for NATS"},
		"credentials for a directory":  {func(c *embedded.Config) { c.Credentials, c.Mode = "x", embedded.Directory(dir) }, "Config.Credentials is for NATS"},
		"a directory that is its own":  {func(c *embedded.Config) { c.Mode, c.Dir = embedded.Directory(dir+"/."), dir }, "belongs to this client alone"},
		"no such directory":            {func(c *embedded.Config) { c.Mode = embedded.Directory(dir + "/nowhere") }, "directory of releases"},
		"a file":                       {func(c *embedded.Config) { c.Mode = embedded.Directory(d.TrustFile) }, "is none"},
		"a name with capitals":         {func(c *embedded.Config) { c.NATS, c.Instance = nats, "Cart 1" }, "no name of an instance"},
		"polling before it has asked":  {func(c *embedded.Config) { c.NATS, c.Mode = nats, embedded.Poll(-1) }, "negative"},
	} {
		_, err := tryClient(t.Context(), t, d, "", tt.change)
		if policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// How often beacons are asked for is chosen here, how long a release is believed
// without one by its authors: whoever cannot keep up is told.
func TestAModeThatCannotKeepUpSaysSo(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}, More: map[policy.Namespace]string{"shop.cart": "max-staleness: 15s, when-stale: deny"}})
	url := d.ServeNATS(t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	g := d.Push(p, "center", "shop", guardrail).Release.Version()
	cart := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	issue(t, d, p, time.Now(), g, cart)
	kept := t.TempDir()
	newClient(t, d, url, func(c *embedded.Config) { c.Dir = kept }).Close()
	for _, tt := range []struct {
		mode           embedded.Mode
		cart, guarding string // what is said; "" is nothing
	}{
		{embedded.Push(), "", ""},
		{embedded.Poll(6 * time.Second), "", ""}, // 9 s, and 5 between two beacons
		{embedded.Poll(time.Minute), "may be 1m35s old, and the release of shop.cart is believed for 15s after it: then everything is denied", ""},
		{embedded.Poll(0), "may be 50s old", ""},
		{embedded.Once(), "do not go on coming here", "do not go on coming here"},
		{embedded.Directory(kept), "do not go on coming here", "do not go on coming here"},
	} {
		from := url
		if tt.mode == embedded.Directory(kept) {
			from = ""
		}
		c := newClient(t, d, from, in(tt.mode))
		for _, s := range c.Status().Namespaces {
			want := tt.guarding
			if s.Namespace == "shop.cart" {
				want = tt.cart
			}
			if got := fmt.Sprint(s.Outpaced); want == "" && s.Outpaced != nil || !strings.Contains(got, want) {
				t.Errorf("%s: %s: %s, want %q", tt.mode, s.Namespace, got, want)
			}
		}
		if tt.cart != "" {
			c.wait("it says so", func(e any) bool {
				o, ok := e.(live.Outpaced)
				return ok && o.Version == cart && strings.Contains(o.Err.Error(), tt.cart)
			})
		}
	}
}
