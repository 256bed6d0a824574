package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// cosignFlags are those of the cosign command.
type cosignFlags struct {
	clientFlags
	output
	keyFlag
	trust, out, digest string
	ask                bool // a server was named
}

func newCosign(w world) *cobra.Command {
	var f cosignFlags
	cmd := &cobra.Command{
		Use:     "cosign FILE",
		GroupID: groupAuthor,
		Short:   "Look at what others have signed, and sign it, too",
		Long: `Show what is in a file that push --sign-only made, or trust sign, and sign it,
too. Before anything is signed, it is verified: that one at least of those who may
sign it has, that the bundle in the file is the one that was signed, and that it
compiles; with --server also that it follows the head, and the difference to the
head is shown. A trust file must be the next version after --trust, and the
difference to that is shown.

Without a key nothing is signed. To sign what was looked at, and nothing that
took its place meanwhile, give the digest that was shown with --digest.`,
		Example: `  microwall cosign guardrails.release --server pdp.example:7070 --ca ca.crt
  microwall cosign guardrails.release --key bob.key --digest sha256:138cd579...`,
		Args:              one("file"),
		ValidArgsFunction: nil,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.ask = f.named(cmd, w)
			return f.cosign(cmd.Context(), w, args[0])
		},
	}
	f.clientFlags.add(cmd, w)
	f.flag(cmd, formatJSON)
	trustFlag(cmd, w, &f.trust)
	fs := cmd.Flags()
	f.keyFlag.add(fs)
	fs.StringVar(&f.digest, "digest", "", "sign only what has this digest")
	fs.StringVarP(&f.out, "out", "o", "", "new file for what has one signature more (default: in place)")
	return cmd
}

// maxSealed is what a file of a release has at most.
func maxSealed() int64 { return (bundles.Limits{}).WithDefaults().Packed + bundles.MaxNote + 1 }

// readSigned reads a file that somebody else made.
func readSigned(path string) ([]byte, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, policy.Errorf(policy.BadRequest, "%s does not exist; name a file that push --sign-only, or trust sign, made", path)
	case err != nil:
		return nil, policy.Errorf(policy.BadRequest, "cannot open the file: %w", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxSealed()+1))
	switch {
	case err != nil:
		return nil, policy.Errorf(policy.BadRequest, "cannot read the file: %w", err)
	case int64(len(content)) > maxSealed():
		return nil, policy.Errorf(policy.Exhausted, "%s is larger than a release can be", path)
	}
	return content, nil
}

// readSealed reads a signed release with its bundle.
func readSealed(path string) (bundles.Sealed, error) {
	content, err := readSigned(path)
	if err != nil {
		return bundles.Sealed{}, err
	}
	return parseSealed(path, content)
}

func parseSealed(path string, content []byte) (bundles.Sealed, error) {
	sealed, err := bundles.ParseSealed(content)
	if err != nil {
		return bundles.Sealed{}, policy.Errorf(policy.BadRequest, "%s holds no signed release; microwall push DIR --sign-only -o FILE makes one", path)
	}
	return sealed, nil
}

func (f *cosignFlags) cosign(ctx context.Context, w world, path string) error {
	if err := f.check(); err != nil {
		return err
	}
	trust, err := bundles.LoadTrust(f.trust)
	if err != nil {
		return err
	}
	content, err := readSigned(path)
	if err != nil {
		return err
	}
	if file, err := bundles.TrustFile(content); err == nil {
		return f.cosignTrust(ctx, w, path, trust, content, file)
	}
	sealed, err := parseSealed(path, content)
	if err != nil {
		return err
	}
	if f.ask {
		if trust, err = f.newest(ctx, trust); err != nil {
			return err
		}
	}
	p, err := trust.Propose(sealed.Note)
	if err != nil && f.ask {
		return f.talk(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
			return pap.New(conn, f.dial.Server, trust).Explain(ctx, err)
		})
	}
	if err != nil {
		return err
	}
	b, err := bundleOf(ctx, p, sealed)
	if err != nil {
		return err
	}
	seen := proposalOf(path, p)
	if f.ask {
		if err := f.compare(ctx, trust, p, b, &seen); err != nil {
			return err
		}
	}
	if !f.given(w) {
		seen.Note = "nothing was signed: give --key to sign"
		return seen.print(w, f.output)
	}
	if f.digest != "" && f.digest != p.Digest().String() {
		return policy.Errorf(policy.Denied, "%s holds the release %s, not %s; look at it again", path, p.Digest(), f.digest)
	}
	signer, err := f.signer(w)
	if err != nil {
		return err
	}
	if sealed.Note, err = sign(trust, p, signer); err != nil {
		return err
	}
	if p, err = trust.Propose(sealed.Note); err != nil {
		return err
	}
	to := f.out
	if to == "" {
		to = path
	}
	if err := f.write(path, sealed.Append(nil)); err != nil {
		return err
	}
	signed := proposalOf(to, p)
	signed.Head, signed.Changes, signed.compared = seen.Head, seen.Changes, seen.compared
	return signed.print(w, f.output)
}

// bundleOf opens the bundle of a proposal, and compiles it. It is nil if the
// proposal retires its namespace.
func bundleOf(ctx context.Context, p *bundles.Proposal, sealed bundles.Sealed) (*bundles.Bundle, error) {
	r := p.Release()
	if r.Retired() {
		if len(sealed.Packed) > 0 {
			return nil, policy.Errorf(policy.BadRequest, "%s retires its namespace, but a bundle is in the file beside it; sign again", r)
		}
		return nil, nil
	}
	b, err := p.Unpack(bytes.NewReader(sealed.Packed), bundles.Limits{})
	if err != nil {
		return nil, fmt.Errorf("the file holds another bundle than the one that was signed: %w", err)
	}
	if n := b.Namespace(); n != "" && n != r.Namespace {
		return nil, policy.Errorf(policy.BadRequest, "%s carries a bundle that names the namespace %s in its .manifest; it is for another namespace than it says", r, n)
	}
	if _, err := rego.Check(ctx, live.SourceOf(b)); err != nil {
		return nil, policy.Errorf(policy.BadRequest, "the bundle does not compile: %w", err)
	}
	return b, nil
}

// compare holds a proposal against the head.
func (f *cosignFlags) compare(ctx context.Context, trust *bundles.Trust, p *bundles.Proposal, b *bundles.Bundle, seen *proposal) error {
	return f.talk(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		client := pap.New(conn, f.dial.Server, trust)
		head, err := client.Review(ctx, p)
		if err != nil {
			return err
		}
		var before *bundles.Bundle
		if head != nil && !head.Release().Retired() {
			if before, err = client.Bundle(ctx, head, bundles.Limits{}); err != nil {
				return err
			}
		}
		seen.compared = true
		if head != nil {
			seen.Head = head.Release().Revision
		}
		seen.Changes = visible(changes(before, b))
		return nil
	})
}

// write puts what has one signature more where it was read from, or into a new
// file.
func (f *cosignFlags) write(from string, content []byte) error {
	if f.out == "" || f.out == from {
		return writeFile(from, content)
	}
	return writeNew(f.out, content)
}

// sign adds one signature that counts.
func sign(trust *bundles.Trust, p *bundles.Proposal, signer note.Signer) ([]byte, error) {
	if !slices.Contains(p.Able(), signer.Name()) {
		if slices.Contains(p.Signers(), signer.Name()) {
			return nil, policy.Errorf(policy.Conflict, "key %s has signed already; another one must", signer.Name())
		}
		return nil, policy.Errorf(policy.Denied, "key %s may not sign %s; those who still may: %s", signer.Name(), p.Release().Namespace, orDash(strings.Join(p.Able(), ", ")))
	}
	more, err := bundles.Cosign(p.Note(), signer)
	if err != nil {
		return nil, err
	}
	// Another key of the same name would sign, and count for nothing.
	if after, err := trust.Propose(more); err != nil || len(after.Signers()) != len(p.Signers())+1 {
		return nil, policy.Errorf(policy.Denied, "this key is called %s, but it is not the key that the trust file lists under that name; find the right one", signer.Name())
	}
	return more, nil
}

// proposal is what is printed of a release that waits for signatures.
type proposal struct {
	File         string           `json:"file"`
	Namespace    policy.Namespace `json:"namespace"`
	Epoch        uint64           `json:"epoch"`
	Revision     uint64           `json:"revision"`
	Digest       policy.Digest    `json:"digest"`
	Previous     policy.Digest    `json:"previous"`
	Bundle       policy.Digest    `json:"bundle"`
	Retired      bool             `json:"retired,omitempty"`
	Created      time.Time        `json:"created"`
	Author       string           `json:"author,omitempty"`
	Source       string           `json:"source,omitempty"`
	MaxStaleness string           `json:"max_staleness"`
	WhenStale    string           `json:"when_stale"`
	Signers      []string         `json:"signers"`
	Missing      int              `json:"missing"`
	Able         []string         `json:"able"`
	// Head is the revision that it follows, and Changes what differs, if a
	// server was asked.
	Head    uint64 `json:"head,omitempty"`
	Changes string `json:"changes,omitempty"`
	Note    string `json:"note,omitempty"`

	compared bool
}

func proposalOf(file string, p *bundles.Proposal) proposal {
	r := p.Release()
	return proposal{
		File: file, Namespace: r.Namespace, Epoch: r.Epoch, Revision: r.Revision, Digest: p.Digest(), Previous: r.Previous, Bundle: r.Bundle,
		Retired: r.Retired(), Created: r.Created, Author: r.Author, Source: r.Source, MaxStaleness: r.MaxStaleness.String(), WhenStale: r.WhenStale.String(),
		Signers: p.Signers(), Missing: p.Missing(), Able: p.Able(),
	}
}

func (p proposal) print(w world, out output) error {
	if out.format == formatJSON {
		return writeJSON(w.stdout, p)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: revision %d (epoch %d), signed and not released\n", p.Namespace, p.Revision, p.Epoch)
	fmt.Fprintf(&b, "release %s\n", p.Digest)
	if p.Retired {
		fmt.Fprintf(&b, "bundle  none: it retires the namespace\n")
	} else {
		fmt.Fprintf(&b, "bundle  %s\n", p.Bundle)
	}
	fmt.Fprintf(&b, "follows %s\n", p.Previous)
	fmt.Fprintf(&b, "made    %s by %s from %s\n", p.Created.UTC().Format(time.RFC3339), orDash(p.Author), orDash(p.Source))
	fmt.Fprintf(&b, "stale   after %s, then %s\n", p.MaxStaleness, p.WhenStale)
	fmt.Fprintf(&b, "signed  %s\n", strings.Join(p.Signers, ", "))
	switch {
	case p.Missing > 0:
		fmt.Fprintf(&b, "missing %d of %s: microwall cosign %s\n", p.Missing, strings.Join(p.Able, ", "), p.File)
	default:
		fmt.Fprintf(&b, "all have signed: microwall push --release %s\n", p.File)
	}
	switch {
	case !p.compared:
	case p.Head == 0:
		fmt.Fprintf(&b, "\nit is the first release here:\n%s", p.Changes)
	case p.Changes == "":
		fmt.Fprintf(&b, "\nno file differs from the head, revision %d\n", p.Head)
	default:
		fmt.Fprintf(&b, "\nagainst the head, revision %d:\n%s", p.Head, p.Changes)
	}
	if p.Note != "" {
		fmt.Fprintf(&b, "\n%s\n", p.Note)
	}
	_, err := io.WriteString(w.stdout, b.String())
	return err
}
