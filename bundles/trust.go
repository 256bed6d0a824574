package bundles

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/policy"
)

// Trust says who may sign what: a parsed trust.yaml, see [ParseTrust]. It is
// immutable.
type Trust struct {
	domain     string
	version    uint64
	epoch      uint64
	keys       map[string]publicKey
	namespaces map[policy.Namespace]authority
	beacons    []string
	roots      quorum
	digest     policy.Digest
}

// quorum is a set of keys, by name, of which so many must sign.
type quorum struct {
	names     []string
	threshold int
}

// authority is what the trust file says of one namespace.
type authority struct {
	quorum
	guardrail bool
	// maxStaleness is 0 where the file says nothing, whenStale Serve.
	maxStaleness time.Duration
	whenStale    WhenStale
}

// LoadTrust reads a trust file. One that others than its owner may write is
// refused, where the system has such permissions: who can write it can sign
// anything.
func LoadTrust(path string) (*Trust, error) {
	content, err := readGuarded(path, maxTrust, 0o022)
	var wide *permissionError
	switch {
	case errors.As(err, &wide):
		return nil, policy.Errorf(policy.Denied, "trust file %s has permissions %04o, so others can decide whom to believe; look through it, then run \"chmod go-w %s\"", path, wide.mode, path)
	case errors.Is(err, fs.ErrNotExist):
		return nil, policy.Errorf(policy.BadRequest, "trust file %s does not exist; \"microwall keygen\" makes a key and prints the lines that begin one: %w", path, err)
	case err != nil:
		return nil, err
	}
	t, err := ParseTrust(content)
	if err != nil {
		return nil, policy.Errorf(policy.KindOf(err), "%s: %w", path, err)
	}
	return t, nil
}

// Domain returns the trust domain: the first label of all its namespaces.
func (t *Trust) Domain() string { return t.domain }

// Version returns the version of the file. It begins at 1; who holds a version
// takes no lower one.
func (t *Trust) Version() uint64 { return t.version }

// Epoch returns the epoch that releases are made in. Releases of a later one
// are not opened.
func (t *Trust) Epoch() uint64 { return t.epoch }

// Digest returns the SHA-256 sum of the file.
func (t *Trust) Digest() policy.Digest { return t.digest }

// Namespaces returns the namespaces that the file lists, sorted. There may be
// others below them.
func (t *Trust) Namespaces() []policy.Namespace {
	return slices.Sorted(maps.Keys(t.namespaces))
}

// IsGuardrail reports whether ns binds everything below it.
func (t *Trust) IsGuardrail(ns policy.Namespace) bool { return t.namespaces[ns].guardrail }

// Guardrails returns those ancestors of ns that bind it, the outermost first.
func (t *Trust) Guardrails(ns policy.Namespace) []policy.Namespace {
	return slices.DeleteFunc(ns.Ancestors(), func(a policy.Namespace) bool { return !t.IsGuardrail(a) })
}

// Keys returns the names of the keys that the file lists, sorted.
func (t *Trust) Keys() []string { return slices.Sorted(maps.Keys(t.keys)) }

// Key returns the public key of that name as the file lists it, "" if it does
// not.
func (t *Trust) Key(name string) string {
	if _, ok := t.keys[name]; !ok {
		return ""
	}
	return t.keys[name].String()
}

// Beacons returns the names of the keys that sign beacons.
func (t *Trust) Beacons() []string { return slices.Clone(t.beacons) }

// Roots returns the names of the keys that may sign a later trust file, and how
// many of them must. There may be none.
func (t *Trust) Roots() (names []string, threshold int) {
	return slices.Clone(t.roots.names), t.roots.threshold
}

// Signers returns the names of the keys that may sign releases of ns and how
// many of them must: those of ns if it is listed, else those of its nearest
// listed ancestor. There are none if nothing on its path is listed.
func (t *Trust) Signers(ns policy.Namespace) (names []string, threshold int) {
	_, q := t.authority(ns)
	return slices.Clone(q.names), q.threshold
}

func (t *Trust) authority(ns policy.Namespace) (listed policy.Namespace, q quorum) {
	for ; ns != ""; ns = ns.Parent() {
		if a, ok := t.namespaces[ns]; ok {
			return ns, a.quorum
		}
	}
	return "", quorum{}
}

// Staleness returns for how long a release is believed without proof that it is
// still the head, and what happens after that: what its author asked for, and
// the tighter of that and of what the file says of its namespace and of each
// listed ancestor. Nobody can loosen what somebody else has tightened.
func (t *Trust) Staleness(r Release) (most time.Duration, when WhenStale) {
	r = r.withDefaults()
	most, when = r.MaxStaleness, r.WhenStale
	for ns := r.Namespace; ns != ""; ns = ns.Parent() {
		a := t.namespaces[ns]
		if a.maxStaleness > 0 {
			most = min(most, a.maxStaleness)
		}
		when = max(when, a.whenStale)
	}
	return most, when
}

// UnverifiedError says that a release is not trusted, and why. Its kind is
// Denied.
type UnverifiedError struct {
	// Release is what the note says. Nobody vouches for any of it: it is for
	// messages only.
	Release Release
	// Reason says what is missing, Next what to do about it, if that can be said.
	Reason, Next string
}

// Error returns the reason, and what to do.
func (e *UnverifiedError) Error() string {
	text := fmt.Sprintf("release of %s is not trusted: %s", e.Release, e.Reason)
	if e.Next != "" {
		text += "; " + e.Next
	}
	return text
}

// Unwrap returns an error of kind Denied.
func (e *UnverifiedError) Unwrap() error {
	return &policy.Error{Kind: policy.Denied, Message: e.Error()}
}

// Open verifies a signed release. It is trusted if it is of this domain and of
// no later epoch than the trust file's, and as many different public keys as
// the file asks for have signed it, of those that may sign its namespace. What
// strangers add to it is of no account: a signature by another key counts for
// nothing, and by a key under a second name it counts once.
//
// A release that is not trusted is an [*UnverifiedError]. A note that is none,
// or no release, is a BadRequest error.
func (t *Trust) Open(signed []byte) (*Signed, error) {
	p, err := t.Propose(signed)
	if err != nil {
		return nil, err
	}
	if p.tally.missing > 0 {
		return nil, &UnverifiedError{Release: p.release, Reason: p.tally.want("those that may sign " + string(p.release.Namespace))}
	}
	return &Signed{release: p.release, note: p.note, digest: p.digest, signers: p.tally.signed}, nil
}

// verify returns who signed, or an [*UnverifiedError] if that is of no account.
func (t *Trust) verify(signed []byte, text string, r Release) (tally, error) {
	refuse := func(next, reason string, args ...any) (tally, error) {
		return tally{}, &UnverifiedError{Release: r, Reason: fmt.Sprintf(reason, args...), Next: next}
	}
	if domain := r.Namespace.Domain(); domain != t.domain {
		return refuse(fmt.Sprintf("push it where %s is served", domain), "it is of the domain %s, the trust file is of %s", domain, t.domain)
	}
	listed, q := t.authority(r.Namespace)
	if listed == "" {
		return refuse("list it, or "+t.domain, "neither %s nor a namespace above it is listed in the trust file, so nobody may sign it", r.Namespace)
	}
	found, err := t.count(signed, text, q)
	switch {
	case err != nil:
		return refuse("", "%v", err)
	case len(found.signed) == 0:
		return refuse(fmt.Sprintf("sign with the keys that the trust file lists for %s: %s; if its version, %d, is not the newest, get that first", listed, strings.Join(q.names, ", "), t.version),
			"0 different keys of those that may sign %s have signed it, %d must", r.Namespace, q.threshold)
	case r.Epoch > t.epoch:
		return refuse("raise epoch and version in the trust file first, or get a newer one than its version "+strconv.FormatUint(t.version, 10), "it is of epoch %d, the trust file is at %d", r.Epoch, t.epoch)
	}
	return found, nil
}

// readNote returns the text of a signed note that nobody has verified yet: it
// says which keys to ask for.
func readNote(signed []byte, what string, most int) (text string, err error) {
	if len(signed) > most {
		return "", policy.Errorf(policy.Exhausted, "signed %s is %d bytes, the limit is %d", what, len(signed), most)
	}
	// Without any known key, a note that is well-formed is an error that
	// carries it.
	var unverified *note.UnverifiedNoteError
	if _, err := note.Open(signed, nil); !errors.As(err, &unverified) {
		return "", policy.Errorf(policy.BadRequest, "this is not a signed %s: %w", what, err)
	}
	return unverified.Note.Text, nil
}

// Signed is a release whose signatures were verified. Only [Trust.Open] makes
// one. It is immutable.
type Signed struct {
	release Release
	note    []byte
	digest  policy.Digest
	signers []string
}

// Release returns what was signed.
func (s *Signed) Release() Release { return s.release }

// Note returns the bytes that were verified, to be kept or passed on. They must
// not be changed.
func (s *Signed) Note() []byte { return s.note }

// Digest returns the SHA-256 sum of the text that was signed. It does not
// depend on the signatures, to which anybody can add.
func (s *Signed) Digest() policy.Digest { return s.digest }

// Version names the release.
func (s *Signed) Version() policy.Version {
	return policy.Version{
		Namespace: s.release.Namespace,
		Epoch:     s.release.Epoch,
		Revision:  s.release.Revision,
		Digest:    s.digest,
	}
}

// Signers returns the names of the keys that signed and may, one name for each
// public key.
func (s *Signed) Signers() []string { return slices.Clone(s.signers) }

// Unpack returns the release's bundle from what [Pack] made of its tar. It reads
// no more than l.Packed bytes and decompresses no more than was signed as the
// size, which l.Unpacked bounds before anything is read; nothing is parsed
// before size and digest are those that were signed.
//
// What is over a limit is an Exhausted error, another bundle than that which
// was signed a BadRequest error, and so is asking for the bundle of a
// retirement. An error of packed itself keeps its kind; without one it is
// Unavailable.
func (s *Signed) Unpack(packed io.Reader, l Limits) (*Bundle, error) {
	return s.release.unpack(packed, l)
}

// unpack returns the bundle that r names from what [Pack] made of its tar.
func (r Release) unpack(packed io.Reader, l Limits) (*Bundle, error) {
	if r.Retired() {
		return nil, policy.Errorf(policy.BadRequest, "%s retires the namespace; it has no bundle", r)
	}
	tar, err := unpack(packed, r.Size, r.Bundle, l)
	if err != nil {
		return nil, policy.Errorf(policy.KindOf(err), "%s: %w", r, err)
	}
	b, err := Parse(tar)
	if err != nil {
		return nil, policy.Errorf(policy.KindOf(err), "%s: %w", r, err)
	}
	return b, nil
}
