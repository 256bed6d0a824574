package remote

import (
	"errors"
	"fmt"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// readAnswer reads the answer to a request in a namespace.
func readAnswer(n policy.Namespace, m *microwallv1.AuthorizeResponse) (policy.Decision, error) {
	path, err := wire.Versions(m.GetVersions())
	if err != nil {
		return policy.Decision{}, err
	}
	d, err := readDecision(n, m.GetDecision(), path)
	d.Evaluation = wire.Evaluation(m.GetEvaluation())
	return d, err
}

// readResult reads the decision about one item of a batch. Of versions, those
// of the whole batch, it takes the ones that the result names.
func readResult(n policy.Namespace, m *microwallv1.BatchResult, versions []policy.Version) (policy.Decision, error) {
	path, err := readPath(m, versions)
	if err != nil {
		return policy.Decision{}, err
	}
	return readDecision(n, m.GetDecision(), path)
}

// readPath reads which versions a result comes from.
func readPath(m *microwallv1.BatchResult, versions []policy.Version) ([]policy.Version, error) {
	path := make([]policy.Version, len(m.GetPath()))
	for i, place := range m.GetPath() {
		if int64(place) >= int64(len(versions)) {
			return nil, fmt.Errorf("it names version %d of %d", place, len(versions))
		}
		path[i] = versions[place]
	}
	return path, nil
}

func readDecision(n policy.Namespace, m *microwallv1.Decision, path []policy.Version) (policy.Decision, error) {
	if m == nil {
		return policy.Decision{}, errors.New("it has no decision")
	}
	if err := checkPath(n, path); err != nil {
		return policy.Decision{}, err
	}
	return wire.Decision(m, path)
}

// checkPath reports whether versions can be those along the path of a
// namespace: ancestors from the outermost in, each once, and then its own,
// without which nobody has decided in it.
func checkPath(n policy.Namespace, path []policy.Version) error {
	if len(path) == 0 || path[len(path)-1].Namespace != n {
		return fmt.Errorf("it names no version of namespace %s, which was asked for", n)
	}
	for i, v := range path[:len(path)-1] {
		next := path[i+1].Namespace
		if v.Namespace == next || !next.Within(v.Namespace) {
			return fmt.Errorf("it names a version of namespace %s before one of %s, which is not below it", v.Namespace, next)
		}
	}
	return nil
}
