package bundles

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/policy"
)

const (
	beaconHeader = "microwall beacon v1"
	// beaconTime is RFC 3339 with exactly three digits of the second, in UTC.
	beaconTime = "2006-01-02T15:04:05.000Z"
)

// Beacon is the statement that at a time these releases were the heads of their
// namespaces. As a value it is only somebody's word: what was signed is a
// [SignedBeacon].
type Beacon struct {
	// Domain is the trust domain that it is about.
	Domain string
	// Time is when the issuer began to look: every release that was the head
	// before is one of Heads or was followed by one of them. It is written in
	// UTC; what is less than a millisecond is dropped.
	Time time.Time
	// Trust is the newest version of the trust file that had been pushed then; 0
	// if none was. Who has an older one in force does not know whom to believe,
	// and can prove nothing by the beacon.
	Trust uint64
	// Heads that it speaks of, each namespace once. Of others it says nothing:
	// neither that they have a head, nor that they have none.
	Heads []policy.Version
}

// check returns nil if b is a beacon whose time and heads are as they are
// written.
func (b Beacon) check() error {
	fault := ""
	if ns, err := policy.ParseNamespace(b.Domain); err != nil || ns.Parent() != "" {
		fault = fmt.Sprintf("domain %.200q must be one label", b.Domain)
	} else if b.Time.Year() < 1970 || b.Time.Year() > 9999 {
		fault = "time is missing, or no time between 1970 and 9999"
	} else if b.Trust>>63 != 0 {
		fault = "version of the trust file must be below 2^63"
	}
	for i, h := range b.Heads {
		switch _, err := policy.ParseNamespace(string(h.Namespace)); {
		case fault != "":
		case err != nil:
			return err
		case h.Namespace.Domain() != b.Domain:
			fault = fmt.Sprintf("namespace %s is not in the domain %s", h.Namespace, b.Domain)
		case i > 0 && b.Heads[i-1].Namespace >= h.Namespace:
			fault = fmt.Sprintf("head of %s is there twice, or out of order", h.Namespace)
		case h.Epoch < 1 || h.Epoch>>63 != 0 || h.Revision < 1 || h.Revision>>63 != 0:
			fault = fmt.Sprintf("epoch and revision of %s must be at least 1 and below 2^63", h.Namespace)
		case h.Digest.IsZero():
			fault = fmt.Sprintf("head of %s has no digest", h.Namespace)
		}
	}
	if fault != "" {
		return policy.Errorf(policy.BadRequest, "beacon: %s", fault)
	}
	return nil
}

// Text returns the beacon as it is signed, in its one spelling, or a BadRequest
// error that says what is wrong with it.
func (b Beacon) Text() ([]byte, error) {
	b.Time = b.Time.UTC().Truncate(time.Millisecond)
	b.Heads = slices.SortedFunc(slices.Values(b.Heads), func(v, w policy.Version) int { return cmp.Compare(v.Namespace, w.Namespace) })
	if err := b.check(); err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, "%s\ndomain: %s\ntime: %s\ntrust: %s\n", beaconHeader, b.Domain, b.Time.Format(beaconTime), orNone(int64(b.Trust))) //nolint:gosec // G115: it was checked
	for _, h := range b.Heads {
		text = fmt.Appendf(text, "head: %s %d %d %s\n", h.Namespace, h.Epoch, h.Revision, h.Digest)
	}
	return text, nil
}

// ParseBeacon reads what [Beacon.Text] wrote, and nothing else: what it returns
// has the same text again. Other text is a BadRequest error.
func ParseBeacon(text []byte) (Beacon, error) {
	var b Beacon
	if len(text) > MaxNote {
		return b, policy.Errorf(policy.Exhausted, "beacon is %d bytes, the limit is %d", len(text), MaxNote)
	}
	lines := strings.Split(string(text), "\n")
	if lines[0] != beaconHeader {
		return b, policy.Errorf(policy.BadRequest, "beacon begins with %.100q, not with %q; it may be for a later version of microwall", lines[0], beaconHeader)
	}
	for i, line := range lines[1:max(1, len(lines)-1)] {
		key, value, _ := strings.Cut(line, ": ")
		var err error
		switch {
		case i == 0 && key == "domain":
			b.Domain = value
		case i == 1 && key == "time":
			b.Time, err = time.Parse(beaconTime, value)
		case i == 2 && key == "trust":
			if value != none {
				b.Trust, err = parseCounter(value)
			}
		case i > 2 && key == "head":
			var h policy.Version
			h, err = parseHead(value)
			b.Heads = append(b.Heads, h)
		default:
			err = errors.New("it does not belong there")
		}
		if err != nil {
			return Beacon{}, policy.Errorf(policy.BadRequest, "beacon, line %d, %.100q: %w", 2+i, line, err)
		}
	}
	again, err := b.Text()
	if err != nil {
		return Beacon{}, err
	}
	if string(again) != string(text) {
		return Beacon{}, policy.Errorf(policy.BadRequest, "beacon of %s is not in its one spelling; sign it with microwall", b.Domain)
	}
	return b, nil
}

// parseHead may be lenient: the comparison after it is not.
func parseHead(s string) (h policy.Version, err error) {
	fields := strings.Split(s, " ")
	if len(fields) != 4 {
		return h, errors.New("a head is namespace, epoch, revision and digest")
	}
	h.Namespace = policy.Namespace(fields[0])
	if h.Epoch, err = parseCounter(fields[1]); err != nil {
		return h, err
	}
	if h.Revision, err = parseCounter(fields[2]); err != nil {
		return h, err
	}
	h.Digest, err = policy.ParseDigest(fields[3])
	return h, err
}

// SignBeacon returns the beacon as a note signed by its issuer.
func SignBeacon(b Beacon, issuer note.Signer) ([]byte, error) {
	text, err := b.Text()
	if err != nil {
		return nil, err
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, issuer)
	if err != nil {
		return nil, policy.Errorf(policy.Internal, "cannot sign the beacon: %w", err)
	}
	if len(signed) > MaxNote {
		return nil, policy.Errorf(policy.Exhausted, "signed beacon is %d bytes, the limit is %d; let it speak of fewer namespaces", len(signed), MaxNote)
	}
	return signed, nil
}

// SignedBeacon is a beacon whose signature was verified. Only
// [Trust.OpenBeacon] makes one. It is immutable.
type SignedBeacon struct {
	beacon Beacon
	note   []byte
	issuer string
}

// Time returns when its heads were the heads.
func (s *SignedBeacon) Time() time.Time { return s.beacon.Time }

// Trust returns the newest version of the trust file that had been pushed then; 0
// if none was.
func (s *SignedBeacon) Trust() uint64 { return s.beacon.Trust }

// Head returns the head of a namespace; false if the beacon does not speak of
// it.
func (s *SignedBeacon) Head(ns policy.Namespace) (policy.Version, bool) {
	i, found := slices.BinarySearchFunc(s.beacon.Heads, ns, func(v policy.Version, ns policy.Namespace) int { return cmp.Compare(v.Namespace, ns) })
	if !found {
		return policy.Version{}, false
	}
	return s.beacon.Heads[i], true
}

// Heads returns all heads that it speaks of, sorted by namespace. They must not
// be changed.
func (s *SignedBeacon) Heads() []policy.Version { return s.beacon.Heads }

// Note returns the bytes that were verified, to be kept or passed on. They must
// not be changed.
func (s *SignedBeacon) Note() []byte { return s.note }

// Issuer returns the name of the key that signed.
func (s *SignedBeacon) Issuer() string { return s.issuer }

// OpenBeacon verifies a signed beacon: it is of this domain and one of the keys
// that the trust file lists under beacons has signed it. A beacon that is not
// trusted is a Denied error, a note that is none, or no beacon, a BadRequest
// error.
func (t *Trust) OpenBeacon(signed []byte) (*SignedBeacon, error) {
	text, err := readNote(signed, "beacon", MaxNote)
	if err != nil {
		return nil, err
	}
	b, err := ParseBeacon([]byte(text))
	if err != nil {
		return nil, err
	}
	if b.Domain != t.domain {
		return nil, policy.Errorf(policy.Denied, "beacon is of the domain %s, the trust file of %s", b.Domain, t.domain)
	}
	found, err := t.count(signed, text, quorum{t.beacons, 1})
	if err != nil {
		return nil, policy.Errorf(policy.Denied, "beacon of %s is not trusted: %w", b.Domain, err)
	}
	if len(found.signed) == 0 {
		return nil, policy.Errorf(policy.Denied, "beacon of %s is not trusted: none of the keys that the trust file lists under beacons has signed it", b.Domain)
	}
	return &SignedBeacon{beacon: b, note: slices.Clone(signed), issuer: found.signed[0]}, nil
}
