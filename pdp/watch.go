package pdp

import (
	"context"
	"slices"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/policy"
)

// beaconLook is how often a watch looks for beacons. They come every few
// seconds, and whoever is told a second later believes a second less.
const beaconLook = time.Second

// State is what decides requests in one namespace.
type State struct {
	Namespace policy.Namespace
	// Path of what decides: guardrails from the outermost in, then the
	// namespace. Beside an error, what it comes from: the release that retired the
	// namespace.
	Path []live.Proof
	// Trust is the version of the trust file in force, 0 if folders decide.
	Trust uint64
	// Layout says how the keys of its decisions are built; nil beside an error.
	Layout *decisionkey.Layout
	// Err is why nothing does.
	Err error
}

func (s State) same(as State) bool {
	return slices.Equal(s.Path, as.Path) && s.Trust == as.Trust && (s.Layout == nil) == (as.Layout == nil) && (s.Err == nil) == (as.Err == nil) && (s.Err == nil || s.Err.Error() == as.Err.Error())
}

// Watch tells what decides in each of some namespaces: at once, and again when
// that has changed, until ctx ends or tell fails, and returns that error. While
// tell runs, changes wait, and of several only the last is told. More namespaces
// than may be watched at once are policy.Exhausted.
func (s *Service) Watch(ctx context.Context, namespaces []policy.Namespace, tell func(State) error) error {
	some := int64(len(namespaces))
	defer s.watches.Add(-some)
	if s.watches.Add(some) > int64(s.config.Watches) {
		return policy.Errorf(policy.Exhausted, "%d namespaces may be watched here at once, which leaves no room for %d more; watch another PDP", s.config.Watches, some)
	}
	beacons := time.NewTicker(beaconLook)
	defer beacons.Stop()
	told := make(map[policy.Namespace]State, len(namespaces))
	for {
		snapshot := s.config.Source.Snapshot()
		for _, n := range namespaces {
			now := State{Namespace: n, Trust: snapshot.Trust()}
			if path, err := snapshot.Path(n); err != nil {
				now.Err = err
				for _, v := range policy.VersionsOf(err) {
					now.Path = append(now.Path, live.Proof{Version: v})
				}
			} else {
				now.Path, now.Layout = path.Proofs(), path.Layout()
			}
			if last, ok := told[n]; ok && now.same(last) {
				continue
			}
			if err := tell(now); err != nil {
				return err
			}
			told[n] = now
		}
		select {
		case <-snapshot.Superseded():
		case <-beacons.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
