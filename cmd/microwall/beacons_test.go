package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// beaconKey writes a beacon key of the domain to a file.
func beaconKey(t *testing.T, d *testkit.Domain, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".key")
	if err := os.WriteFile(file, []byte(d.Private(name)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// proven is an embedded client whose clock the test sets.
type proven struct {
	*embedded.Client
	t     *testing.T
	ahead atomic.Int64
}

func (p *proven) forward(d time.Duration) { p.ahead.Store(int64(d)) }

// status returns what the client knows of a namespace.
func (p *proven) status(n policy.Namespace) live.Status {
	for _, s := range p.Status().Namespaces {
		if s.Namespace == n {
			return s
		}
	}
	return live.Status{Age: live.Forever}
}

// until waits for a status of a namespace.
func (p *proven) until(n policy.Namespace, what string, holds func(live.Status) bool) live.Status {
	p.t.Helper()
	late := time.After(patience)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		s := p.status(n)
		if holds(s) {
			return s
		}
		select {
		case <-ticker.C:
		case <-late:
			p.t.Fatalf("%s is not %s, but %+v", n, what, s)
		}
	}
}

// decide asks for what the policy allows.
func (p *proven) decide(n policy.Namespace) policy.Decision {
	p.t.Helper()
	d, err := p.Authorize(p.t.Context(), testkit.Request(n, "Any"))
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func TestWhatNobodyProvesBecomesStaleByTheRuleOfItsNamespace(t *testing.T) {
	t.Parallel() // it waits for beacons
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}, More: map[policy.Namespace]string{
		"shop.cart": "max-staleness: 15s, when-stale: deny", "shop.pay": "max-staleness: 15s",
	}})
	k := newKillableOf(t, d, "--beacon-key", beaconKey(t, d, "beat"))
	k.push("cart", "shop.cart", k.allows("Any", 10))
	k.push("pay", "shop.pay", k.allows("Any", 10))
	address := newRelay(t, k.server.NATS)
	c := &proven{t: t}
	var err error
	c.Client, err = embedded.New(t.Context(), embedded.Config{
		NATS: address.url(), TrustFile: k.TrustFile, Namespaces: []policy.Namespace{"shop.cart", "shop.pay"}, Dir: t.TempDir(),
		Now: func() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) },
	})
	k.must(err)
	defer c.Close()
	young := func(s live.Status) bool { return s.Age < 8*time.Second && !s.Stale }
	fresh := func(when string) {
		t.Helper()
		for _, n := range []policy.Namespace{"shop", "shop.cart", "shop.pay"} {
			c.until(n, "young "+when, young)
		}
		for _, n := range []policy.Namespace{"shop.cart", "shop.pay"} {
			if d := c.decide(n); !d.Allowed || len(d.Stale) > 0 {
				t.Errorf("%s, %s: %+v", when, n, d)
			}
		}
	}
	stale := func(when string, which ...policy.Namespace) {
		t.Helper()
		if d := c.decide("shop.cart"); d.Allowed || len(d.Reasons) != 1 || !strings.Contains(d.Reasons[0].Text, "stale") {
			t.Errorf("%s, what denies when it is stale: %+v", when, d)
		}
		if d := c.decide("shop.pay"); !d.Allowed || !slices.Equal(d.Stale, which) {
			t.Errorf("%s, what serves when it is stale: %+v", when, d)
		}
	}
	fresh("at first")
	one := c.status("shop.cart").Proven
	c.until("shop.cart", "proven once more", func(s live.Status) bool { return s.Proven.After(one) })

	// PDP and broker are frozen: they answer nobody, and close nothing.
	k.must(k.server.cmd.Process.Signal(syscall.SIGSTOP))
	c.forward(14 * time.Second)
	if d := c.decide("shop.cart"); d.Allowed != (c.status("shop.cart").Age <= 15*time.Second) {
		t.Errorf("at the age of %s: %+v", c.status("shop.cart").Age, d)
	}
	c.forward(30 * time.Second)
	stale("frozen", "shop.pay")
	k.must(k.server.cmd.Process.Signal(syscall.SIGCONT))
	c.forward(0)
	fresh("after the frost")

	// It is killed, and what it knew of beacons with it.
	k.server.kill()
	c.forward(30 * time.Second)
	stale("killed", "shop.pay")
	k.start()
	address.to(k.server.NATS)
	c.forward(0)
	fresh("after the restart")

	// Its key is taken out, from the trust file of the client too.
	d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat2"}, More: map[policy.Namespace]string{
		"shop.cart": "max-staleness: 15s, when-stale: deny", "shop.pay": "max-staleness: 15s",
	}})
	_, err = k.server.waitFor(`"msg":"no beacons are issued.*lists? .*beat`)
	k.must(err)
	c.until("shop.cart", "unproven", func(s live.Status) bool { return s.Stale && s.Age == live.Forever })
	stale("without a key that is listed", "shop", "shop.pay")
}

func TestServeTakesNoBeaconKeyThatIsNotListed(t *testing.T) {
	d := testkit.NewDomain(t)
	key := beaconKey(t, d, "beat")
	for name, test := range map[string]struct {
		trust testkit.TrustOptions
		key   string
		says  string
	}{
		"no key is listed":     {testkit.TrustOptions{}, key, "beacons"},
		"another one is":       {testkit.TrustOptions{Beacons: []string{"beat2"}}, key, `"beat" to the list beacons`},
		"it signs releases":    {testkit.TrustOptions{Beacons: []string{"beat"}}, beaconKey(t, d, "cart"), `"cart" to the list beacons`},
		"there is no such key": {testkit.TrustOptions{Beacons: []string{"beat"}}, filepath.Join(t.TempDir(), "none"), "microwall keygen"},
	} {
		t.Run(name, func(t *testing.T) {
			d.WriteTrust(test.trust)
			server, err := startServing(t.TempDir(), "--trust", d.TrustFile, "--data-dir", t.TempDir(), "--beacon-key", test.key)
			if err == nil {
				server.kill()
				t.Fatal("it serves")
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v does not say %q", err, test.says)
			}
		})
	}
}
