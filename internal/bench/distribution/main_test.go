package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/microwall/microwall/internal/bench/figures"
)

func TestTheCommandSaysWhatItMeasures(t *testing.T) {
	var stdout, stderr bytes.Buffer
	c := command(all(func(string, int, int) {}))
	if code := c.Run(t.Context(), []string{"-help"}, &stdout, &stderr); code != figures.ExitOK {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"go run ./internal/bench/distribution -json -only push16k", "one of push16k, push16k_p99, clients1000"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("no %q in\n%s", want, &stderr)
		}
	}
}

// The figures of a real, short run: not how fast it is, but that it measures
// what it says.
func TestAShortRunMeasuresRealPushes(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var done int
	all, err := push16k(t.Context(), func(_ string, i, _ int) { done = i }, 2)
	if err != nil || len(all) != 2 || done != warmUp+2 {
		t.Fatalf("got %v after %d pushes, %v", all, done, err)
	}
	for _, took := range all {
		if took <= 0 || took > tooLate {
			t.Errorf("a push took %s", took)
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestARunThatIsInterruptedEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := push16k(ctx, func(string, int, int) { cancel() }, pushes)
	if !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "cancel") {
		t.Errorf("got %v", err)
	}
}

func TestEveryPushHasOtherDataOfTheSizeThatIsMeasured(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]bool{}
	for range 3 {
		if err := writeData(dir, "spiffe://boutique.example/ns/default/sa/one"); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, "data.json"))
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 16<<10 || len(raw) < 16<<10-100 || !json.Valid(raw) || seen[string(raw)] {
			t.Errorf("%d bytes, seen before: %v", len(raw), seen[string(raw)])
		}
		seen[string(raw)] = true
	}
}
