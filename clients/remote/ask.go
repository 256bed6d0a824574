package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/internal/mutant"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

func closing(p *pdp) bool { return p.conn.GetState() == connectivity.Shutdown }

// question is a request on its way: nothing of it changes when its caller is gone.
type question struct {
	namespace policy.Namespace
	message   *microwallv1.AuthorizeRequest
	// least is what the answer must be made by, as far as it is made by these
	// namespaces, and trust the version of the trust file.
	least []policy.Version
	trust uint64
	call  call
}

// askOne asks for the decision about a request, together with others who ask the
// same. s is what decides, as far as that is known, nil if it is not.
func (c *Client) askOne(ctx context.Context, r policy.Request, s *state, now time.Time) (policy.Decision, error) {
	seen, trust := c.known.seenOf(r.Namespace)
	least, err := leastOf(r.Freshness, seen)
	if err != nil {
		return policy.Decision{}, err
	}
	shared := c.caches && r.Freshness.IsZero()
	patient := r.Freshness.IsHead() || len(r.Freshness.Tokens()) > 0
	sent := r
	sent.Freshness = r.Freshness.NotBefore(seen...)
	m, err := wire.RequestProto(&sent)
	if err != nil {
		return policy.Decision{}, err
	}
	if err := c.enter(); err != nil {
		return policy.Decision{}, err
	}
	defer c.leave()
	c.asked.Add(1)
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	q := &question{namespace: r.Namespace, message: m, least: least, trust: trust, call: call{patient: patient}}
	q.call.until, _ = bounded.Deadline()

	var d policy.Decision
	led := true
	if shared {
		d, led, err = c.together(bounded, q, &r, s, seen, now)
	} else {
		d, err = c.ask(bounded, q)
	}
	if err != nil {
		c.failed.Add(1)
		return policy.Decision{}, c.ended(ctx, err)
	}
	if c.caches && led {
		c.file(&r, d)
	}
	return d, nil
}

// leastOf returns the versions that a decision must be made by, or newer ones.
func leastOf(f policy.Freshness, seen []policy.Version) ([]policy.Version, error) {
	least := slices.Concat(seen, f.Seen())
	for _, t := range f.Tokens() {
		v, err := t.Version()
		if err != nil {
			return nil, err
		}
		least = append(least, v)
	}
	return least, nil
}

// together asks by one call for all who wait for the same answer. It reports
// whether it was made by this one's request.
func (c *Client) together(ctx context.Context, q *question, r *policy.Request, s *state, seen []policy.Version, now time.Time) (_ policy.Decision, byThis bool, _ error) {
	led := false // no result: whoever gives up returns while it may still be written
	lead := func(ctx context.Context) (policy.Decision, error) {
		led = true
		return c.ask(ctx, q)
	}
	d, err := c.flight.Do(ctx, c.flightKey(r, s, seen, q.trust, now), c.timeout, lead)
	if ctx.Err() != nil && err != nil {
		return policy.Decision{}, false, err
	}
	if led || err != nil && policy.KindOf(err) == policy.Unavailable {
		return d, led, err
	}
	// Another one's answer is this one's if nothing that it was made by tells the two
	// apart; what another one's request is refused for may be its own fault.
	if err == nil && (s == nil || s.made(&d)) {
		return d, false, nil
	}
	d, err = c.ask(ctx, q)
	return d, true, err
}

// whole tells any two requests apart.
var whole = decisionkey.New("", nil, []policy.ReadPath{{}})

// flightKey says who may wait together: those who have one key by what decides,
// and have seen the same, so that nobody gets an answer of before that.
func (c *Client) flightKey(r *policy.Request, s *state, seen []policy.Version, trust uint64, now time.Time) []byte {
	layout := whole
	if s != nil {
		layout = s.layout
	}
	builder := c.keys.Get().(*decisionkey.Builder)
	defer c.keys.Put(builder)
	key := builder.Key(layout, r, now.Unix())
	all := binary.AppendUvarint(make([]byte, 0, len(key)+128), uint64(len(key)))
	all = append(all, key...)
	all = append(append(all, r.Namespace...), 0)
	all = binary.BigEndian.AppendUint64(all, trust)
	for _, v := range seen {
		all = append(append(all, v.Namespace...), 0)
		all = binary.BigEndian.AppendUint64(all, v.Epoch)
		all = binary.BigEndian.AppendUint64(all, v.Revision)
	}
	return all
}

// ask asks PDPs.
func (c *Client) ask(ctx context.Context, q *question) (d policy.Decision, err error) {
	var made *microwallv1.AuthorizeResponse
	p, err := c.pool.ask(ctx, q.call, func(ctx context.Context, p *pdp) error {
		made = new(microwallv1.AuthorizeResponse)
		if err := p.invoke(ctx, microwallv1.AuthorizationService_Authorize_FullMethodName, q.message, made); err != nil {
			return c.acceptError(err)
		}
		if d, err = readAnswer(q.namespace, made); err != nil {
			return senseless(p, err)
		}
		return c.accept(p, &d, q.trust, q.least)
	})
	if err != nil {
		return policy.Decision{}, failure(p, err)
	}
	return d, nil
}

// accept takes what a decision was made by, unless that is older than what is known to
// be there.
func (c *Client) accept(p *pdp, d *policy.Decision, trust uint64, least ...[]policy.Version) error {
	if d.Evaluation.Trust < trust {
		c.ignored.Add(1)
		return passedOver(fmt.Errorf("decides by version %d of the trust file, and version %d is known to be in force; ask again", d.Evaluation.Trust, trust))
	}
	for _, l := range least {
		held, want, behind := older(d.Versions, l)
		if !behind {
			continue
		}
		c.ignored.Add(1)
		return passedOver(fmt.Errorf("decides in %s by release %d of epoch %d, and release %d of epoch %d is known to be there; ask again", held.Namespace, held.Revision, held.Epoch, want.Revision, want.Epoch))
	}
	c.known.saw(d.Versions, d.Evaluation.Trust)
	return nil
}

// acceptError takes the versions that an error comes from: whoever is told that a
// namespace was retired, must not be answered by a release from before that.
func (c *Client) acceptError(err error) error {
	if a, ok := errors.AsType[*answer](err); ok {
		c.known.saw(a.by, 0)
	}
	return err
}

// file remembers a decision under the key of what it says it was made by. What is
// not known to be so is not remembered.
func (c *Client) file(r *policy.Request, d policy.Decision) {
	c.known.watch(r.Namespace)
	s := c.known.maker(r.Namespace, &d)
	if s == nil || d.StaleDenied {
		return
	}
	d.Stale = nil
	d.Versions = s.layout.Versions()
	at := d.Evaluation.Time
	if mutant.FiledByOwnClock {
		at = c.now().Unix()
	}
	builder := c.keys.Get().(*decisionkey.Builder)
	c.cache.Put(r.Namespace, builder.Key(s.layout, r, at), d)
	c.keys.Put(builder)
}

// senseless is the error for an answer that is none.
func senseless(p *pdp, err error) error {
	return policy.Errorf(policy.Internal, "%s sent no answer that makes sense: %w; see that it is a PDP, of a version that this client knows", p.name(), err)
}
