// Package fleet has those who decide say, over NATS, what they decide by.
package fleet

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/report"
	"github.com/microwall/microwall/policy"
)

const (
	// interval is how often each report is sent again, and keep how long it
	// counts: two may be lost.
	interval = 30 * time.Second
	keep     = 3 * interval
	// settle is how long a change is waited upon: others follow it.
	settle = 200 * time.Millisecond
	// farewell bounds how long the last word may take.
	farewell = time.Second
)

// Config of [Run]. All fields are required but Software and After.
type Config struct {
	Conn *nats.Conn
	// As is the kind of principal whose connection it is.
	As     jetstream.Kind
	Domain string
	// Principal is that of the connection's credentials, and Instance the name of
	// this process: one label.
	Principal, Instance string
	Role, Software      string
	// State is reported on.
	State *live.Live
	// Changed receives when there may be something new to report.
	Changed <-chan struct{}
	// After is the clock; nil is [time.After].
	After func(time.Duration) <-chan time.Time
}

// Run reports on a state: what has changed soon after it has, and everything
// from time to time, until ctx ends. What cannot be sent is sent later. At the
// end it signs off: it says once more what decides, and that it has left. Then the
// connection may be closed.
func Run(ctx context.Context, c Config) {
	if c.After == nil {
		c.After = time.After
	}
	defer c.signOff()
	sent := map[policy.Namespace]report.Report{}
	for {
		clear(sent)
		c.send(sent, false)
		for again := c.After(interval/2 + rand.N(interval)); again != nil; { //nolint:gosec // it spreads load and keeps no secret
			select {
			case <-again:
				again = nil
			case <-c.Changed:
				select {
				case <-c.After(settle):
					c.send(sent, false)
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// signOff says that nobody has to wait for this instance any more, and by which
// releases it decided last. Without a connection it is only forgotten, later.
func (c *Config) signOff() {
	c.send(map[policy.Namespace]report.Report{}, true)
	if c.Conn.IsConnected() {
		_ = c.Conn.FlushTimeout(farewell) // what does not arrive is forgotten, later
	}
}

// send sends the reports that are not what was sent last.
func (c *Config) send(sent map[policy.Namespace]report.Report, left bool) {
	if !c.Conn.IsConnected() {
		return
	}
	now, trust := time.Now().UTC(), c.State.Trust().Version()
	for _, s := range c.State.Status() {
		r := reportOf(s)
		r.Role, r.Software, r.Trust, r.Sent, r.Left = c.Role, c.Software, trust, now, left
		if last, ok := sent[s.Namespace]; ok && r.Same(last) {
			continue
		}
		body, err := r.Encode()
		if err == nil {
			err = jetstream.SendStatus(c.Conn, c.As, c.Domain, jetstream.Status{Namespace: s.Namespace, Principal: c.Principal, Instance: c.Instance, Body: body}, keep)
		}
		if err != nil {
			return // the connection is gone; all is sent when it is back
		}
		sent[s.Namespace] = r
	}
}

// reportOf is what a state says of a namespace.
func reportOf(s live.Status) report.Report {
	r := report.Report{
		Epoch: s.Version.Epoch, Revision: s.Version.Revision, Digest: s.Version.Digest,
		Since: s.Since.UTC().Round(0), Proven: s.Proven, Stale: s.Stale,
	}
	if s.Refused != nil {
		r.Refused = s.Refused.Error()
	}
	return r
}

// OnNews returns a callback for events that hands them to next, which may be nil,
// and says in changed, which has room for one, when there is something new to
// report.
func OnNews(changed chan<- struct{}, next func(live.Event)) func(live.Event) {
	return func(e live.Event) {
		if next != nil {
			next(e)
		}
		switch e.(type) {
		case live.Activated, live.Refused, live.TrustChanged:
			select {
			case changed <- struct{}{}:
			default: // it is said already
			}
		}
	}
}
