// Package filewatch notices that files have changed. It looks at intervals
// rather than ask the system to be told: that works the same for editors that
// replace files, for mounted secrets that are swapped by a symbolic link, and
// for network file systems.
package filewatch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Run looks at paths at every tick and calls changed when something there is
// not as it was at the last look. A path may be a file or a folder, which is
// looked through; what is not there is one state of it. Run returns when ctx
// ends or tick is closed. seen is what [Look] returned before the files were last
// read, so that no change in between is missed.
func Run(ctx context.Context, paths []string, seen string, tick <-chan time.Time, changed func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-tick:
			if !ok {
				return
			}
		}
		if now := Look(paths...); now != seen {
			seen = now
			changed()
		}
	}
}

// maxRead is the size up to which content is compared: files of an image or a
// package store may change without their size and time doing so.
const maxRead = 1 << 20

// Look returns a text that differs when a name, size, mode or time of
// modification does, or the content of a file of at most 1 MiB.
func Look(paths ...string) string {
	var b strings.Builder
	for _, path := range paths {
		// A symbolic link to a folder is followed once, at the top.
		if target, err := filepath.EvalSymlinks(path); err == nil {
			fmt.Fprintf(&b, "%s -> %s\n", path, target)
			path = target
		}
		err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				fmt.Fprintf(&b, "%s %v\n", name, err)
				return nil
			}
			if d.IsDir() && name != path && strings.HasPrefix(d.Name(), ".") {
				return filepath.SkipDir
			}
			info, err := os.Stat(name)
			if err != nil {
				fmt.Fprintf(&b, "%s %v\n", name, err)
				return nil
			}
			if !info.IsDir() {
				fmt.Fprintf(&b, "%s %d %v %d %s\n", name, info.Size(), info.Mode(), info.ModTime().UnixNano(), sum(name, info))
			}
			return nil
		})
		if err != nil {
			fmt.Fprintf(&b, "%s %v\n", path, err)
		}
	}
	return b.String()
}

// sum returns the digest of a small regular file's content.
func sum(name string, info fs.FileInfo) string {
	if !info.Mode().IsRegular() || info.Size() > maxRead {
		return ""
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%x", sha256.Sum256(content))
}
