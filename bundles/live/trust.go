package live

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// A trust file comes to a process in two ways: from its own disk, where whoever
// runs it put one into place ([Config.Trust], [Live.SetTrust]), and signed by the
// roots of the version before, from wherever ([Live.OfferTrust]). The newest that
// was taken is in force. What was signed is kept, version by version, so that
// after a restart the file on disk, which may be years old, leads there again.

// OfferTrust takes a signed trust file that follows the one in force, see
// [bundles.Trust.Next], and puts it in force like [Live.SetTrust]. One that is
// refused changes nothing, and is an event. A version that is in force already is
// no error if it is the same file; a lower one, or another file under the same
// version, is a Conflict error.
func (l *Live) OfferTrust(note []byte) error {
	err := l.offerTrust(note)
	if err != nil {
		l.tell(Refused{Err: fmt.Errorf("trust file that was sent: %w", err)})
	}
	return err
}

func (l *Live) offerTrust(note []byte) error {
	l.trusting.Lock()
	defer l.trusting.Unlock()
	trust := l.Trust()
	next, err := trust.Next(note)
	if err != nil {
		if file, ferr := bundles.TrustFile(note); ferr == nil && policy.DigestOf(file) == trust.Digest() {
			l.wasPushed(trust, note)
			return nil
		}
		return err
	}
	dropped, err := l.setTrust(next)
	if err != nil {
		return err
	}
	l.wasPushed(next, note)
	// The mark that nothing older may go below is set only where the way there is
	// kept: it would keep this process from starting otherwise.
	notKept := l.keep.trustNote(next.Version(), note)
	if notKept == nil {
		notKept = l.keep.trust(next)
	}
	l.tell(TrustChanged{Version: next.Version(), Dropped: dropped, NotKept: notKept})
	return nil
}

// PushedTrust returns the newest version of the trust file that was in force here
// and is known to have been pushed, so that others can have it; 0 if there is
// none. It is what beacons say, see [bundles.Beacon].
func (l *Live) PushedTrust() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pushed
}

// wasPushed remembers that a trust file was pushed, if the note is one of it.
func (l *Live) wasPushed(t *bundles.Trust, note []byte) {
	if t.Confirm(note) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pushed = max(l.pushed, t.Version())
}

// OnTrust passes events on to to, which may be nil, and sends on changed, which
// has room for one, when another trust file is in force: what it opens may be
// offered again then, and other guardrails be followed.
func OnTrust(changed chan<- struct{}, to func(Event)) func(Event) {
	return func(e Event) {
		if to != nil {
			to(e)
		}
		if _, ok := e.(TrustChanged); ok {
			select {
			case changed <- struct{}{}:
			default: // it is to be looked at already
			}
		}
	}
}

// trustNotePath is where a signed trust file is kept.
func (k *keep) trustNotePath(version uint64) string {
	return filepath.Join(k.dir, "trust."+strconv.FormatUint(version, 10)+".note")
}

// trustNote keeps a signed trust file.
func (k *keep) trustNote(version uint64, note []byte) error {
	if k.dir == "" {
		return nil
	}
	if err := writeFile(k.trustNotePath(version), note); err != nil {
		return policy.Errorf(policy.Exhausted, "signed trust file cannot be kept: %w", err)
	}
	return nil
}

// maxTrustNote is more than a signed trust file has.
const maxTrustNote = 2 << 20

// newestTrust follows what is kept from a trust file on, version by version, each
// verified by the one before it. The error says why it went no further; a version
// that is not there is none.
func (k *keep) newestTrust(from *bundles.Trust) (*bundles.Trust, error) {
	if k.dir == "" {
		return from, nil
	}
	for {
		note, err := k.readTrustNote(from.Version() + 1)
		if errors.Is(err, fs.ErrNotExist) {
			return from, nil
		}
		if err != nil {
			return from, err
		}
		next, err := from.Next(note)
		if err != nil {
			return from, fmt.Errorf("%s: %w", k.trustNotePath(from.Version()+1), err)
		}
		from = next
	}
}

// readTrustNote returns what is kept of a version.
func (k *keep) readTrustNote(version uint64) ([]byte, error) {
	path := k.trustNotePath(version)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxTrustNote {
		return nil, policy.Errorf(policy.Exhausted, "%s is %d bytes, more than a signed trust file has", path, info.Size())
	}
	return os.ReadFile(path)
}
