package live_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

func TestAFolderDecides(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var events []live.Event
	write("shop.cart/authz.rego", "package authz\n"+cartAllowsAdd)
	write("guardrails/.manifest", `{"metadata":{"microwall":{"namespace":"shop"}}}`)
	write("guardrails/authz.rego", "package authz\n"+openGuardrail)
	f, err := live.OpenFolder(t.Context(), dir, rego.Options{}, func(e live.Event) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	expect := func(n policy.Namespace, action, want string) {
		t.Helper()
		if got := ask(t, f.Snapshot(), n, action); got != want {
			t.Errorf("%s %s: got %q, want %q", n, action, got, want)
		}
	}
	reload := func() {
		t.Helper()
		if err := f.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expect("shop.cart", "Forbidden", "allow") // no trust.yaml: no guardrails
	d := testkit.NewDomain(t)
	write("trust.yaml", string(must(os.ReadFile(d.TrustFile))))
	reload()
	expect("shop.cart", "Forbidden", "deny [shop: never]")
	expect("shop.cart", "Add", "allow")

	write("shop.pay/authz.rego", "package authz\nallow if {")
	reload()
	expect("shop.pay", "Add", "unavailable") // it never was good
	if err := os.RemoveAll(filepath.Join(dir, "shop.pay")); err != nil {
		t.Fatal(err)
	}
	write("shop.cart/authz.rego", "package authz\nallow if {")
	events = nil
	reload()
	expect("shop.cart", "Add", "allow") // as it last did
	if len(events) != 1 {
		t.Errorf("events: %v", events)
	}
	write("guardrails/.manifest", "{")
	reload()
	expect("shop.cart", "Forbidden", "deny [shop: never]")
	write("shop.cart/authz.rego", "package authz\n"+cartAllowsNone)
	reload()
	expect("shop.cart", "Add", "deny")
	if err := os.RemoveAll(filepath.Join(dir, "shop.cart")); err != nil {
		t.Fatal(err)
	}
	reload()
	expect("shop.cart", "Add", "not found")
}
