package live

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// Snapshot is one immutable state of the namespaces that a process decides
// with. It is safe for concurrent use.
type Snapshot struct {
	paths map[policy.Namespace]*Path
	// trust is the version of the trust file that it was made by; 0 for none.
	trust uint64
	// missing explains a namespace that has no path.
	missing func(policy.Namespace) error
	// superseded is closed when another takes its place; nil if none ever does.
	superseded chan struct{}
}

// Superseded is closed once another snapshot has taken the place of s in its
// source. It is nil for one that is its own source: that stays.
func (s *Snapshot) Superseded() <-chan struct{} { return s.superseded }

// Trust returns the version of the trust file that was in force when s was made, 0 if
// folders decide.
func (s *Snapshot) Trust() uint64 { return s.trust }

// newest is the snapshot that a source hands out.
type newest struct{ p atomic.Pointer[Snapshot] }

// Snapshot returns what decides now. It never blocks.
func (n *newest) Snapshot() *Snapshot { return n.p.Load() }

// replace puts another in its place.
func (n *newest) replace(next *Snapshot) {
	next.superseded = make(chan struct{})
	if last := n.p.Swap(next); last != nil {
		close(last.superseded)
	}
}

// Source hands out the newest snapshot. It never blocks and never returns nil.
type Source interface {
	Snapshot() *Snapshot
}

// Path returns what decides requests in a namespace. The error says why nothing
// does: of kind policy.NotFound if it has no release or was retired,
// policy.Unavailable if it, or a guardrail above it, is not loaded.
func (s *Snapshot) Path(n policy.Namespace) (*Path, error) {
	p, ok := s.paths[n]
	if !ok {
		return nil, s.missing(n)
	}
	if p.fault != nil {
		return nil, p.fault
	}
	return p, nil
}

// Versions returns the versions of all namespaces that decide, sorted by
// namespace.
func (s *Snapshot) Versions() []policy.Version {
	var all []policy.Version
	for _, p := range s.paths {
		if p.fault == nil {
			all = append(all, p.versions[len(p.versions)-1])
		}
	}
	slices.SortFunc(all, func(a, b policy.Version) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return all
}

// unit is one namespace with its policy, nil if it is retired.
type unit struct {
	version policy.Version
	program *rego.Program
	limit   *limit // nil if it does not become stale
}

// newSnapshot works out the path of every unit that decides by itself, and not
// only as a guardrail. guardrails returns the ancestors of a namespace that bind
// it, the outermost first.
func newSnapshot(trust uint64, units map[policy.Namespace]unit, decides func(policy.Namespace) bool, guardrails func(policy.Namespace) []policy.Namespace, missing func(policy.Namespace) error) *Snapshot {
	s := &Snapshot{paths: make(map[policy.Namespace]*Path, len(units)), trust: trust, missing: missing}
	for n, u := range units {
		if !decides(n) {
			continue
		}
		s.paths[n] = newPath(n, u, units, guardrails(n))
		s.paths[n].trust = trust
	}
	return s
}

func newPath(n policy.Namespace, own unit, units map[policy.Namespace]unit, guardrails []policy.Namespace) *Path {
	p := &Path{namespace: n, own: own.program}
	if own.program == nil {
		p.versions = []policy.Version{own.version}
		p.fault = &policy.Error{
			Kind: policy.NotFound, Versions: p.versions,
			Message: fmt.Sprintf("namespace %s was retired by its release %d; push to it to bring it back", n, own.version.Revision),
		}
		return p
	}
	var reads []policy.ReadPath
	for _, above := range guardrails {
		g, ok := units[above]
		if !ok || g.program == nil {
			p.fault = policy.Errorf(policy.Unavailable, "namespace %s cannot be decided without its guardrail %s, which is not loaded; push the guardrail, or take it out of the trust file", n, above)
			return p
		}
		p.guardrails = append(p.guardrails, guardrail{above, g.program})
		p.add(g)
		reads = append(reads, g.program.Reads()...)
	}
	p.add(own)
	p.versions = slices.Clip(p.versions)
	p.layout = decisionkey.New(rego.Engine(), p.versions, append(reads, own.program.Reads()...))
	return p
}

// add adds what every policy on a path counts for.
func (p *Path) add(u unit) {
	p.versions = append(p.versions, u.version)
	if u.limit != nil {
		p.limits = append(p.limits, *u.limit)
	}
}

// unknown is the error for a namespace that nobody has released.
func unknown(n policy.Namespace) error {
	return policy.Errorf(policy.NotFound, "namespace %s has no release; push one: microwall push DIR --namespace %s", n, n)
}
