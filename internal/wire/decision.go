package wire

import (
	"unicode/utf8"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// DecisionProto writes a decision, without its versions. An obligation or a
// reason that protobuf cannot carry as it is, is an error of kind
// policy.Failed.
func DecisionProto(d *policy.Decision) (*microwallv1.Decision, error) {
	obligations, err := PropertiesProto(d.Obligations)
	if err != nil {
		return nil, policy.Errorf(policy.Failed, "%w; mend the policy", under("obligations", err))
	}
	m := &microwallv1.Decision{Allowed: d.Allowed, Obligations: obligations, StaleDenied: d.StaleDenied}
	for _, r := range d.Reasons {
		// Left to protobuf, this would spoil a whole batch.
		if !utf8.ValidString(r.Text) {
			return nil, policy.Errorf(policy.Failed, "namespace %s: reason %.100q is not valid UTF-8; mend the policy", r.Namespace, r.Text)
		}
		m.Reasons = append(m.Reasons, &microwallv1.Reason{Namespace: string(r.Namespace), Text: r.Text})
	}
	for _, n := range d.Stale {
		m.Stale = append(m.Stale, string(n))
	}
	return m, nil
}

// Decision reads a decision and the versions that go with it. No message is a
// decision that denies.
func Decision(m *microwallv1.Decision, versions []policy.Version) (policy.Decision, error) {
	obligations, err := Properties(m.GetObligations())
	if err != nil {
		return policy.Decision{}, under("obligations", err)
	}
	d := policy.Decision{Allowed: m.GetAllowed(), Obligations: obligations, Versions: versions}
	for i, r := range m.GetReasons() {
		n, err := policy.ParseNamespace(r.GetNamespace())
		if err != nil {
			return policy.Decision{}, policy.Errorf(policy.BadRequest, "reasons[%d]: %w", i, err)
		}
		d.Reasons = append(d.Reasons, policy.Reason{Namespace: n, Text: r.GetText()})
	}
	d.Stale, err = stale(m.GetStale(), versions)
	if err != nil {
		return policy.Decision{}, err
	}
	d.StaleDenied = m.GetStaleDenied()
	if d.StaleDenied && (d.Allowed || len(d.Stale) == 0) {
		return policy.Decision{}, policy.Errorf(policy.BadRequest, "stale_denied: it is set, and the decision allows, or nothing is stale")
	}
	return d, nil
}

// EvaluationProto writes how a decision came about; nil if that is not known.
func EvaluationProto(e policy.Evaluation) *microwallv1.Evaluation {
	if e == (policy.Evaluation{}) {
		return nil
	}
	return &microwallv1.Evaluation{InputTime: e.Time, Engine: e.Engine, Trust: e.Trust}
}

// Evaluation reads how a decision came about; the zero one is not known.
func Evaluation(m *microwallv1.Evaluation) policy.Evaluation {
	return policy.Evaluation{Time: m.GetInputTime(), Engine: m.GetEngine(), Trust: m.GetTrust()}
}

// stale reads which of versions are stale.
func stale(names []string, versions []policy.Version) ([]policy.Namespace, error) {
	if len(names) == 0 {
		return nil, nil
	}
	all := make([]policy.Namespace, 0, len(versions))
	for _, v := range versions {
		if len(all) < len(names) && names[len(all)] == string(v.Namespace) {
			all = append(all, v.Namespace)
		}
	}
	if len(all) < len(names) {
		return nil, policy.Errorf(policy.BadRequest, "stale[%d]: %.200q is none of the namespaces that decided, or out of their order", len(all), names[len(all)])
	}
	return all, nil
}

// VersionProto writes a version.
func VersionProto(v policy.Version) *microwallv1.Version {
	return &microwallv1.Version{Namespace: string(v.Namespace), Epoch: v.Epoch, Revision: v.Revision, Digest: v.Digest.String()}
}

// VersionsProto writes versions.
func VersionsProto(vs []policy.Version) []*microwallv1.Version {
	ms := make([]*microwallv1.Version, len(vs))
	for i, v := range vs {
		ms[i] = VersionProto(v)
	}
	return ms
}

// Version reads a version.
func Version(m *microwallv1.Version) (policy.Version, error) {
	n, err := policy.ParseNamespace(m.GetNamespace())
	if err != nil {
		return policy.Version{}, err
	}
	digest, err := policy.ParseDigest(m.GetDigest())
	if err != nil {
		return policy.Version{}, err
	}
	return policy.Version{Namespace: n, Epoch: m.GetEpoch(), Revision: m.GetRevision(), Digest: digest}, nil
}

// Versions reads versions.
func Versions(ms []*microwallv1.Version) ([]policy.Version, error) {
	vs := make([]policy.Version, len(ms))
	for i, m := range ms {
		var err error
		if vs[i], err = Version(m); err != nil {
			return nil, err
		}
	}
	return vs, nil
}
