package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

const (
	keptSuffix = ".release"
	trustName  = "trust.json"
)

// keep is the directory of the last good releases, one file a namespace: the
// bytes that were verified. With no directory it keeps nothing.
type keep struct {
	dir string
}

func openKeep(dir string) (*keep, error) {
	if dir == "" {
		return &keep{}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, policy.Errorf(policy.BadRequest, "directory for releases cannot be made: %w", err)
	}
	return &keep{dir}, nil
}

// kept is what trust.json says of the newest trust file that was in force.
type kept struct {
	Version uint64        `json:"version"`
	Epoch   uint64        `json:"epoch"`
	Digest  policy.Digest `json:"digest"`
}

// trust refuses a trust file that is older than one that was in force here, or
// another one under the same version, and remembers it otherwise.
func (k *keep) trust(t *bundles.Trust) error {
	if k.dir == "" {
		return nil
	}
	path := filepath.Join(k.dir, trustName)
	next := keptOf(t)
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return policy.Errorf(policy.BadRequest, "version of the last trust file: %w", err)
	default:
		var last kept
		if err := json.Unmarshal(raw, &last); err != nil {
			return policy.Errorf(policy.BadRequest, "%s is damaged (%w); remove it if you know that the trust file is the newest", path, err)
		}
		if last == next { // nothing to write, where there may be no room
			return nil
		}
		if err := newerTrust(last, next); err != nil {
			return err
		}
	}
	raw, err = json.Marshal(next)
	if err != nil {
		return err
	}
	if err := writeFile(path, raw); err != nil {
		return policy.Errorf(policy.Exhausted, "version of the trust file cannot be remembered: %w", err)
	}
	return nil
}

func keptOf(t *bundles.Trust) kept { return kept{t.Version(), t.Epoch(), t.Digest()} }

func newerTrust(last, next kept) error {
	if next.Version < last.Version {
		return policy.Errorf(policy.Denied, "trust file has version %d, but version %d was in force here; get the newest one", next.Version, last.Version)
	}
	if next.Epoch < last.Epoch {
		return policy.Errorf(policy.Denied, "trust file has epoch %d, but epoch %d was in force here; an epoch is only ever raised", next.Epoch, last.Epoch)
	}
	if next.Version == last.Version && next.Digest != last.Digest {
		return policy.Errorf(policy.Denied, "trust file has changed, but its version is still %d; raise it", next.Version)
	}
	return nil
}

// write replaces what is kept of a release's namespace.
func (k *keep) write(signed *bundles.Signed, packed []byte) error {
	if k.dir == "" {
		return nil
	}
	sealed := bundles.Sealed{Note: signed.Note(), Packed: packed}
	return writeFile(k.path(signed.Release().Namespace), sealed.Pieces()...)
}

func (k *keep) path(n policy.Namespace) string {
	return filepath.Join(k.dir, ReleaseFile(n))
}

// namespaces returns those of which a release is kept.
func (k *keep) namespaces() ([]policy.Namespace, error) {
	if k.dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "directory of releases: %w", err)
	}
	var all []policy.Namespace
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), keptSuffix)
		if !ok {
			continue
		}
		if n, err := policy.ParseNamespace(name); err == nil {
			all = append(all, n)
		}
	}
	return all, nil
}

// maxKept bounds what is read of one file: a packed bundle and its note.
func maxKept(l bundles.Limits) int64 { return l.WithDefaults().Packed + 1<<20 }

// read returns what is kept of a namespace.
func (k *keep) read(n policy.Namespace, limits bundles.Limits) (bundles.Sealed, error) {
	return ReadRelease(k.path(n), limits)
}

// ReleaseFile is the name of the file that keeps a release of a namespace.
func ReleaseFile(n policy.Namespace) string { return string(n) + keptSuffix }

// ReadRelease reads a file as it is kept in [Config].Dir: a signed release and its
// bundle. Nothing of it is verified; that is for [Live.Offer].
func ReadRelease(path string, limits bundles.Limits) (bundles.Sealed, error) {
	info, err := os.Stat(path)
	if err != nil {
		return bundles.Sealed{}, err
	}
	if info.Size() > maxKept(limits) {
		return bundles.Sealed{}, policy.Errorf(policy.Exhausted, "%s is %d bytes, more than a release can be", path, info.Size())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return bundles.Sealed{}, err
	}
	return bundles.ParseSealed(raw)
}

// writeFile replaces a file so that a crash leaves the old one or the new one:
// a new file, synced, renamed over it, and the rename synced.
func writeFile(path string, content ...[]byte) error { return replaceFile(path, true, content...) }

// replaceFile does so for a crash of the process. Only if it is to be durable is
// it synced, so that a crash of the machine leaves one of them, too.
func replaceFile(path string, durable bool, content ...[]byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	for _, piece := range content {
		if _, err := f.Write(piece); err != nil {
			return err
		}
	}
	if durable {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	if !durable {
		return nil
	}
	return syncDir(dir)
}
