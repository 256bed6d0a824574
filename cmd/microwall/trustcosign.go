package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"google.golang.org/grpc"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
)

// cosignTrust shows a signed trust file, and signs it, too.
func (f *cosignFlags) cosignTrust(ctx context.Context, w world, path string, before *bundles.Trust, signed, file []byte) error {
	old, err := os.ReadFile(f.trust)
	if err != nil {
		return policy.Errorf(policy.BadRequest, "cannot read the trust file: %w", err)
	}
	p, err := before.ProposeNext(signed)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	findings := pap.CompareTrust(before, p.Trust())
	if f.ask {
		more, err := f.checkReleases(ctx, before, p.Trust())
		if err != nil {
			return err
		}
		findings = append(findings, more...)
	}
	to := path
	if f.out != "" {
		to = f.out
	}
	seen := trustProposalOf(to, p)
	seen.Findings, seen.Changes = findings, visible(string(diff.Diff("before", old, "after", file)))
	if !f.given(w) {
		seen.File = path
		seen.Note = "nothing was signed: give --key to sign"
		return seen.print(w, f.output)
	}
	if f.digest != "" && f.digest != p.Trust().Digest().String() {
		return policy.Errorf(policy.Denied, "%s holds the trust file %s, not %s; look at it again", path, p.Trust().Digest(), f.digest)
	}
	signer, err := f.signer(w)
	if err != nil {
		return err
	}
	more, err := bundles.Cosign(signed, signer)
	if err != nil {
		return err
	}
	next, err := before.ProposeNext(more)
	if err != nil {
		return err
	}
	if next.Count() == p.Count() {
		return policy.Errorf(policy.Denied, "key %s is no root of version %d, nor of the file itself, or is another key of that name; those who still may: %s", signer.Name(), before.Version(), orDash(strings.Join(p.Able(), ", ")))
	}
	if err := f.write(path, more); err != nil {
		return err
	}
	seen.Signers, seen.Able, seen.Whole = next.Signers(), next.Able(), next.Whole()
	return seen.print(w, f.output)
}

// trustProposal is what is printed of a trust file that waits for signatures.
type trustProposal struct {
	File    string        `json:"file"`
	Version uint64        `json:"version"`
	Epoch   uint64        `json:"epoch"`
	Digest  policy.Digest `json:"digest"`
	Signers []string      `json:"signers"`
	Able    []string      `json:"able"`
	// Whole is true if nobody else must sign.
	Whole    bool          `json:"whole"`
	Findings []pap.Finding `json:"findings,omitempty"`
	Changes  string        `json:"changes,omitempty"`
	Note     string        `json:"note,omitempty"`
}

func trustProposalOf(file string, p *bundles.TrustProposal) trustProposal {
	t := p.Trust()
	return trustProposal{File: file, Version: t.Version(), Epoch: t.Epoch(), Digest: t.Digest(), Signers: p.Signers(), Able: p.Able(), Whole: p.Whole()}
}

func (p trustProposal) print(w world, out output) error {
	if out.format == formatJSON {
		return writeJSON(w.stdout, p)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "trust file: version %d (epoch %d), signed and not pushed\ndigest  %s\nsigned  %s\n", p.Version, p.Epoch, p.Digest, strings.Join(p.Signers, ", "))
	switch {
	case len(p.Able) > 0:
		fmt.Fprintf(&b, "missing signatures of %s: microwall cosign %s\n", strings.Join(p.Able, ", "), p.File)
	case p.Whole:
		fmt.Fprintf(&b, "all have signed: microwall trust push %s\n", p.File)
	}
	if len(p.Findings) > 0 {
		slices.SortStableFunc(p.Findings, func(a, b pap.Finding) int { return strings.Compare(string(a.Namespace), string(b.Namespace)) })
		fmt.Fprintf(&b, "\n%s", findingsText(p.Findings))
	}
	if p.Changes != "" {
		fmt.Fprintf(&b, "\n%s", p.Changes)
	}
	if p.Note != "" {
		fmt.Fprintf(&b, "\n%s\n", p.Note)
	}
	_, err := io.WriteString(w.stdout, b.String())
	return err
}

// newest follows what was pushed of the trust file.
func (f *clientFlags) newest(ctx context.Context, trust *bundles.Trust) (newest *bundles.Trust, err error) {
	err = f.talk(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		newest, _, err = pap.FollowTrust(ctx, conn, f.dial.Server, trust)
		return err
	})
	return newest, err
}
