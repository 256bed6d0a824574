package live

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// NewLocal returns a snapshot of bundles that nobody signed, for developing and
// testing policies. guardrails are those of them that bind what is below them.
// Versions have epoch and revision 0 and the bundle's digest.
func NewLocal(ctx context.Context, all map[policy.Namespace]*bundles.Bundle, guardrails []policy.Namespace, o rego.Options) (*Snapshot, error) {
	units := make(map[policy.Namespace]unit, len(all))
	for n, b := range all {
		u, err := localUnit(ctx, n, b, o)
		if err != nil {
			return nil, fmt.Errorf("namespace %s: %w", n, err)
		}
		units[n] = u
	}
	return localSnapshot(units, guardrails, nil), nil
}

func localUnit(ctx context.Context, n policy.Namespace, b *bundles.Bundle, o rego.Options) (unit, error) {
	p, err := rego.Compile(ctx, SourceOf(b), o)
	return unit{version: policy.Version{Namespace: n, Digest: b.Digest()}, program: p}, err
}

// localSnapshot makes a snapshot in which faults say why a namespace has no
// unit.
func localSnapshot(units map[policy.Namespace]unit, guardrails []policy.Namespace, faults map[policy.Namespace]error) *Snapshot {
	all := func(policy.Namespace) bool { return true }
	return newSnapshot(0, units, all, func(n policy.Namespace) []policy.Namespace {
		return slices.DeleteFunc(n.Ancestors(), func(above policy.Namespace) bool { return !slices.Contains(guardrails, above) })
	}, func(n policy.Namespace) error {
		if err := faults[n]; err != nil {
			return policy.Errorf(policy.Unavailable, "namespace %s has never been good since the start: %w", n, err)
		}
		return policy.Errorf(policy.NotFound, "namespace %s has no folder here; there are %v", n, slices.Sorted(maps.Keys(units)))
	})
}

// TrustFile is the name of the trust file beside the folders of a [Folder].
const TrustFile = "trust.yaml"

// Folder decides by folders of policies as authors have them, one a namespace,
// without signatures. It is for local development: whoever can write to the
// folder decides. A trust.yaml beside the folders names the guardrails; without
// one there are none. It is safe for concurrent use.
type Folder struct {
	dir    string
	policy rego.Options
	events func(Event)

	mu    sync.Mutex // one reload at a time
	units map[policy.Namespace]unit
	names map[string]policy.Namespace // by folder
	newest
}

// OpenFolder returns the state of dir after its first [Folder.Reload]. Events
// may be nil. What does not compile is an event; the error is about dir itself.
func OpenFolder(ctx context.Context, dir string, o rego.Options, events func(Event)) (*Folder, error) {
	if events == nil {
		events = func(Event) {}
	}
	f := &Folder{dir: dir, policy: o, events: events, names: make(map[string]policy.Namespace)}
	f.replace(localSnapshot(nil, nil, nil))
	return f, f.Reload(ctx)
}

// Reload reads the folders again. One that does not compile is an event and
// keeps deciding as it last did; one that is gone decides no more. The error is
// about the directory or the trust file: then nothing changes.
func (f *Folder) Reload(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	guardrails, err := f.guardrails()
	if err != nil {
		return err
	}
	folders, err := f.folders()
	if err != nil {
		return err
	}
	units := make(map[policy.Namespace]unit, len(folders))
	faults := make(map[policy.Namespace]error)
	for n, folder := range folders {
		last, had := f.units[n]
		u, err := last, folder.err
		if err == nil && (!had || folder.bundle.Digest() != last.version.Digest) {
			if u, err = localUnit(ctx, n, folder.bundle, f.policy); err == nil {
				f.events(Activated{Version: u.version, Bundle: u.version.Digest, FromDisk: true})
			}
		}
		switch {
		case err == nil:
			units[n] = u
		case had:
			units[n] = last
		}
		if err != nil {
			faults[n] = fmt.Errorf("%s: %w", folder.path, err)
			f.events(Refused{Namespace: n, Err: faults[n]})
		}
	}
	f.units = units
	f.replace(localSnapshot(units, guardrails, faults))
	return nil
}

func (f *Folder) guardrails() ([]policy.Namespace, error) {
	path := filepath.Join(f.dir, TrustFile)
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return nil, nil
	}
	trust, err := bundles.LoadTrust(path)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(trust.Namespaces(), func(n policy.Namespace) bool { return !trust.IsGuardrail(n) }), nil
}

// folder is one that holds, or should hold, a namespace's policy.
type folder struct {
	path   string
	bundle *bundles.Bundle
	err    error // why there is no bundle
}

// folders returns the folder of each namespace: the one whose .manifest names
// it, else the one that is called after it. A folder that cannot be read just
// now is still that of the namespace that it was last.
func (f *Folder) folders() (map[policy.Namespace]folder, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "folder of policies: %w", err)
	}
	all := make(map[policy.Namespace]folder)
	for _, e := range entries {
		if !e.IsDir() || e.Name()[0] == '.' {
			continue
		}
		found := folder{path: filepath.Join(f.dir, e.Name())}
		if _, err := os.Stat(filepath.Join(found.path, TrustFile)); err == nil {
			return nil, policy.Errorf(policy.BadRequest, "%s has a %s, which would name no guardrail there; move it up, beside the folders: %s", found.path, TrustFile, filepath.Join(f.dir, TrustFile))
		}
		n := policy.Namespace(e.Name())
		found.bundle, found.err = bundles.Read(os.DirFS(found.path))
		switch last, ok := f.names[found.path]; {
		case found.err == nil && found.bundle.Namespace() != "":
			n = found.bundle.Namespace()
		case found.err != nil && ok:
			n = last
		}
		if _, err := policy.ParseNamespace(string(n)); err != nil {
			f.events(Refused{Err: fmt.Errorf("%s: name the folder after its namespace, or name the namespace in its .manifest: %w", found.path, err)})
			continue
		}
		if other, ok := all[n]; ok {
			return nil, policy.Errorf(policy.BadRequest, "%s and %s are both namespace %s; take one away, or name another namespace in its .manifest", other.path, found.path, n)
		}
		all[n] = found
		f.names[found.path] = n
	}
	return all, nil
}
