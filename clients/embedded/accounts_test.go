package embedded_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

func TestAClientDecidesByTheCredentialsOfItsOwnNamespace(t *testing.T) {
	d, dir := testkit.NewDomain(t), t.TempDir()
	url := d.GuardedNATS(dir,
		jetstream.Principal{Name: "cart-1", Kind: jetstream.Client, Namespaces: []policy.Namespace{"shop.cart"}, Guardrails: []policy.Namespace{"shop"}},
		jetstream.Principal{Name: "pay-1", Kind: jetstream.Client, Namespaces: []policy.Namespace{"shop.pay"}, Guardrails: []policy.Namespace{"shop"}},
	).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	as := func(name string) func(*embedded.Config) {
		return func(c *embedded.Config) { c.Credentials = filepath.Join(dir, name+".nkey") }
	}
	c := newClient(t, d, url, as("cart-1"))
	c.expect("shop.cart", "Add", "allow")
	c.expect("shop.cart", "Forbidden", "deny")
	// And by what is pushed, whether it is small or fetched in chunks.
	c.waitFor(d.Push(p, "cart", "shop.cart", allowsNot).Release.Version())
	c.expect("shop.cart", "Add", "deny")
	result, err := d.PAP(p).Push(t.Context(), large(d))
	if err != nil {
		t.Fatal(err)
	}
	c.waitFor(result.Release.Version())
	c.expect("shop.cart", "Add", "allow")

	// Those of another namespace bring nothing, and say why.
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = tryClient(ctx, t, d, url, as("pay-1"), func(c *embedded.Config) {
		c.OnNATS = func(e jetstream.Event) {
			if e, ok := e.(jetstream.BrokerError); ok && errors.Is(e.Err, nats.ErrPermissionViolation) {
				cancel(e.Err)
			}
		}
	})
	if policy.KindOf(err) != policy.Unavailable || !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("got %v", err)
	}
	// That it may not hear of them either, the follower knows: it subscribes again.
	ctx, cancel = context.WithCancelCause(t.Context())
	_, err = tryClient(ctx, t, d, url, as("pay-1"), func(c *embedded.Config) {
		c.OnNATS = func(e jetstream.Event) {
			if e, ok := e.(jetstream.Deaf); ok && strings.HasPrefix(e.Subject, "hear.shop_cart.") {
				cancel(e.Err)
			}
		}
	})
	if err == nil || !errors.Is(context.Cause(ctx), nats.ErrPermissionViolation) {
		t.Errorf("got %v, %v", err, context.Cause(ctx))
	}
}

func TestABundleOverTheClientsOwnLimitIsRefused(t *testing.T) {
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	for name, limits := range map[string]bundles.Limits{"packed": {Packed: 100 << 10}, "unpacked": {Unpacked: 100 << 10}} {
		c := newClient(t, d, url, func(c *embedded.Config) { c.Bundles = limits })
		c.expect("shop.cart", "Add", "allow")
		c.expect("shop.cart", "Remove", "deny")
		if _, err := d.PAP(p).Push(t.Context(), large(d)); err != nil {
			t.Fatal(err)
		}
		c.wait(name+": the refusal", func(e any) bool {
			o, ok := e.(jetstream.Offered)
			return ok && policy.KindOf(o.Err) == policy.Exhausted
		})
		c.expect("shop.cart", "Remove", "deny")   // which the large one allows
		d.Push(p, "cart", "shop.cart", allowsAdd) // for the next one
	}
}

func TestAClientOfANATSServerWithoutAccountsSaysWhatMakesThem(t *testing.T) {
	d := testkit.NewDomain(t)
	url := testkit.NATS(t, t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "cart", "shop.cart", allowsAdd)
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := tryClient(ctx, t, d, url, func(c *embedded.Config) {
		c.OnNATS = func(e jetstream.Event) {
			if e, ok := e.(jetstream.AskFailed); ok && e.Namespace != "" {
				cancel(errors.New("enough"))
			}
		}
	})
	if policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), "no responders") || !strings.Contains(err.Error(), "microwall nats-config") {
		t.Errorf("got %v", err)
	}
}
