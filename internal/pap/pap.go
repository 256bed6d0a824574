// Package pap is an author's side of the administration point: it makes
// releases and hands them to a PDP.
//
// A server is not believed. Whatever a new release builds on (the head that it
// follows, the old bundle that a rollback brings back) is opened and verified
// against the author's own trust file before anything is signed.
package pap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// Client releases bundles through one PDP. It is safe for concurrent use.
type Client struct {
	server   string
	policies microwallv1.PolicyServiceClient
	trust    *bundles.Trust
}

// New returns a client that talks over conn to server, as it is called in
// messages, and believes what trust opens.
func New(conn grpc.ClientConnInterface, server string, trust *bundles.Trust) *Client {
	return &Client{server: server, policies: microwallv1.NewPolicyServiceClient(conn), trust: trust}
}

// Trust returns what the client believes by.
func (c *Client) Trust() *bundles.Trust { return c.trust }

// Draft is what an author wants to release. Everything else of the release is
// worked out from the head.
type Draft struct {
	Namespace policy.Namespace
	// Bundle to be released; nil retires the namespace.
	Bundle *bundles.Bundle
	// Signers of the release.
	Signers []note.Signer
	// The rest goes into the release as it is.
	Created        time.Time
	Author, Source string
	MaxStaleness   time.Duration
	WhenStale      bundles.WhenStale
}

// Result is what came of a draft.
type Result struct {
	// Release that is the head now.
	Release *bundles.Signed
	// Unchanged is true if the head said the same before, so that there was
	// nothing to release.
	Unchanged bool
	// Warnings are what the server says will keep a later push from being
	// taken. They come with an answer; one that got lost has none. Or they say
	// that another release has followed already.
	Warnings []string
}

// attempts bounds how often a push is sent whose fate could not be found out.
const attempts = 3

// Push releases a draft after the head. If somebody else releases at the same
// time the error is of kind policy.Conflict and says who.
func (c *Client) Push(ctx context.Context, d Draft) (Result, error) {
	head, proposal, packed, err := c.propose(ctx, d)
	if err != nil {
		return Result{}, err
	}
	if proposal == nil {
		return Result{Release: head, Unchanged: true}, nil
	}
	signed, err := c.whole(proposal.Note())
	if err != nil {
		return Result{}, err
	}
	return c.deliver(ctx, head, signed, packed)
}

// propose signs what a draft would release after the head. No proposal comes
// back if the head says the same already.
func (c *Client) propose(ctx context.Context, d Draft) (head *bundles.Signed, _ *bundles.Proposal, packed []byte, err error) {
	if head, err = c.Head(ctx, d.Namespace); err != nil || same(head, d) {
		return head, nil, nil, err
	}
	if d.Bundle == nil && head == nil {
		return nil, nil, nil, policy.Errorf(policy.NotFound, "namespace %s has no release that could be retired", d.Namespace)
	}
	proposal, err := c.sign(head, d)
	if err != nil {
		return nil, nil, nil, c.Explain(ctx, err)
	}
	if d.Bundle != nil {
		packed = bundles.Pack(d.Bundle.Tar())
	}
	return head, proposal, packed, nil
}

// same reports whether the head says already what a draft would say, by the
// same keys: whoever changes a key signs once more what it said.
func same(head *bundles.Signed, d Draft) bool {
	if head == nil {
		return false
	}
	for _, s := range d.Signers {
		if !slices.Contains(head.Signers(), s.Name()) {
			return false
		}
	}
	h := head.Release()
	if d.Bundle == nil {
		return h.Retired()
	}
	staleness := d.MaxStaleness
	if staleness == 0 {
		staleness = bundles.DefaultMaxStaleness
	}
	return h.Bundle == d.Bundle.Digest() && h.MaxStaleness == staleness && h.WhenStale == d.WhenStale
}

// sign makes the release that follows head, and verifies it like any other: what
// nobody signed who may would be refused everywhere.
func (c *Client) sign(head *bundles.Signed, d Draft) (*bundles.Proposal, error) {
	r := bundles.Release{
		Namespace: d.Namespace, Epoch: c.trust.Epoch(), Revision: 1,
		Created: d.Created, Author: d.Author, Source: d.Source, MaxStaleness: d.MaxStaleness, WhenStale: d.WhenStale,
	}
	if d.Bundle != nil {
		r.Bundle, r.Size = d.Bundle.Digest(), int64(len(d.Bundle.Tar()))
	}
	if head != nil {
		r.Previous = head.Digest()
		if h := head.Release(); h.Epoch == r.Epoch {
			r.Revision = h.Revision + 1
		}
	}
	signedNote, err := bundles.Sign(r, d.Signers...)
	if err != nil {
		return nil, err
	}
	return c.trust.Propose(signedNote)
}

// whole opens a release, and says how it gets the signatures that it lacks.
func (c *Client) whole(signedNote []byte) (*bundles.Signed, error) {
	signed, err := c.trust.Open(signedNote)
	if p, perr := c.trust.Propose(signedNote); err != nil && perr == nil && p.Missing() > 0 {
		return nil, fmt.Errorf("%w; sign in steps: --sign-only -o FILE, then microwall cosign FILE, then microwall push --release FILE", err)
	}
	return signed, err
}

// deliver sends a release until it is known to be the head, or not.
func (c *Client) deliver(ctx context.Context, base, next *bundles.Signed, packed []byte) (Result, error) {
	var err error
	lost := false // an answer, so that the release may have been taken
	for range attempts {
		var warnings []string
		if warnings, err = c.send(ctx, next.Note(), packed); err == nil {
			return Result{Release: next, Warnings: warnings}, nil
		}
		switch policy.KindOf(err) {
		case policy.Conflict, policy.Unavailable, policy.Internal:
		default:
			return Result{}, err // it was not taken
		}
		lost = lost || policy.KindOf(err) != policy.Conflict
		// The answer may have been lost on its way: the head tells.
		head, headErr := c.Head(ctx, next.Release().Namespace)
		switch {
		case headErr != nil:
			return Result{}, fmt.Errorf("%w; whether it was taken is not known, as the head cannot be read (%w): push again when the server is back, which does no harm", err, headErr)
		case head != nil && head.Digest() == next.Digest():
			return Result{Release: next}, nil
		case digest(head) != digest(base) && lost:
			return c.overtaken(ctx, next, head)
		case digest(head) != digest(base):
			return Result{}, lostRace(next, head)
		}
	}
	return Result{}, err
}

// overtaken says what became of a release whose answer was lost, and which is not
// the head: it may have been, until others followed.
func (c *Client) overtaken(ctx context.Context, next, head *bundles.Signed) (Result, error) {
	n := next.Release().Namespace
	kept, err := c.History(ctx, n)
	if err != nil && policy.KindOf(err) != policy.NotFound {
		return Result{}, fmt.Errorf("whether release %d of %s was taken is not known, as its history cannot be read: %w; look at it when the server is back (`microwall history %s`)", next.Release().Revision, n, err, n)
	}
	reaches := len(kept) == 0
	for _, e := range kept {
		switch {
		case e.Signed == nil:
		case e.Signed.Digest() == next.Digest():
			return Result{Release: next, Warnings: []string{fmt.Sprintf("%s has followed already, and decides", describe(head))}}, nil
		case e.Signed.Version().Compare(next.Version()) <= 0:
			reaches = true
		}
	}
	if !reaches {
		return Result{}, policy.Errorf(policy.Unavailable, "whether release %d of %s was taken is not known: its answer was lost, others have followed, and so few releases are kept (`microwall serve --keep`) that it is not among them; the head is now %s; look at it (`microwall history %s`), and push again what it lacks", next.Release().Revision, n, describe(head), n)
	}
	return Result{}, lostRace(next, head)
}

func lostRace(next, head *bundles.Signed) error {
	n := next.Release().Namespace
	return policy.Errorf(policy.Conflict, "somebody else released first: the head of %s is now %s; look at it (`microwall history %s`), then push again", n, describe(head), n)
}

func digest(s *bundles.Signed) policy.Digest {
	if s == nil {
		return policy.Digest{}
	}
	return s.Digest()
}

func describe(s *bundles.Signed) string {
	if s == nil {
		return "none"
	}
	r := s.Release()
	text := fmt.Sprintf("release %d", r.Revision)
	if r.Author != "" {
		text += " by " + r.Author
	}
	if r.Source != "" {
		text += " from " + r.Source
	}
	return text
}

const (
	// chunkSize of a bundle on its way.
	chunkSize = 256 << 10
	// maxWarnings is how many of a server's warnings are passed on.
	maxWarnings = 8
)

// send hands over a release and its bundle once.
func (c *Client) send(ctx context.Context, signedNote, packed []byte) (warnings []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream if this returns early
	stream, err := c.policies.Push(ctx)
	if err != nil {
		return nil, wire.Error(c.server, err)
	}
	err = stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Release{Release: signedNote}})
	for len(packed) > 0 && err == nil {
		k := min(len(packed), chunkSize)
		err = stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Chunk{Chunk: packed[:k]}})
		packed = packed[k:]
	}
	// io.EOF means that the server has answered already; the answer says why.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, wire.Error(c.server, err)
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return nil, wire.Error(c.server, err)
	}
	for _, text := range answer.GetWarnings() {
		if len(warnings) < maxWarnings {
			warnings = append(warnings, wire.Message(text))
		}
	}
	return warnings, nil
}

// Head returns the verified head of a namespace, nil if it has none, or only one
// of an earlier epoch that does not verify any more.
func (c *Client) Head(ctx context.Context, n policy.Namespace) (*bundles.Signed, error) {
	answer, err := c.policies.GetRelease(ctx, &microwallv1.GetReleaseRequest{Namespace: string(n)})
	if err = wire.Error(c.server, err); policy.KindOf(err) == policy.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	signed, err := c.open(n, answer.GetRelease())
	var unverified *bundles.UnverifiedError
	switch {
	case !errors.As(err, &unverified):
		return signed, err
	case unverified.Release.Epoch < c.trust.Epoch():
		return nil, nil // a new epoch begins, whatever was before it
	}
	if explained := c.Explain(ctx, err); explained != err { //nolint:errorlint // it is this very error, or another
		return nil, explained
	}
	return nil, fmt.Errorf("%w (if its key was taken out of the trust file: raise the epoch there too, and push again)", err)
}

// Namespaces returns the namespaces that have a release, as the server says, who
// may keep quiet about some.
func (c *Client) Namespaces(ctx context.Context) ([]policy.Namespace, error) {
	answer, err := c.policies.ListNamespaces(ctx, &microwallv1.ListNamespacesRequest{})
	if err != nil {
		return nil, wire.Error(c.server, err)
	}
	all := make([]policy.Namespace, len(answer.GetNamespaces()))
	for i, name := range answer.GetNamespaces() {
		if all[i], err = policy.ParseNamespace(name); err != nil {
			return nil, fmt.Errorf("%s names a namespace that is none: %w", c.server, err)
		}
	}
	return all, nil
}

// open verifies what the server says is a release of n.
func (c *Client) open(n policy.Namespace, signedNote []byte) (*bundles.Signed, error) {
	signed, err := c.trust.Open(signedNote)
	if err != nil {
		return nil, fmt.Errorf("%s handed out a release that does not verify: %w", c.server, err)
	}
	if got := signed.Release().Namespace; got != n {
		return nil, policy.Errorf(policy.Denied, "%s was asked for a release of %s and handed out one of %s", c.server, n, got)
	}
	return signed, nil
}

// Entry is one release of a history.
type Entry struct {
	// Signed is the release; nil if it does not verify any more, for instance
	// because its author's key is gone from the trust file.
	Signed *bundles.Signed
	// Err says why it does not verify.
	Err error
}

// Says returns what a release of n that does not verify says of itself, if it
// says anything. Nobody vouches for it: it is to be shown as that.
func (e Entry) Says(n policy.Namespace) (bundles.Release, bool) {
	unverified, ok := errors.AsType[*bundles.UnverifiedError](e.Err)
	if !ok || unverified.Release.Namespace != n {
		return bundles.Release{}, false
	}
	return unverified.Release, true
}

func orUnknown(source string) string {
	if source == "" {
		return "a source that it does not name"
	}
	return source
}

// maxHistory is more releases than a server keeps.
const maxHistory = 10_000

// History returns the releases of a namespace that the server keeps, newest
// first. A namespace without any is policy.NotFound.
func (c *Client) History(ctx context.Context, n policy.Namespace) ([]Entry, error) {
	var all []Entry
	token := ""
	for {
		page, err := c.policies.ListReleases(ctx, &microwallv1.ListReleasesRequest{Namespace: string(n), PageToken: token})
		if err != nil {
			return nil, wire.Error(c.server, err)
		}
		for _, signedNote := range page.GetReleases() {
			signed, err := c.open(n, signedNote)
			all = append(all, Entry{signed, err})
		}
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
		if len(all) > maxHistory || len(page.GetReleases()) == 0 {
			return nil, policy.Errorf(policy.Failed, "%s does not come to an end with the releases of %s; see that it is a PDP", c.server, n)
		}
	}
}

// Restore completes a draft with the bundle and the staleness of an older
// release, and with its source if the draft has none. They are fetched and
// verified here. Epoch 0 is the newest epoch that has the revision.
func (c *Client) Restore(ctx context.Context, d Draft, epoch, revision uint64, limits bundles.Limits) (Draft, error) {
	old, err := c.find(ctx, d.Namespace, epoch, revision)
	if err != nil {
		return Draft{}, err
	}
	r := old.Release()
	if r.Retired() {
		return Draft{}, policy.Errorf(policy.BadRequest, "release %d retired %s; to do that again: microwall retire %s", revision, d.Namespace, d.Namespace)
	}
	d.Bundle, err = c.Bundle(ctx, old, limits)
	switch {
	case policy.KindOf(err) == policy.NotFound && err != nil:
		return Draft{}, policy.Errorf(policy.NotFound, "bundle of release %d of %s is not kept any more (%w); %s", revision, d.Namespace, err, pushInstead(r.Source))
	case err != nil:
		return Draft{}, err
	}
	d.MaxStaleness, d.WhenStale = r.MaxStaleness, r.WhenStale
	if d.Source == "" {
		d.Source = r.Source
	}
	return d, nil
}

// pushInstead says how to get back what cannot be rolled back to. The source is
// that of the release, "" if it is not known.
func pushInstead(source string) string {
	if source == "" {
		return "push the commit instead that the release named as its source, as your repository or the log of your CI tells: microwall push DIR --source COMMIT"
	}
	return fmt.Sprintf("push its source instead, which is %s: microwall push DIR --source %s", source, source)
}

// Bundle fetches the bundle of a verified release, which must not be a
// retirement, and verifies it.
func (c *Client) Bundle(ctx context.Context, of *bundles.Signed, limits bundles.Limits) (*bundles.Bundle, error) {
	packed, err := c.bundle(ctx, of, limits)
	if err != nil {
		return nil, err
	}
	b, err := of.Unpack(bytes.NewReader(packed), limits)
	if err != nil {
		return nil, fmt.Errorf("%s handed out a bundle that is not the one that release %d names: %w", c.server, of.Release().Revision, err)
	}
	return b, nil
}

// find returns a verified release from the history.
func (c *Client) find(ctx context.Context, n policy.Namespace, epoch, revision uint64) (*bundles.Signed, error) {
	all, err := c.History(ctx, n)
	if err != nil {
		return nil, err
	}
	newest := uint64(0) // of those that it may be
	var unverified error
	for _, e := range all {
		if e.Signed == nil {
			if r, ok := e.Says(n); ok && r.Revision == revision && (epoch == 0 || r.Epoch == epoch) {
				unverified = policy.Errorf(policy.Denied, "release %d of %s cannot come back, as it does not verify: %w; it says of itself that it was made from %s: look at that, and push it", revision, n, c.Explain(ctx, e.Err), orUnknown(r.Source))
			}
			continue
		}
		r := e.Signed.Release()
		switch {
		case epoch != 0 && r.Epoch != epoch:
		case r.Revision == revision:
			return e.Signed, nil
		default:
			newest = max(newest, r.Revision)
		}
	}
	if unverified != nil {
		return nil, unverified
	}
	if newest != 0 && revision > newest {
		return nil, policy.Errorf(policy.NotFound, "there is no release %d of %s, the newest is %d; `microwall history %s` lists them", revision, n, newest, n)
	}
	return nil, policy.Errorf(policy.NotFound, "release %d of %s is not kept any more, or does not verify (`microwall history %s` lists what is kept); %s", revision, n, n, pushInstead(""))
}

// bundle fetches the packed bundle of a release.
func (c *Client) bundle(ctx context.Context, of *bundles.Signed, limits bundles.Limits) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := of.Release()
	stream, err := c.policies.GetBundle(ctx, &microwallv1.GetBundleRequest{Namespace: string(r.Namespace), Epoch: r.Epoch, Revision: r.Revision})
	if err != nil {
		return nil, wire.Error(c.server, err)
	}
	most := limits.WithDefaults().Packed
	var packed []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return packed, nil
		}
		if err != nil {
			return nil, wire.Error(c.server, err)
		}
		if int64(len(packed)+len(m.GetChunk())) > most {
			return nil, policy.Errorf(policy.Exhausted, "%s sends a packed bundle over the limit of %d bytes", c.server, most)
		}
		packed = append(packed, m.GetChunk()...)
	}
}
