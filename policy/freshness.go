package policy

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
)

// Freshness says how new the releases must be that decide a [Request]. The zero
// value minimises latency: whatever the decision point holds decides at once,
// within what each namespace allows as staleness.
//
// The others wait for what they ask for, until the call's deadline, and then
// fail: no decision is made by older releases than was promised.
type Freshness struct {
	tokens []Token
	bad    error // why one of tokens is none; many requests may share them, and each is checked
	head   bool
	seen   []Version
}

// AtLeast has a request decided by the releases that tokens stand for, or newer
// ones of the same namespaces: a push returns such a token, and whoever keeps it
// beside the data that the push protects can never have that data judged by the
// policy from before. A token of an earlier epoch, or of a namespace that does
// not decide the request, is taken for [Head]; one of a release that there never
// was is an error of kind [Failed]. In a batch what one asks for is asked for all
// together: a token counts for its namespace if that decides any of the requests.
func AtLeast(tokens ...Token) Freshness {
	f := Freshness{tokens: slices.Clone(tokens)}
	for _, t := range tokens {
		if _, err := t.Version(); err != nil {
			f.bad = err
			break
		}
	}
	return f
}

// Head has a request decided by the releases that are the newest when it is
// made, as a decision point confirms after that. It costs a commit on the broker
// for each decision, or for all that wait at the same time.
var Head = Freshness{head: true}

// NotBefore returns a freshness that also does without a decision point that is
// behind releases which are known to be there: it does not wait for them, and its
// error is of kind [Unavailable], so that another one is asked. It is for clients
// of several decision points, which must not go back when they change to another.
func (f Freshness) NotBefore(seen ...Version) Freshness {
	var all union[Version]
	all.add(slices.Clone(seen))
	all.add(f.seen)
	f.seen = all.members
	return f
}

// IsHead reports whether the newest releases are asked for.
func (f Freshness) IsHead() bool { return f.head }

// Tokens returns those that [AtLeast] was given. They must not be changed.
func (f Freshness) Tokens() []Token { return f.tokens }

// Seen returns the releases that [Freshness.NotBefore] was given. They must not be
// changed.
func (f Freshness) Seen() []Version { return f.seen }

// Check returns nil if all tokens are such, and otherwise an error of kind
// [BadRequest].
func (f Freshness) Check() error { return f.bad }

// IsZero reports whether f minimises latency, whoever is asked.
func (f Freshness) IsZero() bool { return !f.head && len(f.tokens) == 0 && len(f.seen) == 0 }

// And returns what asks for all of them together. It takes time in proportion to
// how much they name.
func (f Freshness) And(others ...Freshness) Freshness {
	var tokens union[Token]
	var seen union[Version]
	tokens.add(f.tokens)
	seen.add(f.seen)
	for i := range others {
		g := &others[i]
		f.head = f.head || g.head
		f.bad = cmp.Or(f.bad, g.bad)
		tokens.add(g.tokens)
		seen.add(g.seen)
	}
	f.tokens, f.seen = tokens.members, seen.members
	return f
}

// union is all that lists have, each once. It changes none of them.
type union[T comparable] struct {
	members, last []T
	has           map[T]bool // members, if they are of several lists
}

func (u *union[T]) add(list []T) {
	switch {
	case len(list) == 0, len(list) == len(u.last) && &list[0] == &u.last[0]:
		return // what many have from one default is one list
	case u.last == nil:
		u.members, u.last = list, list
		return
	case u.has == nil:
		u.has = make(map[T]bool, len(u.members)+len(list))
		for _, x := range u.members {
			u.has[x] = true
		}
		u.members = slices.Clip(u.members)
	}
	u.last = list
	for _, x := range list {
		if !u.has[x] {
			u.has[x] = true
			u.members = append(u.members, x)
		}
	}
}

// Token stands for a release. It is opaque, survives being stored, and says
// nothing secret: it need not be kept from anybody, and nobody gains by making
// one up.
type Token string

// tokenPrefix names the form of what follows: base64url of epoch and revision as
// varints, the digest, the namespace, and the first bytes of the SHA-256 sum of
// these, by which a token that was cut or mistyped is told from another one.
const (
	tokenPrefix = "mw1."
	tokenSum    = 4
)

// Token returns the token of a release.
func (v Version) Token() Token {
	b := binary.AppendUvarint(nil, v.Epoch)
	b = binary.AppendUvarint(b, v.Revision)
	b = append(b, v.Digest[:]...)
	b = append(b, v.Namespace...)
	sum := sha256.Sum256(b)
	return Token(tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:tokenSum]...)))
}

// Version returns the release that a token stands for. The error is of kind
// [BadRequest] if t is no token.
func (t Token) Version() (Version, error) {
	v, ok := t.parse()
	if !ok || v.Token() != t {
		return Version{}, Errorf(BadRequest, "%.100q is no token of a release; a push prints it, and it must be kept whole", string(t))
	}
	return v, nil
}

func (t Token) parse() (v Version, ok bool) {
	text, ok := strings.CutPrefix(string(t), tokenPrefix)
	if !ok || len(text) > 1024 {
		return v, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < tokenSum {
		return v, false
	}
	b, end := b[:len(b)-tokenSum], b[len(b)-tokenSum:]
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:tokenSum], end) {
		return v, false
	}
	for _, n := range []*uint64{&v.Epoch, &v.Revision} {
		var size int
		if *n, size = binary.Uvarint(b); size <= 0 {
			return v, false
		}
		b = b[size:]
	}
	if len(b) < len(v.Digest) {
		return v, false
	}
	copy(v.Digest[:], b)
	v.Namespace, err = ParseNamespace(string(b[len(v.Digest):]))
	return v, err == nil
}
