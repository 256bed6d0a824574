package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/filewatch"
	"github.com/microwall/microwall/policy"
)

// served is the folder that serve --dir decides by, and what is said of it.
type served struct {
	dir      string
	observer *observer
	folder   *live.Folder
	// Of the reload that runs or was the last one:
	activated []policy.Namespace
	refused   int
	// warned is what was said last of ancestors that bind nothing.
	warned map[policy.Namespace][]policy.Namespace
}

// startFolder decides by a folder.
func startFolder(ctx context.Context, f serveFlags, o *observer, run func(func(context.Context) error)) (*node, error) {
	o.log.Warn("DEVELOPMENT: deciding by unsigned files; whoever can write to the folder decides who may do what. Never in production", "dir", f.dir)
	if err := checkParent(f.dir); err != nil {
		return nil, err
	}
	s := &served{dir: f.dir, observer: o}
	seen := filewatch.Look(f.dir)
	var err error
	if s.folder, err = live.OpenFolder(ctx, f.dir, f.policy, s.event); err != nil {
		return nil, fmt.Errorf("--dir %s: %w", f.dir, err)
	}
	s.warnIdle()
	s.warnUnbound()
	if f.watch {
		run(func(ctx context.Context) error {
			ticker := time.NewTicker(look / 2)
			defer ticker.Stop()
			filewatch.Run(ctx, []string{f.dir}, seen, ticker.C, func() { s.reload(ctx) })
			return nil
		})
	}
	ready := make(chan struct{})
	close(ready)
	return &node{source: s.folder, ready: ready}, nil
}

// checkParent refuses what is not a folder of folders.
func checkParent(dir string) error {
	const wanted = "name one that holds a folder of policies for each namespace"
	switch info, err := os.Stat(dir); {
	case err != nil:
		return policy.Errorf(policy.BadRequest, "--dir: %w; %s", err, wanted)
	case !info.IsDir():
		return policy.Errorf(policy.BadRequest, "--dir %s is no folder; %s", dir, wanted)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return policy.Errorf(policy.BadRequest, "--dir: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); !e.IsDir() && (name == ".manifest" || filepath.Ext(name) == ".rego") {
			return policy.Errorf(policy.BadRequest, "--dir %s: this folder is a policy itself, as it holds %s; name its parent: --dir %s", dir, name, filepath.Join(dir, ".."))
		}
	}
	return nil
}

func (s *served) event(e live.Event) {
	switch e := e.(type) {
	case live.Activated:
		s.activated = append(s.activated, e.Version.Namespace)
	case live.Refused:
		s.refused++
	}
	s.observer.live(e)
}

// reload takes over what was changed. What of it was refused has been said.
func (s *served) reload(ctx context.Context) {
	s.activated, s.refused = nil, 0
	if err := s.folder.Reload(ctx); err != nil {
		s.observer.log.Error("folder was not taken over; what was before decides", "dir", s.dir, "error", err)
		return
	}
	if s.refused == 0 {
		s.observer.log.Info("folder taken over", "dir", s.dir)
	}
	s.warnUnbound()
}

// warnIdle says why nothing decides after the start, if nothing does.
func (s *served) warnIdle() {
	snapshot := s.folder.Snapshot()
	switch {
	case len(snapshot.Versions()) > 0:
	case len(s.activated) > 0: // each of them lacks a guardrail
		_, err := snapshot.Path(s.activated[0])
		s.observer.log.Warn("nothing decides yet", "dir", s.dir, "error", err)
	case s.refused > 0:
		s.observer.log.Warn("nothing decides yet: every policy in the folder was refused", "dir", s.dir)
	default:
		s.observer.log.Warn("nothing decides yet: the folder holds no folder with a policy, for instance " + filepath.Join(s.dir, "shop.cart", "authz.rego"))
	}
}

// warnUnbound says which policies lie above others and do not bind them: what
// was meant as a guardrail would be left out without a word. It says so again
// only when there is something new to say.
func (s *served) warnUnbound() {
	found := unbound(s.folder.Snapshot())
	if maps.EqualFunc(found, s.warned, slices.Equal) {
		return
	}
	s.warned = found
	for _, above := range slices.Sorted(maps.Keys(found)) {
		below := found[above]
		s.observer.log.Warn(fmt.Sprintf("%s lies above %s here and binds none of them: if it is a guardrail, name it as one in %s", above, plural(len(below), "namespace"), filepath.Join(s.dir, live.TrustFile)),
			"namespace", above, "folder", folderOfNamespace(s.dir, above), "below", strings.Join(texts(below), " "))
	}
}

func texts(all []policy.Namespace) []string {
	out := make([]string, len(all))
	for i, n := range all {
		out[i] = string(n)
	}
	return out
}

// unbound returns the namespaces that are above others and do not bind them,
// each with those.
func unbound(s *live.Snapshot) map[policy.Namespace][]policy.Namespace {
	found := make(map[policy.Namespace][]policy.Namespace)
	for _, v := range s.Versions() {
		path, err := s.Path(v.Namespace)
		if err != nil {
			continue
		}
		for _, above := range v.Namespace.Ancestors() {
			binds := slices.ContainsFunc(path.Versions(), func(b policy.Version) bool { return b.Namespace == above })
			// One that was refused is there, too.
			if _, err := s.Path(above); !binds && (err == nil || policy.KindOf(err) == policy.Unavailable) {
				found[above] = append(found[above], v.Namespace)
			}
		}
	}
	return found
}

// folderOfNamespace returns the folder below dir that is a namespace's, "" if
// none can be read as such.
func folderOfNamespace(dir string, n policy.Namespace) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Name() == string(n) {
			return path
		}
		if b, err := bundles.Read(os.DirFS(path)); e.IsDir() && err == nil && b.Namespace() == n {
			return path
		}
	}
	return ""
}
