package remote

import (
	"errors"
	"fmt"
	"slices"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// readAnswer reads the answer to a request in a namespace.
func readAnswer(n policy.Namespace, m *microwallv1.AuthorizeResponse) (policy.Decision, error) {
	versions, err := readVersions(m.GetVersions())
	if err != nil {
		return policy.Decision{}, err
	}
	return versions.decision(n, m.GetDecision())
}

// versions are those that an answer names, and the paths that were asked for
// so far.
type versions struct {
	all   map[policy.Namespace]policy.Version
	paths map[policy.Namespace][]policy.Version
}

func readVersions(ms []*microwallv1.Version) (*versions, error) {
	read, err := wire.Versions(ms)
	if err != nil {
		return nil, err
	}
	vs := &versions{all: make(map[policy.Namespace]policy.Version, len(read)), paths: make(map[policy.Namespace][]policy.Version, 1)}
	for _, v := range read {
		if _, ok := vs.all[v.Namespace]; ok {
			return nil, fmt.Errorf("it names two versions of namespace %s", v.Namespace)
		}
		vs.all[v.Namespace] = v
	}
	return vs, nil
}

// decision reads a decision about a namespace, with the versions along its
// path.
func (vs *versions) decision(n policy.Namespace, m *microwallv1.Decision) (policy.Decision, error) {
	if m == nil {
		return policy.Decision{}, errors.New("it has no decision")
	}
	path, err := vs.path(n)
	if err != nil {
		return policy.Decision{}, err
	}
	return wire.Decision(m, path)
}

// path returns the versions of a namespace's ancestors, as far as there are
// any, and then its own, without which nobody has decided in it.
func (vs *versions) path(n policy.Namespace) ([]policy.Version, error) {
	if path, ok := vs.paths[n]; ok {
		return path, nil
	}
	own, ok := vs.all[n]
	if !ok {
		return nil, fmt.Errorf("it names no version of namespace %s, which was asked for", n)
	}
	var path []policy.Version
	for _, above := range n.Ancestors() {
		if v, ok := vs.all[above]; ok {
			path = append(path, v)
		}
	}
	path = append(path, own)
	path = slices.Clip(path) // shared by the decisions in the namespace
	vs.paths[n] = path
	return path, nil
}
