package embedded_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// Whatever keeps a client from its releases, its error and its status say what,
// and what to do.
func TestAClientSaysWhyItHearsNothing(t *testing.T) {
	t.Parallel() // it waits for what does not come
	const wait = 4 * time.Second
	d, dir := testkit.NewDomain(t), t.TempDir()
	principals := []jetstream.Principal{
		{Name: "cart-1", Kind: jetstream.Client, Namespaces: []policy.Namespace{"shop.cart"}, Guardrails: []policy.Namespace{"shop"}},
		{Name: "cart-2", Kind: jetstream.Client, Namespaces: []policy.Namespace{"shop.cart"}}, // made before there were guardrails
		{Name: "pay-1", Kind: jetstream.Client, Namespaces: []policy.Namespace{"shop.pay"}, Guardrails: []policy.Namespace{"shop"}},
	}
	url := d.GuardedNATS(dir, principals...).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	kept := t.TempDir()
	as := func(name string) func(*embedded.Config) {
		return func(c *embedded.Config) { c.Credentials = filepath.Join(dir, name+".nkey") }
	}
	newClient(t, d, url, as("cart-1"), func(c *embedded.Config) { c.Dir = kept }).Close()

	elsewhere := testkit.NewDomain(t)
	emptyDir := t.TempDir()
	empty := elsewhere.GuardedNATS(emptyDir, principals...).URL() // no PDP was ever here
	open := testkit.NATS(t, t.TempDir()).URL()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "nats://user:secret@" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// They all wait together: there are more of them than processors.
	var waiting sync.WaitGroup
	for name, tt := range map[string]struct {
		url    string
		change func(*embedded.Config)
		want   []string
	}{
		"another team's credentials":      {url, as("pay-1"), []string{"release of shop.cart is not handed out", "Permissions Violation", "these credentials may not read it", "nats-config"}},
		"a guardrail that came later":     {url, as("cart-2"), []string{"release of shop is not handed out", "these credentials may not read it", "guardrails"}},
		"no credentials":                  {url, func(*embedded.Config) {}, []string{"Authorization Violation", "whoever shows no credentials", "nats-config"}},
		"credentials of another NATS":     {empty, as("cart-1"), []string{"Authorization Violation", "the credentials of cart-1"}},
		"TLS with a server that has none": {strings.Replace(url, "nats://", "tls://", 1), as("cart-1"), []string{"has no TLS"}},
		"nobody listens":                  {nobody, as("cart-1"), []string{"connection refused", "see that NATS runs there"}},
		"a NATS server without accounts":  {open, as("cart-1"), []string{"knows no credentials", "nats-config"}},
		"a NATS server without a PDP":     {empty, func(c *embedded.Config) { c.Credentials = filepath.Join(emptyDir, "cart-1.nkey") }, []string{"release of shop, shop.cart is not handed out", "no PDP has been connected"}},
		"neither accounts nor a PDP":      {open, func(*embedded.Config) {}, []string{"not handed out", "no PDP has been connected"}},
	} {
		waiting.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			_, err := tryClient(ctx, t, d, tt.url, tt.change)
			if policy.KindOf(err) != policy.Unavailable {
				t.Errorf("%s: got %v", name, err)
				return
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s: the error is %v, want %q", name, err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: the error tells the password: %v", name, err)
			}
		})
	}
	defer waiting.Wait()
	t.Run("from disk", func(t *testing.T) {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(kept)); err != nil {
			t.Fatal(err)
		}
		c := newClient(t, d, url, func(c *embedded.Config) { c.Dir = copied })
		c.wait("NATS refuses it", func(e any) bool { _, ok := e.(jetstream.BrokerError); return ok })
		if s := c.Status(); s.Connected || s.Fault == nil || !strings.Contains(s.Fault.Error(), "Authorization Violation") {
			t.Errorf("status is %+v", s)
		}
		c.expect("shop.cart", "Add", "allow") // by what it holds
	})
}

// What is over is no fault any more.
func TestAFaultEndsWithItsCause(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	c := newClient(t, d, url)
	if err := c.Status().Fault; err != nil {
		t.Errorf("a client that has all has the fault %v", err)
	}
	once := newClient(t, d, url, in(embedded.Once()))
	once.wait("it leaves", func(e any) bool { _, ok := e.(jetstream.Disconnected); return ok })
	if err := once.Status().Fault; err != nil {
		t.Errorf("a client that has left has the fault %v", err)
	}
	if err := newInDirectory(t, d, t.TempDir()).Status().Fault; err != nil {
		t.Errorf("a client without NATS has the fault %v", err)
	}
}
