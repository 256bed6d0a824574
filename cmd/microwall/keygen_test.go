package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// runCommand runs a command line in this process, and returns what it wrote and
// its exit code.
func runCommand(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	w := world{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
	code = run(t.Context(), w, args)
	return out.String(), errs.String(), code
}

// The lines that keygen prints are a trust file under which the key that it
// wrote can sign, whatever YAML might take the name for.
func TestKeygenPrintsATrustFileThatTrustsTheKey(t *testing.T) {
	for _, name := range []string{"cart-ci", "null", "true", "1e3", "0x10", "a@b/c.d_e", "2026-11-23"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "private.key")
			stdout, stderr, code := runCommand(t, "keygen", name, "--out", file)
			if code != exitYes {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			lines := stdout[strings.Index(stdout, "\ndomain:")+1:]
			lines, _, _ = strings.Cut(lines, "\n\n")
			trust, err := bundles.ParseTrust([]byte(lines))
			if err != nil {
				t.Fatalf("%v\n%s", err, lines)
			}
			signer, err := bundles.LoadSigner(file)
			if err != nil {
				t.Fatal(err)
			}
			release := bundles.Release{Namespace: "boutique.cart", Epoch: 1, Revision: 1, Bundle: policy.DigestOf(nil), Size: 1024, Created: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), Author: "cart team"}
			signed, err := bundles.Sign(release, signer)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := trust.Open(signed); err != nil {
				t.Error(err)
			}
		})
	}
}
