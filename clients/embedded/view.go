package embedded

import (
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
)

// view is what decides by one snapshot.
type view struct {
	of    *live.Snapshot
	sites map[policy.Namespace]*site
}

// site is what decides in one namespace, and what is known of its cost.
type site struct {
	path  *live.Path
	worth worth
}

// site returns what decides in a namespace by a snapshot. The error is the
// snapshot's.
func (c *Client) site(s *live.Snapshot, n policy.Namespace) (*site, error) {
	v := c.view.Load()
	if v == nil || v.of != s {
		v = newView(s, c.config.Namespaces)
		if s == c.live.Snapshot() { // or it would be replaced again at once
			c.view.Store(v)
		}
	}
	if at := v.sites[n]; at != nil {
		return at, nil
	}
	_, err := s.Path(n)
	return nil, err
}

// newView returns the view of a snapshot, which decides in no other namespaces.
func newView(s *live.Snapshot, namespaces []policy.Namespace) *view {
	v := &view{of: s, sites: make(map[policy.Namespace]*site, len(namespaces))}
	for _, n := range namespaces {
		if p, err := s.Path(n); err == nil {
			v.sites[n] = &site{path: p}
		}
	}
	return v
}
