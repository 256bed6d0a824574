package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/microwall/microwall/examples/boutique"
)

// Every example passes, alone and below the guardrails.
func TestTheBoutiquePasses(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, boutique.FS); err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(filepath.Join(dir, "*", ".manifest"))
	if err != nil {
		t.Fatal(err)
	}
	if want := 1 + len(boutique.Graph().Services); len(manifests) != want {
		t.Fatalf("%d policies, want %d", len(manifests), want)
	}
	for _, manifest := range manifests {
		folder := filepath.Dir(manifest)
		t.Run(filepath.Base(folder), func(t *testing.T) {
			if stdout, stderr, code := runCommand(t, "check", folder); code != exitYes {
				t.Errorf("check: exit code %d\n%s%s", code, stdout, stderr)
			}
			wantPassed(t, "test", folder)
			wantPassed(t, "test", folder, "--guardrail", filepath.Join(dir, "guardrails"))
		})
	}
}

func wantPassed(t *testing.T, args ...string) {
	t.Helper()
	stdout, stderr, code := runCommand(t, append(args, "--format", "json")...)
	var r testReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v: %v: %s", args, err, stderr)
	}
	if len(r.Tests) == 0 || len(r.Decisions) == 0 {
		t.Errorf("%v: %d tests and %d decisions", args, len(r.Tests), len(r.Decisions))
	}
	if code != exitYes || !r.Passed {
		t.Errorf("%v: exit code %d\n%s%s", args, code, stdout, stderr)
	}
}
