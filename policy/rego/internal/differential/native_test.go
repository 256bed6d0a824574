package differential_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/policy/rego/internal/differential"
)

// The cases in testdata are what the two have disagreed on, as small as it could
// be made; each says above what was wrong.
func TestWhatDifferedOnceIsTheSame(t *testing.T) {
	kept(t, "testdata", func(t *testing.T, all []differential.Difference) {
		for _, d := range all {
			t.Error(d)
		}
	})
}

// The cases in testdata/opa are those in which the reference is wrong. One that
// fails here was mended by a newer OPA, and can go.
func TestWhereTheReferenceIsWrong(t *testing.T) {
	kept(t, filepath.Join("testdata", "opa"), func(t *testing.T, all []differential.Difference) {
		if len(all) == 0 {
			t.Error("the two agree")
		}
	})
}

func kept(t *testing.T, dir string, judge func(*testing.T, []differential.Difference)) {
	names, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			judge(t, compare(t, read(t, string(text)), differential.Native))
		})
	}
}

// To look for an hour, beginning with seeds that nobody has tried:
//
//	go test ./policy/rego/internal/differential -run GeneratedPoliciesDecide -from 1000000 -for 1h -timeout 2h
var (
	from   = flag.Uint64("from", 0, "first seed of the policies that are generated")
	search = flag.Duration("for", 3*time.Second, "how long policies are generated")
)

func TestGeneratedPoliciesDecideAsTheReferenceDoes(t *testing.T) {
	tried, unsafe := 0, 0
	for start := time.Now(); time.Since(start) < *search || tried < 20; tried++ {
		if agree(t, *from+uint64(tried)) == differential.Unsafe {
			unsafe++
		}
	}
	t.Logf("%d policies, the seeds from %d on; %d are unsafe", tried, *from, unsafe)
	if unsafe > 2+tried/200 {
		t.Error("more than the generator makes")
	}
}

// agree reports a case of a seed that the two disagree on, as small as it can be
// made. It returns the last verdict on what they agree on.
func agree(t *testing.T, seed uint64) differential.Verdict {
	faulty := func(c *differential.Case) (differential.Verdict, bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		differences, err := differential.Compare(ctx, c, differential.Native)
		if err != nil {
			return differential.Same, false // the generator makes few that do not compile
		}
		last := differential.Same
		for _, d := range differences {
			if d.Verdict.IsFault() {
				return d.Verdict, true
			}
			last = d.Verdict
		}
		return last, false
	}
	c := differential.Generate(seed)
	verdict, found := faulty(c)
	if !found {
		return verdict
	}
	small := differential.Shrink(c, 3000, func(c *differential.Case) bool {
		v, found := faulty(c)
		return found && v == verdict
	})
	t.Errorf("seed %d: %v\n%s", seed, compare(t, small, differential.Native), small)
	return verdict
}
