package embedded

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/filewatch"
)

// filesInterval is how often files are looked at.
const filesInterval = 2 * time.Second

// followTrust puts in force what is pushed of the trust file, until stop is
// called, which waits, or ctx ends. It returns when the broker was asked once, so
// that releases are judged by the newest version.
func (c *Client) followTrust(ctx context.Context, conn *nats.Conn) (f *jetstream.TrustFollower, stop func(), err error) {
	f, err = jetstream.NewTrustFollower(jetstream.TrustFollowConfig{
		Conn: conn, As: jetstream.Client, Domain: c.live.Trust().Domain(), Mode: c.config.Mode.by, Poll: c.config.Mode.every, Events: c.config.OnNATS,
		Version: func() uint64 { return c.live.Trust().Version() }, Offer: c.live.OfferTrust,
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, end := context.WithCancel(ctx)
	var work sync.WaitGroup
	ended := make(chan struct{})
	work.Go(func() {
		defer close(ended)
		_ = f.Run(ctx) // it fails only with the connection, as everything then does
	})
	select {
	case <-f.Looked():
	case <-ended:
	case <-ctx.Done():
	}
	return f, func() { end(); work.Wait() }, nil
}

// watchTrust puts a changed trust file in force. One that cannot be read or is
// older is refused; what was in force stays.
func (c *Client) watchTrust(ctx context.Context, seen string) {
	ticker := time.NewTicker(filesInterval)
	defer ticker.Stop()
	filewatch.Run(ctx, []string{c.config.TrustFile}, seen, ticker.C, func() {
		trust, err := bundles.LoadTrust(c.config.TrustFile)
		if err == nil {
			err = c.live.SetTrust(trust)
		}
		if err != nil && c.config.OnRelease != nil {
			c.config.OnRelease(live.Refused{Err: fmt.Errorf("trust file: %w", err)})
		}
	})
}
