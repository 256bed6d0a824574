package main

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/bench/figures"
)

// The processes of a fleet are this program again.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == fleetArg {
		if err := runCrew(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(figures.ExitError)
		}
		os.Exit(figures.ExitOK)
	}
	os.Exit(m.Run())
}

// As with the pushes: not how fast it is, but that it measures what it says.
func TestAShortRunMeasuresAFleet(t *testing.T) {
	quietly := func(string, int, int) {}
	for name, measure := range map[string]func() (float64, error){
		"clients":     func() (float64, error) { return clients1000(t.Context(), quietly, 6) },
		"subscribers": func() (float64, error) { return subscribers5000(t.Context(), quietly, 6) },
		"restart":     func() (float64, error) { return restart(t.Context(), quietly, 6) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			took, err := measure()
			if err != nil || took <= 0 || took > tooLate.Seconds()*1000 {
				t.Fatalf("took %g ms, %v", took, err)
			}
			if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestAClientThatIsIdleTakesMemory(t *testing.T) {
	kb, err := idle(t.Context(), crew{}, 50)
	if err != nil || kb <= 0 || kb > 1000 {
		t.Fatalf("%g KB for each, %v", kb, err)
	}
}

func TestAShortRunDecidesBesideActivations(t *testing.T) {
	l, err := activate10m(t.Context(), func(string, int, int) {}, 1<<20, 1, 50*time.Millisecond)
	if err != nil || l.quiet <= 0 || l.activating <= 0 || l.spinning <= 0 {
		t.Fatalf("%+v, %v", l, err)
	}
}

func TestAShortRunStartsFromDisk(t *testing.T) {
	b, err := startFromDisk(t.Context(), func(string, int, int) {}, 3)
	if err != nil || len(b.start) != 3 || len(b.compile) != 3 || b.compile.Quantile(0) <= 0 {
		t.Fatalf("%+v, %v", b, err)
	}
}

func TestAFleetThatIsInterruptedEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := restart(ctx, func(string, int, int) { cancel() }, 4)
	if err == nil {
		t.Error("it went on")
	}
}
