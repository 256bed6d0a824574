package figures_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/bench/figures"
)

func value(v float64) func(context.Context) (float64, error) {
	return func(context.Context) (float64, error) { return v, nil }
}

// measured is a command as a run finds it.
func measured() figures.Command {
	return figures.Command{Name: "measure", Usage: "Usage: go run ./measure -json -only push16k", Figures: []figures.Figure{
		{Name: "push16k", Unit: "ms", Bar: figures.AtMost(25), What: "the median", Measure: value(25)},
		{Name: "push16k_p99", Unit: "ms", Bar: figures.AtMost(100), What: "the worst", Measure: value(100.0004)},
		{Name: "push16kb", Unit: "ms", Bar: figures.AtMost(25), What: "another", Measure: value(1)},
		{Name: "slow", Unit: "ms", Bar: figures.AtMost(25), What: "is too slow", Measure: value(25.001)},
		{Name: "gain", Unit: "x", Bar: figures.AtLeast(10), What: "gains enough", Measure: value(9.9996)},
		{Name: "little", Unit: "x", Bar: figures.AtLeast(10), What: "gains too little", Measure: value(9.999)},
		{Name: "told", Unit: "x", Bar: figures.Bar{}, What: "is only told", Measure: value(1e9)},
		{Name: "broken", Unit: "ms", Bar: figures.AtMost(25), What: "cannot be measured", Measure: func(context.Context) (float64, error) { return 1, errors.New("no broker") }},
		{Name: "nothing", Unit: "ms", Bar: figures.Bar{}, What: "has no value", Measure: value(math.NaN())},
	}}
}

func TestAnswersAndExitCodes(t *testing.T) {
	for _, test := range []struct {
		args   string
		code   int
		stdout []string // in this order; the last one on the last line
		stderr string
	}{
		{"-only push16k -json", figures.ExitOK, []string{"processors", "push16k ", "yes", "push16k_p99", "yes",
			`{"push16k":{"value":25,"unit":"ms","bar":25,"ok":true},"push16k_p99":{"value":100,"unit":"ms","bar":100,"ok":true}}`}, ""},
		{"-only push16k_p99 -json", figures.ExitOK, []string{`{"push16k_p99":{"value":100,"unit":"ms","bar":100,"ok":true}}`}, ""},
		{"-only slow", figures.ExitNotOK, []string{"slow", "25.0 ms", "at most 25 ms", "NO", "is too slow"}, ""},
		{"-only slow -json", figures.ExitNotOK, []string{`{"slow":{"value":25.001,"unit":"ms","bar":25,"ok":false}}`}, ""},
		{"-only gain -json", figures.ExitOK, []string{"10.0 x", "at least 10 x", "yes", `{"gain":{"value":10,"unit":"x","bar":10,"ok":true}}`}, ""},
		{"-only little", figures.ExitNotOK, []string{"10.0 x", "at least 10 x", "NO", "gains too little"}, ""},
		{"-only told -json", figures.ExitOK, []string{"-", "yes", `{"told":{"value":1000000000,"unit":"x","bar":0,"ok":true}}`}, ""},
		{"-only nothing", figures.ExitError, nil, "nothing could not be measured: it came out as NaN"},
		{"-only broken", figures.ExitError, nil, "broken could not be measured: no broker"},
		{"-json", figures.ExitError, nil, "broken could not be measured: no broker"},
		{"-only anything", figures.ExitError, nil, `no figure "anything"; choose one of push16k, push16k_p99`},
		{"push16k", figures.ExitError, nil, `"push16k"`},
		{"-fast", figures.ExitError, nil, "-fast"},
		{"-help", figures.ExitOK, nil, "go run ./measure -json -only push16k"},
		{"-only push16k -h", figures.ExitOK, nil, "measure NAME alone"},
	} {
		var stdout, stderr bytes.Buffer
		code := measured().Run(t.Context(), strings.Fields(test.args), &stdout, &stderr)
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

func TestQuantiles(t *testing.T) {
	var all figures.Samples
	for i := 100; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Millisecond)
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := all.Quantile(q); got != want {
			t.Errorf("%g: got %g, want %g", q, got, want)
		}
	}
	if got := (figures.Samples{3 * time.Millisecond}).Quantile(0.99); got != 3 {
		t.Errorf("of one: %g", got)
	}
}

func TestTheMedianIsOneOfTheValues(t *testing.T) {
	for want, values := range map[float64][]float64{3: {3}, 1: {2, 1}, 2: {3, 1, 2}} {
		if got := figures.Median(values); got != want {
			t.Errorf("%v: got %g, want %g", values, got, want)
		}
	}
	if got := figures.Median(nil); !math.IsNaN(got) {
		t.Errorf("of none: %g", got)
	}
}

func TestFiguresOfOneMeasurementShareIt(t *testing.T) {
	times := 0
	m := figures.Share(func(context.Context) (figures.Samples, error) {
		times++
		return nil, errors.New("failed")
	})
	for range 2 {
		if _, err := m.Value(func(s figures.Samples) float64 { return s.Quantile(0.5) })(t.Context()); err == nil {
			t.Error("a failed measurement has a value")
		}
	}
	if times != 1 {
		t.Errorf("measured %d times", times)
	}
}
