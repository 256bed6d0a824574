package decisionkey

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/microwall/microwall/internal/mutant"
	"github.com/microwall/microwall/policy"
)

// maxPaths bounds how many paths a layout reads. Those of a policy with more are
// cut, the longest first: a shorter path reads more, so the key only tells more
// apart.
const maxPaths = 256

// Layout is how the keys of the decisions of one path are built. It is immutable
// and safe for concurrent use.
type Layout struct {
	engine   string
	versions []policy.Version
	reads    []policy.ReadPath
	prefix   []byte
	root     *node
}

// node is a step that paths go through.
type node struct {
	whole bool // what is here is read with all below it
	steps []step
}

type step struct {
	policy.Step
	to *node
}

// New returns the layout for decisions by an engine and versions, guardrails
// from the outermost in and then the namespace, whose policies read these paths.
// It keeps versions, which must not be changed.
func New(engine string, versions []policy.Version, reads []policy.ReadPath) *Layout {
	l := &Layout{engine: engine, versions: versions, reads: bounded(reads), root: &node{}}
	if mutant.PathLeftOut && len(l.reads) > 1 {
		l.reads = l.reads[1:]
	}
	l.prefix = appendText(nil, engine)
	l.prefix = binary.AppendUvarint(l.prefix, uint64(len(versions)))
	for _, v := range versions {
		l.prefix = appendText(l.prefix, string(v.Namespace))
		l.prefix = append(l.prefix, v.Digest[:]...)
	}
	sum := sha256.New()
	for _, p := range l.reads {
		l.root.add(p)
		fmt.Fprintf(sum, "%q\n", p.String())
	}
	// Of releases that read other paths, whoever says so, keys are other keys.
	l.prefix = sum.Sum(l.prefix)
	return l
}

// Engine returns the name of the engine.
func (l *Layout) Engine() string { return l.engine }

// Versions returns the versions that decide. They must not be changed.
func (l *Layout) Versions() []policy.Version { return l.versions }

// Reads returns the paths that keys are made of, sorted, none below another. They
// must not be changed.
func (l *Layout) Reads() []policy.ReadPath { return l.reads }

// ReadsTime reports whether the time is part of keys.
func (l *Layout) ReadsTime() bool {
	return l.root.whole || slices.ContainsFunc(l.root.steps, func(s step) bool { return s.Name == "time" })
}

func (n *node) add(p policy.ReadPath) {
	for _, s := range p {
		i := slices.IndexFunc(n.steps, func(t step) bool { return t.Step == s })
		if i < 0 {
			i = len(n.steps)
			n.steps = append(n.steps, step{s, &node{}})
		}
		n = n.steps[i].to
	}
	n.whole = true
}

// bounded returns the paths sorted, none below another, and at most maxPaths.
func bounded(reads []policy.ReadPath) []policy.ReadPath {
	paths := slices.Clone(reads)
	for {
		slices.SortFunc(paths, policy.ReadPath.Compare)
		kept, longest := paths[:0], 0
		for _, p := range paths {
			// A path stands right before those below it, or before others below it.
			if n := len(kept); n == 0 || !below(p, kept[n-1]) {
				kept = append(kept, p)
				longest = max(longest, len(p))
			}
		}
		if paths = kept; len(paths) <= maxPaths {
			return paths
		}
		for i, p := range paths {
			if len(p) == longest {
				paths[i] = p[:longest-1]
			}
		}
	}
}

func below(p, above policy.ReadPath) bool {
	return len(p) >= len(above) && slices.Equal(p[:len(above)], above)
}

// Equal reports whether two layouts are of the same versions, and make the same
// key of each request.
func (l *Layout) Equal(as *Layout) bool {
	return slices.Equal(l.versions, as.versions) && bytes.Equal(l.prefix, as.prefix)
}
