package live_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
)

// Whatever a network that replays, a disk that goes back, a process that
// crashes and a clock that is up to 30 seconds off do: if the age of what is
// held is said to be A, nothing newer was released before A ago, but for those
// 30 seconds. And when the newest release and beacon have come, it is known.
func TestAnAgeIsNeverLessThanTheTruth(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{NoGuardrail: true})
	trust := d.Trust()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			now := testkit.Created
			skew := time.Duration(random.Int64N(int64(2*maxSkew))) - maxSkew
			dir, backup := t.TempDir(), t.TempDir()
			var s *live.Live
			open := func() {
				var err error
				s, err = live.New(t.Context(), live.Config{Trust: trust, Dir: dir, Now: func() time.Time { return now.Add(skew) }})
				if err != nil {
					t.Fatal(err)
				}
			}
			open()
			// Releases of shop.cart retire it, so that there is nothing to compile.
			type released struct {
				testkit.Release
				at time.Time
			}
			var releases []released
			var beacons [][]byte
			release := func() {
				var previous *bundles.Signed
				if n := len(releases); n > 0 {
					previous = releases[n-1].Signed
				}
				releases = append(releases, released{d.Release("cart", "shop.cart", previous, nil), now})
			}
			issue := func() {
				beacons = append(beacons, d.Beacon("beat", now, releases[len(releases)-1].Version()))
			}
			offer := func(i int) { _ = s.Offer(t.Context(), releases[i].Note(), packed(nil)) }
			release()
			issue()
			for step := range 150 {
				now = now.Add(time.Duration(random.Int64N(int64(10 * time.Second))))
				what := random.IntN(12)
				switch what {
				case 0:
					release()
				case 1, 2:
					issue()
				case 3, 4: // the network brings the newest
					offer(len(releases) - 1)
				case 5, 6:
					_ = s.Prove(beacons[len(beacons)-1])
				case 7: // or replays
					offer(random.IntN(len(releases)))
				case 8:
					_ = s.Prove(beacons[random.IntN(len(beacons))])
				case 9:
					if random.IntN(2) == 0 {
						s.Close()
					}
					open()
				case 10:
					replace(t, backup, dir)
				case 11:
					replace(t, dir, backup)
					open()
				}
				for _, status := range s.Status() {
					if status.Version.Revision == 0 || status.Age == live.Forever {
						continue
					}
					for _, r := range releases[status.Version.Revision:] {
						if missed := now.Sub(r.at); missed > status.Age+maxSkew {
							t.Fatalf("step %d (%d): revision %d is said to have been the newest %v ago, but revision %d came %v ago", step, what, status.Version.Revision, status.Age, r.Release.Version().Revision, missed)
						}
					}
				}
			}
			offer(len(releases) - 1)
			issue()
			if err := s.Prove(beacons[len(beacons)-1]); err != nil {
				t.Fatal(err)
			}
			if status := s.Status(); len(status) != 1 || (status[0].Age-max(0, skew)).Abs() > time.Millisecond {
				t.Errorf("in the end: %+v", status)
			}
		})
	}
}

// maxSkew is what a clock may be off.
const maxSkew = 30 * time.Second

// replace makes a directory what another one is.
func replace(t *testing.T, dir, by string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(by)); err != nil {
		t.Fatal(err)
	}
}
