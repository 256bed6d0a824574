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
	for _, step := range []struct {
		name   string
		change func()
		want   bool
	}{
		{"nothing", func() {}, false},
		{"content", func() { write(t, file, "three", 1) }, true},
		{"content of the same size and time", func() { write(t, file, "THREE", 1) }, true},
		{"time alone", func() { write(t, file, "three", 2) }, true},
		{"a new file", func() { write(t, filepath.Join(dir, "a", "b", "data.json"), "{}", 1) }, true},
		{"a hidden folder", func() { write(t, filepath.Join(dir, "a", ".git", "index"), "{}", 1) }, false},
		{"a file gone", func() { must(t, os.Rename(file, filepath.Join(aside, "gone"))) }, true},
		{"a link swapped", func() { must(t, os.Symlink("v2", link+"2")); must(t, os.Rename(link+"2", link)) }, true},
		{"everything gone", func() { must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(aside, "a"))) }, true},
	} {
		seen := filewatch.Look(paths...)
		step.change()
		tick := make(chan time.Time, 2) // two looks; the second finds nothing new
		tick <- time.Time{}
		tick <- time.Time{}
		close(tick)
		changes := 0
		filewatch.Run(t.Context(), paths, seen, tick, func() { changes++ })
		if (changes == 1) != step.want || changes > 1 {
			t.Errorf("%s: %d changes, want one: %v", step.name, changes, step.want)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	filewatch.Run(ctx, nil, "", make(chan time.Time), func() { t.Error("changed") })
}
