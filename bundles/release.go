package bundles

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/policy"
)

// The bounds of a release's fields.
const (
	// DefaultMaxStaleness is what a release says that is made without one.
	DefaultMaxStaleness = time.Hour
	// MinMaxStaleness leaves room for a few beacons to get lost.
	MinMaxStaleness = 15 * time.Second
	// MaxMaxStaleness is the longest that a release may ask to be believed
	// without proof that it is still the head.
	MaxMaxStaleness = 366 * 24 * time.Hour

	// maxAuthor bounds author and source, in bytes.
	maxAuthor = 256
)

const (
	releaseHeader = "microwall release v1"
	none          = "-"
)

// WhenStale says what a namespace wants once nothing has proved for
// MaxStaleness that its release is still the head. The zero value is [Serve].
type WhenStale uint8

const (
	// Serve decides on, and says that it is stale.
	Serve WhenStale = iota
	// Deny denies.
	Deny
)

// String returns "serve" or "deny".
func (w WhenStale) String() string {
	switch w {
	case Serve:
		return "serve"
	case Deny:
		return "deny"
	}
	return fmt.Sprintf("WhenStale(%d)", uint8(w))
}

// ParseWhenStale reads what [WhenStale.String] writes.
func ParseWhenStale(s string) (WhenStale, error) {
	for _, w := range []WhenStale{Serve, Deny} {
		if w.String() == s {
			return w, nil
		}
	}
	return 0, policy.Errorf(policy.BadRequest, "when-stale is %.100q; it is \"serve\" or \"deny\"", s)
}

// Release is the statement that puts one bundle into one namespace as revision
// N. As a value it is only somebody's word: what was signed, and by whom, is a
// [Signed].
type Release struct {
	// Namespace that the bundle is put into.
	Namespace policy.Namespace
	// Epoch and Revision order the releases of a namespace, the epoch first.
	// Both begin at 1 and are below 2^63. Revisions begin again at 1 in a new
	// epoch.
	Epoch, Revision uint64
	// Previous is the digest of the release that this one follows. None is
	// only possible at revision 1: a new epoch may begin where nothing is left
	// of the one before. Revision 1 of epoch 1 has none, as nothing can be
	// before it.
	Previous policy.Digest
	// Bundle is the digest of the bundle. None retires the namespace.
	Bundle policy.Digest
	// Size of the bundle's tar in bytes; 0 if there is no bundle.
	Size int64
	// Created says when, by the author's clock. It is written in UTC; what is
	// less than a second is dropped.
	Created time.Time
	// Author and Source say who released what, for instance a person and a git
	// commit: at most 256 bytes of printable Unicode, "" for none.
	Author, Source string
	// MaxStaleness is for how long the release is believed without proof that
	// it is still the head: whole seconds, from 15 s to 366 days. Zero is the
	// default, one hour, and is written as such.
	MaxStaleness time.Duration
	// WhenStale is what happens after that. The zero value is Serve.
	WhenStale WhenStale
	// Canary is the percentage of clients that shall take the release, 1 to
	// 99; 0 is all of them.
	Canary int
	// Patch is the digest of a patch that turns the data of Previous into that
	// of Bundle; none if there is no patch.
	Patch policy.Digest
}

// Retired reports whether the release takes its namespace out of service: it
// has no bundle.
func (r Release) Retired() bool { return r.Bundle.IsZero() }

// String returns "boutique.cart revision 7", with the epoch where it is not 1.
func (r Release) String() string {
	if r.Epoch == 1 {
		return fmt.Sprintf("%s revision %d", r.Namespace, r.Revision)
	}
	return fmt.Sprintf("%s epoch %d revision %d", r.Namespace, r.Epoch, r.Revision)
}

// withDefaults returns r as it is written.
func (r Release) withDefaults() Release {
	if r.MaxStaleness == 0 {
		r.MaxStaleness = DefaultMaxStaleness
	}
	r.Created = r.Created.UTC().Truncate(time.Second)
	return r
}

// check returns nil if r, with its defaults, is a release.
func (r Release) check() error {
	if _, err := policy.ParseNamespace(string(r.Namespace)); err != nil {
		return err
	}
	fault := ""
	switch {
	case r.Epoch < 1 || r.Epoch > math.MaxInt64:
		fault = "epoch must be at least 1 and below 2^63"
	case r.Revision < 1 || r.Revision > math.MaxInt64:
		fault = "revision must be at least 1 and below 2^63"
	case r.Revision > 1 && r.Previous.IsZero():
		fault = "previous is missing; only revision 1 may follow nothing"
	case r.Epoch == 1 && r.Revision == 1 && !r.Previous.IsZero():
		fault = "previous must be none: nothing is before revision 1 of epoch 1"
	case r.Retired() && (r.Size != 0 || r.Canary != 0 || !r.Patch.IsZero()):
		fault = "a release without a bundle retires its namespace: it has no size, canary or patch"
	case !r.Retired() && r.Size < 1:
		fault = "size must be at least 1"
	case r.Created.Year() < 1970 || r.Created.Year() > 9999:
		fault = "created is missing, or no time between 1970 and 9999"
	case checkStaleness(r.MaxStaleness) != nil:
		fault = checkStaleness(r.MaxStaleness).Error()
	case r.WhenStale != Serve && r.WhenStale != Deny:
		fault = "when-stale must be serve or deny"
	case r.Canary < 0 || r.Canary > 99:
		fault = "canary must be 1 to 99 percent, or none"
	case !r.Patch.IsZero() && r.Previous.IsZero():
		fault = "a patch needs a previous release to be applied to"
	case !validLine(r.Author):
		fault = fmt.Sprintf("author %.300q must be at most %d bytes of printable text in one line, and not \"-\"", r.Author, maxAuthor)
	case !validLine(r.Source):
		fault = fmt.Sprintf("source %.300q must be at most %d bytes of printable text in one line, and not \"-\"", r.Source, maxAuthor)
	}
	if fault != "" {
		return policy.Errorf(policy.BadRequest, "release of %s: %s", r.Namespace, fault)
	}
	return nil
}

func checkStaleness(d time.Duration) error {
	if d < MinMaxStaleness || d > MaxMaxStaleness || d%time.Second != 0 {
		return fmt.Errorf("max-staleness is %v; it must be whole seconds from %v to %v", d, MinMaxStaleness, MaxMaxStaleness)
	}
	return nil
}

func validLine(s string) bool {
	return len(s) <= maxAuthor && s != none && utf8.ValidString(s) && strings.TrimSpace(s) == s &&
		!strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

// Text returns the release as it is signed, in its one spelling, or a
// BadRequest error that says what is wrong with it.
func (r Release) Text() ([]byte, error) {
	r = r.withDefaults()
	if err := r.check(); err != nil {
		return nil, err
	}
	text := []byte(releaseHeader + "\n")
	for _, f := range releaseFields {
		text = append(text, f.key...)
		text = append(text, ": "...)
		text = append(text, f.get(&r)...)
		text = append(text, '\n')
	}
	return text, nil
}

// ParseRelease reads what [Release.Text] wrote, and nothing else: what it
// returns has the same text again. Other text is a BadRequest error.
func ParseRelease(text []byte) (Release, error) {
	var r Release
	if len(text) > MaxNote {
		return r, policy.Errorf(policy.Exhausted, "release is %d bytes, the limit is %d", len(text), MaxNote)
	}
	lines := strings.Split(string(text), "\n")
	if lines[0] != releaseHeader {
		return r, policy.Errorf(policy.BadRequest, "release begins with %.100q, not with %q; it may be for a later version of microwall", lines[0], releaseHeader)
	}
	if len(lines) != 1+len(releaseFields)+1 || lines[len(lines)-1] != "" {
		return r, policy.Errorf(policy.BadRequest, "release has %d lines, not %d, each ended by a line feed", len(lines)-1, 1+len(releaseFields))
	}
	for i, f := range releaseFields {
		key, value, ok := strings.Cut(lines[1+i], ": ")
		if !ok || key != f.key {
			return Release{}, policy.Errorf(policy.BadRequest, "release, line %d: %.100q stands where %q must", 2+i, lines[1+i], f.key+": ")
		}
		if err := f.set(&r, value); err != nil {
			return Release{}, policy.Errorf(policy.BadRequest, "release, line %d, %s: %w", 2+i, f.key, err)
		}
	}
	again, err := r.Text()
	if err != nil {
		return Release{}, err
	}
	if string(again) != string(text) {
		return Release{}, policy.Errorf(policy.BadRequest, "release of %s is not in its one spelling; sign it with microwall", r.Namespace)
	}
	return r, nil
}

// releaseField is how one line is written and read. Reading may be lenient:
// the comparison after it is not.
type releaseField struct {
	key string
	get func(r *Release) string
	set func(r *Release, value string) error
}

var releaseFields = []releaseField{
	{"namespace",
		func(r *Release) string { return string(r.Namespace) },
		func(r *Release, v string) (err error) { r.Namespace, err = policy.ParseNamespace(v); return }},
	{"epoch",
		func(r *Release) string { return strconv.FormatUint(r.Epoch, 10) },
		func(r *Release, v string) (err error) { r.Epoch, err = parseCounter(v); return }},
	{"revision",
		func(r *Release) string { return strconv.FormatUint(r.Revision, 10) },
		func(r *Release, v string) (err error) { r.Revision, err = parseCounter(v); return }},
	{"previous",
		func(r *Release) string { return r.Previous.String() },
		func(r *Release, v string) error { return r.Previous.UnmarshalText([]byte(v)) }},
	{"bundle",
		func(r *Release) string { return r.Bundle.String() },
		func(r *Release, v string) error { return r.Bundle.UnmarshalText([]byte(v)) }},
	{"size",
		func(r *Release) string { return orNone(r.Size) },
		func(r *Release, v string) (err error) { r.Size, err = parseOrNone(v); return }},
	{"created",
		func(r *Release) string { return r.Created.Format(time.RFC3339) },
		func(r *Release, v string) (err error) { r.Created, err = time.Parse(time.RFC3339, v); return }},
	{"author",
		func(r *Release) string { return textOrNone(r.Author) },
		func(r *Release, v string) error { r.Author = fromNone(v); return nil }},
	{"source",
		func(r *Release) string { return textOrNone(r.Source) },
		func(r *Release, v string) error { r.Source = fromNone(v); return nil }},
	{"max-staleness",
		func(r *Release) string { return strconv.FormatInt(int64(r.MaxStaleness/time.Second), 10) + "s" },
		func(r *Release, v string) (err error) { r.MaxStaleness, err = parseSeconds(v); return }},
	{"when-stale",
		func(r *Release) string { return r.WhenStale.String() },
		func(r *Release, v string) (err error) { r.WhenStale, err = ParseWhenStale(v); return }},
	{"canary",
		func(r *Release) string { return orNone(int64(r.Canary)) },
		func(r *Release, v string) error { n, err := parseOrNone(v); r.Canary = int(n); return err }},
	{"patch",
		func(r *Release) string { return r.Patch.String() },
		func(r *Release, v string) error { return r.Patch.UnmarshalText([]byte(v)) }},
}

func parseCounter(v string) (uint64, error) { return strconv.ParseUint(v, 10, 63) }

func orNone(n int64) string {
	if n == 0 {
		return none
	}
	return strconv.FormatInt(n, 10)
}

func parseOrNone(v string) (int64, error) {
	if v == none {
		return 0, nil
	}
	return strconv.ParseInt(v, 10, 64)
}

func textOrNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

func fromNone(v string) string {
	if v == none {
		return ""
	}
	return v
}

func parseSeconds(v string) (time.Duration, error) {
	digits, ok := strings.CutSuffix(v, "s")
	seconds, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil {
		return 0, fmt.Errorf("%.100q is no number of seconds such as \"3600s\"", v)
	}
	return time.Duration(seconds) * time.Second, nil
}

// MaxNote is how many bytes a signed release has at most.
const MaxNote = 16 << 10

// Sign returns the release as a note with a signature of each signer. Where
// the trust file asks for several signatures, all signers must be there.
func Sign(r Release, signers ...note.Signer) ([]byte, error) {
	if len(signers) == 0 {
		return nil, policy.Errorf(policy.BadRequest, "nobody signs the release; name a key, for instance by --key")
	}
	text, err := r.Text()
	if err != nil {
		return nil, err
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, signers...)
	if err != nil {
		return nil, policy.Errorf(policy.Internal, "cannot sign %s: %w", r, err)
	}
	if len(signed) > MaxNote {
		return nil, policy.Errorf(policy.Exhausted, "signed release is %d bytes, the limit is %d; use fewer signers", len(signed), MaxNote)
	}
	return signed, nil
}
