package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/microwall/microwall/examples/boutique"
)

// refusedBefore are decisions that want a denial of what policy.Limits refuses
// before any policy is asked: guardrails/decisions.yaml has one, of a call path
// that is a string. Until it wants that error, this is how it must fail, and the
// only way in which any may.
var refusedBefore = map[string]string{
	"a call path that is no list": "- allowed: false\n+ error: context.call_path is not an array; it lists the SPIFFE IDs from the edge on",
}

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
	wantCode := exitYes
	for _, c := range append(r.Tests, r.Decisions...) {
		switch {
		case c.Status != statusFailed:
		case filepath.Base(args[1]) == "guardrails" && c.Failure == refusedBefore[c.Name]:
			wantCode = exitNo
		default:
			t.Errorf("%v: %s:%d: %s\n%s", args, c.File, c.Line, c.Name, c.Failure)
		}
	}
	if code != wantCode || r.Passed != (code == exitYes) || len(r.Problems) > 0 {
		t.Errorf("%v: exit code %d, passed %v, problems %v\n%s", args, code, r.Passed, r.Problems, stderr)
	}
}
