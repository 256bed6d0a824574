package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
)

// The PDPs are this program again.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == domain.PDPArg {
		if err := domain.ServePDP(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(figures.ExitError)
		}
		os.Exit(figures.ExitOK)
	}
	os.Exit(m.Run())
}

func quietly(string, int, int) {}

func TestTheCommandSaysWhatItMeasures(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := command(all(quietly)).Run(t.Context(), []string{"-help"}, &stdout, &stderr); code != figures.ExitOK {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"go run ./internal/bench/clients -json -only zipf", "one of hitParallel, hitParallel_embedded"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("no %q in\n%s", want, &stderr)
		}
	}
}

// Not how fast anything is, but that it measures what it says, and leaves nothing
// behind.
func TestAShortRunMeasuresClients(t *testing.T) {
	for name, measure := range map[string]func(context.Context) (says string, ok bool, err error){
		"hitParallel": func(ctx context.Context) (string, bool, error) {
			p, err := hitParallel(ctx, quietly, 1, 20*time.Millisecond)
			return fmt.Sprintf("%+v", p), p.embedded > 0 && p.remote > 0 && p.machine > 0, err
		},
		"zipf": func(ctx context.Context) (string, bool, error) {
			g, err := zipf(ctx, quietly, size{warm: 5000, rounds: 1, phase: 100 * time.Millisecond, off: 60})
			return fmt.Sprintf("%+v", g), g.bare > 0 && g.cached > 0 && g.hits > 35 && g.hits < 99, err
		},
		"head": func(ctx context.Context) (string, bool, error) {
			all, err := head(ctx, quietly, 2)
			return fmt.Sprint(all), len(all) == 2 && all.Quantile(0) > 0 && all.Quantile(1) < tooLate.Seconds()*1000, err
		},
		"killed": func(ctx context.Context) (string, bool, error) {
			f, err := killed(ctx, quietly, 50, 300*time.Millisecond)
			return fmt.Sprintf("%+v", f), f.alone.calls > 50 && f.other.calls > 50 && f.alone.share() > 90 && f.other.share() > 50 && f.other.longest > 0, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			if says, ok, err := measure(t.Context()); err != nil || !ok {
				t.Fatalf("%s, %v", says, err)
			}
			if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestCallersWithNothingRememberedAndNoOtherPDPAreNotAnswered(t *testing.T) {
	var f fate
	err := domain.Temporary(t.Context(), func(d *domain.Domain, _ string) error {
		if err := pushBoth(t.Context(), d, cheap); err != nil {
			return err
		}
		node, err := d.StartPDP(t.Context(), "node")
		if err != nil {
			return err
		}
		f, err = killOne(t.Context(), false, []*domain.PDP{node}, 50, 300*time.Millisecond)
		return err
	})
	if err != nil || f.calls == 0 || f.share() > 50 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestHitsThatAreNotAsManyAsWantedAreNotMeasured(t *testing.T) {
	_, err := zipf(t.Context(), quietly, size{warm: 1000, rounds: 1, phase: 20 * time.Millisecond, off: 0.5})
	if err == nil || !strings.Contains(err.Error(), "change the skew") {
		t.Errorf("got %v", err)
	}
}

func TestARunThatIsInterruptedEnds(t *testing.T) {
	for name, measure := range map[string]func(context.Context, figures.Progress) error{
		"hitParallel": func(ctx context.Context, p figures.Progress) error {
			_, err := hitParallel(ctx, p, 1000, 10*time.Millisecond)
			return err
		},
		"zipf": func(ctx context.Context, p figures.Progress) error {
			_, err := zipf(ctx, p, size{warm: 100, rounds: 1000, phase: 10 * time.Millisecond, off: 100})
			return err
		},
		"head": func(ctx context.Context, p figures.Progress) error {
			_, err := head(ctx, p, 1000)
			return err
		},
		"killed": func(ctx context.Context, p figures.Progress) error {
			_, err := killed(ctx, p, 10, 10*time.Millisecond)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			if err := measure(ctx, func(string, int, int) { cancel() }); err == nil {
				t.Error("it went on")
			}
		})
	}
}
