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
	"time"
)

func value(v float64) func(context.Context) (float64, error) {
	return func(context.Context) (float64, error) { return v, nil }
}

// measured is a table of figures as a run finds it.
func measured() []figure {
	return []figure{
		{"push16k", "ms", 25, "the median", value(25)},
		{"push16k_p99", "ms", 100, "the worst", value(100.0004)},
		{"push16kb", "ms", 25, "another", value(1)},
		{"slow", "ms", 25, "is too slow", value(25.001)},
		{"broken", "ms", 25, "cannot be measured", func(context.Context) (float64, error) { return 1, errors.New("no broker") }},
	}
}

func TestAnswersAndExitCodes(t *testing.T) {
	for _, test := range []struct {
		args   string
		code   int
		stdout []string // in this order; the last one on the last line
		stderr string
	}{
		{"-only push16k -json", exitOK, []string{"processors", "push16k ", "yes", "push16k_p99", "yes",
			`{"push16k":{"value":25,"unit":"ms","bar":25,"ok":true},"push16k_p99":{"value":100,"unit":"ms","bar":100,"ok":true}}`}, ""},
		{"-only push16k_p99 -json", exitOK, []string{`{"push16k_p99":{"value":100,"unit":"ms","bar":100,"ok":true}}`}, ""},
		{"-only slow", exitNotOK, []string{"slow", "25.0 ms", "NO", "is too slow"}, ""},
		{"-only slow -json", exitNotOK, []string{`{"slow":{"value":25.001,"unit":"ms","bar":25,"ok":false}}`}, ""},
		{"-only broken", exitError, nil, "broken could not be measured: no broker"},
		{"-json", exitError, nil, "broken could not be measured: no broker"},
		{"-only nothing", exitError, nil, `no figure "nothing"; choose one of push16k, push16k_p99`},
		{"push16k", exitError, nil, `"push16k"`},
		{"-fast", exitError, nil, "-fast"},
		{"-help", exitOK, nil, "go run ./internal/bench/distribution -json -only push16k"},
		{"-only push16k -h", exitOK, nil, "measure NAME alone"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(test.args), &stdout, &stderr, measured())
		if code != test.code || !strings.Contains(stderr.String(), test.stderr) || test.stderr == "" && stderr.Len() > 0 {
			t.Errorf("%s: exit code %d, want %d; stderr %q", test.args, code, test.code, &stderr)
		}
		rest := stdout.String()
		for _, want := range test.stdout {
			var found bool
			if _, rest, found = strings.Cut(rest, want); !found {
				t.Errorf("%s: no %q in its place in\n%s", test.args, want, &stdout)
				break
			}
		}
		if last, _ := strings.CutSuffix(rest, "\n"); len(test.stdout) > 0 && strings.Contains(last, "\n") {
			t.Errorf("%s: more follows: %q", test.args, last)
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

func TestQuantiles(t *testing.T) {
	var all samples
	for i := 100; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Millisecond)
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := all.quantile(q); got != want {
			t.Errorf("%g: got %g, want %g", q, got, want)
		}
	}
	if got := (samples{3 * time.Millisecond}).quantile(0.99); got != 3 {
		t.Errorf("of one: %g", got)
	}
}

func TestFiguresOfOneMeasurementShareIt(t *testing.T) {
	times := 0
	m := shared[samples]{take: func(context.Context) (samples, error) {
		times++
		return nil, errors.New("failed")
	}}
	for range 2 {
		if _, err := m.value(func(s samples) float64 { return s.quantile(0.5) })(t.Context()); err == nil {
			t.Error("a failed measurement has a value")
		}
	}
	if times != 1 {
		t.Errorf("measured %d times", times)
	}
}
