package wire

import (
	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// maxAsked is how many tokens, and how many versions, one request may name. A path
// has eight namespaces at most.
const maxAsked = 64

// Freshness reads a freshness; no message minimises latency. What is no token is
// refused here, before anybody waits for it.
func Freshness(m *microwallv1.Freshness) (policy.Freshness, error) {
	var f policy.Freshness
	if m == nil {
		return f, nil
	}
	if n := max(len(m.GetAtLeast()), len(m.GetSeen())); n > maxAsked {
		return f, policy.Errorf(policy.Exhausted, "freshness names %d releases, the limit is %d; of each namespace the newest is enough", n, maxAsked)
	}
	tokens := make([]policy.Token, len(m.GetAtLeast()))
	for i, t := range m.GetAtLeast() {
		tokens[i] = policy.Token(t)
		if _, err := tokens[i].Version(); err != nil {
			return f, policy.Errorf(policy.BadRequest, "freshness.at_least[%d]: %w", i, err)
		}
	}
	seen, err := Versions(m.GetSeen())
	if err != nil {
		return f, policy.Errorf(policy.BadRequest, "freshness.seen: %w", err)
	}
	if len(tokens) > 0 {
		f = policy.AtLeast(tokens...)
	}
	if m.GetHead() {
		f = f.And(policy.Head)
	}
	if len(seen) > 0 {
		f = f.NotBefore(seen...)
	}
	return f, nil
}

// decodeFreshness reads an encoded one, and reports whether it is one.
func decodeFreshness(raw string) (policy.Freshness, bool) {
	var m microwallv1.Freshness
	if err := proto.Unmarshal([]byte(raw), &m); err != nil {
		return policy.Freshness{}, false
	}
	f, err := Freshness(&m)
	return f, err == nil
}

// FreshnessProto writes a freshness, nil for the one that minimises latency.
func FreshnessProto(f policy.Freshness) *microwallv1.Freshness {
	if f.IsZero() {
		return nil
	}
	m := &microwallv1.Freshness{Head: f.IsHead(), Seen: VersionsProto(f.Seen())}
	for _, t := range f.Tokens() {
		m.AtLeast = append(m.AtLeast, string(t))
	}
	return m
}
