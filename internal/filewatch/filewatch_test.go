package filewatch_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/filewatch"
)

func TestChangesAreNoticed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a", "policy.rego")
	link := filepath.Join(dir, "current")
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Every change is one rename: a look sees it whole or not at all.
	aside := t.TempDir()
	write := func(t *testing.T, path, content string, at int64) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		temp := filepath.Join(aside, "temp")
		must(t, os.WriteFile(temp, []byte(content), 0o600))
		must(t, os.Chtimes(temp, time.Unix(at, 0), time.Unix(at, 0)))
		must(t, os.Rename(temp, path))
	}
	write(t, file, "one", 1)
	write(t, filepath.Join(dir, "v1", "cert.pem"), "1", 1)
	write(t, filepath.Join(dir, "v2", "cert.pem"), "1", 1)
	must(t, os.Symlink("v1", link))

	paths := []string{filepath.Join(dir, "a"), link}
	tick := make(chan time.Time)
	changes := 0
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	seen := filewatch.Look(paths...)
	go func() {
		defer close(done)
		filewatch.Run(ctx, paths, seen, tick, func() { changes++ })
	}()
	look := func() { tick <- time.Time{}; tick <- time.Time{} } // the second is taken when the first was dealt with
	for _, step := range []struct {
		name   string
		change func()
		want   int
	}{
		{"nothing", func() {}, 0},
		{"content", func() { write(t, file, "three", 1) }, 1},
		{"time alone", func() { write(t, file, "three", 2) }, 2},
		{"a new file", func() { write(t, filepath.Join(dir, "a", "b", "data.json"), "{}", 1) }, 3},
		{"a hidden folder", func() { write(t, filepath.Join(dir, "a", ".git", "index"), "{}", 1) }, 3},
		{"a file gone", func() { must(t, os.Rename(file, filepath.Join(aside, "gone"))) }, 4},
		{"a link swapped", func() { must(t, os.Symlink("v2", link+"2")); must(t, os.Rename(link+"2", link)) }, 5},
		{"everything gone", func() { must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(aside, "a"))) }, 6},
	} {
		step.change()
		look()
		if changes != step.want {
			t.Errorf("%s: %d changes, want %d", step.name, changes, step.want)
		}
	}
	cancel()
	<-done
}
