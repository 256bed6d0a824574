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
	found, err := t.verify(signed, text, r)
	if err != nil {
		return nil, err
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

// TrustProposal is a signed trust file that may come to take the place of one,
// and that may still wait for signatures. Nothing believes it before [Trust.Next]
// does. Only [Trust.ProposeNext] makes one. It is immutable.
type TrustProposal struct {
	next          *Trust
	file          []byte
	before, after tally // of the roots of the one before, and of its own
}

// ProposeNext verifies a signed trust file like [Trust.Next], but for the number
// of signatures: one by a root of either file is enough.
func (t *Trust) ProposeNext(signed []byte) (*TrustProposal, error) {
	text, file, err := readTrustNote(signed)
	if err != nil {
		return nil, err
	}
	if len(t.roots.names) == 0 {
		return nil, noRoots("the one before")
	}
	p := &TrustProposal{file: []byte(file)}
	if p.next, err = t.parseNext(file); err != nil {
		return nil, err
	}
	if p.before, err = t.countRoots(signed, text, "the one before", false); err != nil {
		return nil, err
	}
	if p.after, err = p.next.countRoots(signed, text, "it", false); err != nil {
		return nil, err
	}
	if len(p.Signers()) == 0 {
		return nil, policy.Errorf(policy.Denied, "none of the roots has signed the trust file, neither those of version %d nor its own; sign it with one: microwall trust sign", t.version)
	}
	return p, nil
}

// Trust returns the trust file that was signed.
func (p *TrustProposal) Trust() *Trust { return p.next }

// File returns the bytes of the trust file that was signed. They must not be
// changed.
func (p *TrustProposal) File() []byte { return p.file }

// Signers returns the names of the roots, of either file, that have signed,
// sorted.
func (p *TrustProposal) Signers() []string { return union(p.before.signed, p.after.signed) }

// Able returns the names of the roots whose signatures would help, sorted; none
// if all is there.
func (p *TrustProposal) Able() []string {
	var able []string
	for _, t := range []tally{p.before, p.after} {
		if t.missing > 0 {
			able = append(able, t.able...)
		}
	}
	return union(able, nil)
}

// Whole reports whether all signatures are there, so that [Trust.Next] takes it.
func (p *TrustProposal) Whole() bool { return p.before.missing == 0 && p.after.missing == 0 }

// Count returns how many signatures count, those of roots of both files twice.
func (p *TrustProposal) Count() int { return len(p.before.signed) + len(p.after.signed) }

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
