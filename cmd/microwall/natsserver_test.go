//go:build unix

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/policy"
)

// One file is for nats-server and for the server inside this process. Here the
// real nats-server runs by it, with TLS and client certificates.
func TestNATSServerRunsByWhatNATSConfigMakes(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "nats-server")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		t.Fatalf("nats-server cannot be built: %v\n%s", err, out)
	}
	d := testkit.NewDomain(t)
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, "nats")
	ownCert, ownKey := ca.Issue(t, "pdp")
	l, err := net.Listen("tcp", "127.0.0.1:0") // for its address alone
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "principals.yaml")
	if err := os.WriteFile(list, []byte(`
principals:
  - {name: pdp-1, kind: pdp}
  - {name: cart-1, kind: client, namespaces: [shop.cart]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "nats.conf")
	var out bytes.Buffer
	code := run(t.Context(), world{stdin: strings.NewReader(""), stdout: &out, stderr: &out, getenv: func(string) string { return "" }}, []string{
		"nats-config", list, "--trust", d.TrustFile, "--creds", dir, "--out", conf, "--listen", address, "--store-dir", filepath.Join(dir, "store"),
		"--tls-cert", cert, "--tls-key", key, "--client-ca", ca.File,
	})
	if code != exitYes {
		t.Fatal(out.String())
	}
	broker := exec.Command(program, "-c", conf)
	var log bytes.Buffer
	broker.Stderr = &log
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = broker.Process.Kill()
		_ = broker.Wait()
		if t.Failed() {
			t.Logf("nats-server said:\n%s", log.String())
		}
	})

	url := "tls://" + address
	secure := []string{"--nats-ca", ca.File, "--nats-cert", ownCert, "--nats-cert-key", ownKey}
	s := &site{t: t, Domain: d, dir: t.TempDir()}
	s.serving, err = startServing(s.dir, append([]string{"--trust", d.TrustFile, "--nats", url, "--nats-creds", filepath.Join(dir, "pdp-1.nkey")}, secure...)...)
	s.must(err)
	t.Cleanup(s.kill)
	_, err = s.waitFor(`"msg":"ready"`) // also waits for nats-server
	s.must(err)
	s.conn = s.dial(s.GRPC)
	s.push("center", "shop", neverForbidden, "released revision 1")
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	ask := func(creds string, n policy.Namespace, more ...string) []string {
		return append([]string{"authorize", "--nats", url, "--nats-creds", filepath.Join(dir, creds), "--namespace", string(n), "--subject", "workload:x", "--resource", "grpc:Cart", "--action", "Get", "--timeout", "2s"}, more...)
	}
	s.expect("cart", exitYes, "allowed", ask("cart-1.nkey", "shop.cart", secure...)...)
	s.expect("cart", exitError, "ermissions", ask("cart-1.nkey", "shop.pay", secure...)...)
	s.expect("cart", exitError, "did not hand them out", ask("cart-1.nkey", "shop.cart", "--nats-ca", ca.File)...) // no client certificate
}
