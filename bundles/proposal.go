package bundles

import (
	"io"
	"slices"

	"github.com/microwall/microwall/policy"
)

// Proposal is a release that at least one of those who may sign it has signed,
// and that may still wait for others. It is for them to look at; nothing decides
// by it before [Trust.Open] opens it. Only [Trust.Propose] makes one. It is
// immutable.
type Proposal struct {
	release Release
	note    []byte
	digest  policy.Digest
	tally   tally
}

// Propose verifies a signed release like [Trust.Open], but for the number of
// signatures: one is enough.
func (t *Trust) Propose(signed []byte) (*Proposal, error) {
	text, err := readNote(signed, "release", MaxNote)
	if err != nil {
		return nil, err
	}
	r, err := ParseRelease([]byte(text))
	if err != nil {
		return nil, err
	}
	found, reason := t.verify(signed, text, r)
	if reason != "" {
		return nil, &UnverifiedError{Release: r, Reason: reason}
	}
	return &Proposal{release: r, note: slices.Clone(signed), digest: policy.DigestOf([]byte(text)), tally: found}, nil
}

// Release returns what was signed.
func (p *Proposal) Release() Release { return p.release }

// Note returns the bytes that were verified. They must not be changed.
func (p *Proposal) Note() []byte { return p.note }

// Digest returns the SHA-256 sum of the text that was signed, as
// [Signed.Digest] does.
func (p *Proposal) Digest() policy.Digest { return p.digest }

// Signers returns the names of the keys that signed and may, Able those that may
// and have not, one name for each public key. Missing is how many more must; at
// 0 the release opens.
func (p *Proposal) Signers() []string { return slices.Clone(p.tally.signed) }

// Able is explained at [Proposal.Signers].
func (p *Proposal) Able() []string { return slices.Clone(p.tally.able) }

// Missing is explained at [Proposal.Signers].
func (p *Proposal) Missing() int { return p.tally.missing }

// Unpack returns the release's bundle, as [Signed.Unpack] does: what is looked
// at before it is signed is what the release names.
func (p *Proposal) Unpack(packed io.Reader, l Limits) (*Bundle, error) {
	return p.release.unpack(packed, l)
}
