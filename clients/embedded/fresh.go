package embedded

import (
	"context"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
)

// fresh returns the snapshot by which requests are decided, as fresh as they ask
// for.
func (c *Client) fresh(ctx context.Context, rs ...policy.Request) (*live.Snapshot, error) {
	confirm := c.confirm
	if !c.config.Mode.listens() {
		confirm = nil
	}
	return live.Fresh(ctx, c.live, rs, confirm)
}

// confirm has a PDP say what the head of a namespace is, and takes that as a proof.
func (c *Client) confirm(ctx context.Context, n policy.Namespace) (policy.Version, error) {
	if err := c.live.Confirmable(n); err != nil {
		return policy.Version{}, err
	}
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return policy.Version{}, policy.Errorf(policy.Unavailable, "there is no connection to NATS yet, by which the head of %s could be confirmed; ask again", n)
	}
	asked := c.config.Now()
	note, err := jetstream.Confirm(ctx, conn, jetstream.Client, c.live.Trust().Domain(), n)
	if err != nil {
		if why := c.fault.Err(); why != nil && policy.KindOf(err) == policy.Unavailable {
			err = policy.Errorf(policy.Unavailable, "%v: %w", why, err)
		}
		return policy.Version{}, err
	}
	_, head, err := c.live.Confirmed(n, note, asked)
	if err != nil {
		return policy.Version{}, err
	}
	if err := c.live.Prove(note); policy.KindOf(err) == policy.Unavailable {
		// It has not arrived yet. It may also never have been pushed here.
		select {
		case c.behind <- struct{}{}:
		default: // it is asked for already
		}
	}
	return head, nil
}
