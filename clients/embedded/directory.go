package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/filewatch"
	"github.com/microwall/microwall/policy"
)

// checkDirectory refuses what is no directory: a wrong path must not look like
// one where nothing was released yet.
func checkDirectory(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return policy.Errorf(policy.BadRequest, "directory of releases: %w", err)
	case !info.IsDir():
		return policy.Errorf(policy.BadRequest, "directory of releases: %s is none", dir)
	}
	return nil
}

// readDirectory brings releases from files until ctx ends.
func (c *Client) readDirectory(ctx context.Context) {
	ticker := time.NewTicker(filesInterval)
	defer ticker.Stop()
	for seen := ""; ; {
		namespaces := c.live.Namespaces()
		paths := make([]string, len(namespaces))
		for i, n := range namespaces {
			paths[i] = filepath.Join(c.config.Mode.dir, live.ReleaseFile(n))
		}
		// Looked at before they are read: a change in between is seen next time.
		if now := filewatch.Look(paths...); now != seen {
			seen = now
			for i, n := range namespaces {
				c.readFile(ctx, paths[i], n)
			}
		}
		c.allAsked()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-c.trustChanged:
			seen = "" // what the old trust file refused, the new one may open
		}
	}
}

// readFile offers the release in a file, as if it came from NATS. What becomes
// of it is an event.
func (c *Client) readFile(ctx context.Context, path string, n policy.Namespace) {
	sealed, err := live.ReadRelease(path, c.config.Bundles)
	if err == nil {
		_ = c.live.Offer(ctx, sealed.Note, func(context.Context) ([]byte, error) { return sealed.Packed, nil })
		return
	}
	if !errors.Is(err, fs.ErrNotExist) && c.config.OnRelease != nil {
		c.config.OnRelease(live.Refused{Namespace: n, Err: fmt.Errorf("release in the file %s: %w", path, err)})
	}
}
