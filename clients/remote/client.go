package remote

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/internal/dial"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
)

// Config of a [Client]. Its zero value asks the PDP on this machine.
type Config struct {
	// Servers are the PDPs, HOST:PORT each, which decide the same. Calls are spread
	// over those that answer. None is 127.0.0.1:7070.
	Servers []string
	// CA is a PEM file with the certificates of the authorities that a PDP's
	// certificate is checked with. With "" a PDP on loopback is asked in
	// plaintext, any other by TLS with the system's authorities.
	CA string
	// Cert and CertKey are PEM files with the certificate that is shown to
	// PDPs and its key; both "" shows none. All three files are read again for
	// each connection.
	Cert, CertKey string
	// Plaintext allows plaintext to a PDP beyond loopback: for a network that
	// encrypts on its own, such as a mesh.
	Plaintext bool
	// Timeout of a call whose context has no deadline, and of one that several
	// callers wait for. Zero is five seconds.
	Timeout time.Duration
	// InFlight is how many calls wait for PDPs at once; more are refused at once.
	// Zero is 4,096.
	InFlight int
	// Limits on requests, checked before a PDP is asked. PDPs have their own.
	Limits policy.Limits
	// Namespaces that are asked about, usually the service's one: what decides
	// there is watched from the start. Others are watched once they were asked
	// about, up to 1,000 together.
	Namespaces []policy.Namespace
	// Cache bounds the decision cache. One that keeps none has nothing watched.
	Cache cache.Config
	// Now is the clock that decisions are looked up with; nil is time.Now.
	Now func() time.Time
}

// Client asks PDPs, and remembers what they decided. It is safe for concurrent
// use.
type Client struct {
	timeout  time.Duration
	limits   policy.Limits
	inFlight int64
	caches   bool
	now      func() time.Time

	pool    *pool
	known   *known
	watcher *watcher
	cache   *cache.Cache
	flight  cache.Flight
	keys    sync.Pool // of *decisionkey.Builder

	stop                   context.CancelFunc
	work                   sync.WaitGroup
	asked, failed, ignored atomic.Uint64
	waiting                atomic.Int64
}

var _ policy.Authorizer = (*Client)(nil)

// New returns a client. It begins to connect and does not wait for that: a PDP
// that is not there yet is found when it comes. The error is about config, or
// ctx's if that has ended.
func New(ctx context.Context, config Config) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	pool, err := config.dial()
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{
		timeout: config.Timeout, limits: config.Limits, inFlight: int64(config.InFlight), caches: config.Cache.Entries >= 0 && config.Cache.Bytes >= 0, now: config.Now,
		pool: pool, known: newKnown(), cache: cache.New(config.Cache), stop: stop,
		keys: sync.Pool{New: func() any { return new(decisionkey.Builder) }},
	}
	c.watcher = &watcher{pool: pool, known: c.known, now: c.now}
	c.work.Go(func() { pool.run(running) })
	if c.caches {
		for _, n := range config.Namespaces {
			c.known.watch(n)
		}
		c.work.Go(func() { c.watcher.run(running) })
	}
	return c, nil
}

func (c Config) withDefaults() Config {
	if len(c.Servers) == 0 {
		c.Servers = []string{dial.DefaultServer}
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.InFlight == 0 {
		c.InFlight = 4096
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) check() error {
	if n := len(c.Namespaces); n > maxWatched {
		return policy.Errorf(policy.BadRequest, "Config.Namespaces names %d namespaces, and %d can be watched; name those that are asked about most", n, maxWatched)
	}
	for _, n := range c.Namespaces {
		if _, err := policy.ParseNamespace(string(n)); err != nil {
			return policy.Errorf(policy.BadRequest, "Config.Namespaces: %w", err)
		}
	}
	for i, server := range c.Servers {
		if slices.Contains(c.Servers[:i], server) {
			return policy.Errorf(policy.BadRequest, "Config.Servers names %s twice; name each PDP once", server)
		}
	}
	return nil
}

// dial returns connections to all PDPs.
func (c Config) dial() (*pool, error) {
	o := &pool{}
	for _, server := range c.Servers {
		conn, err := dial.Dial(dial.Config{
			Server: server, CA: c.CA, Cert: c.Cert, CertKey: c.CertKey, Plaintext: c.Plaintext,
		}, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage(c.Limits))))
		if err != nil {
			return nil, errors.Join(err, o.close())
		}
		o.pdps = append(o.pdps, &pdp{server: server, conn: conn})
	}
	return o, nil
}

// close closes all connections.
func (o *pool) close() (err error) {
	for _, p := range o.pdps {
		if e := p.conn.Close(); e != nil && status.Code(e) != codes.Canceled { // closed before
			err = errors.Join(err, e)
		}
	}
	return err
}

// Close ends the calls that are under way, with errors of kind
// policy.Unavailable, forgets all decisions, and closes the connections. When it
// returns, nothing of the client runs any more. It may be called twice.
func (c *Client) Close() error {
	c.stop()
	c.known.close()
	err := c.pool.close()
	c.work.Wait()
	c.flight.Wait()
	return err
}

// Authorize hands out the decision that was made before for the same question, if
// what made it still decides, or asks a PDP.
//
// What a PDP would refuse as a bad request is refused here, as far as that
// can be seen. An error that a PDP gave has the kind that it had there.
// policy.Unavailable means that none could be reached, none did answer within
// Config.Timeout, or all are behind what is known here already. If ctx ended
// first the error is that of ctx, for errors.Is to find.
func (c *Client) Authorize(ctx context.Context, r policy.Request) (d policy.Decision, err error) {
	defer crashed(&d, &err)
	if err := c.limits.Check(&r); err != nil {
		return policy.Decision{}, err
	}
	now := c.now()
	d, s, ok := c.look(&r, now)
	if ok && !s.stale(now) && !c.watcher.deaf() {
		return d, nil
	}
	answered, err := c.askOne(ctx, r, s, now)
	if err == nil || !ok || !unreached(err) {
		return answered, err
	}
	// Nobody knows better; unless it was seen meanwhile that somebody does.
	if last := c.known.current(r.Namespace); last != nil && last.layout == s.layout {
		return last.judge(d, c.now()), nil
	}
	return policy.Decision{}, err
}

// crashed makes an error of a panic: nothing that a request brings along ends its
// caller.
func crashed(d *policy.Decision, err *error) {
	if r := recover(); r != nil {
		*d, *err = policy.Decision{}, crash(r)
	}
}

func crash(r any) error {
	return policy.Errorf(policy.Internal, "deciding crashed: %v\n%s", r, debug.Stack())
}

// unreached reports whether an error says that there was no answer: then what is
// remembered counts, for as long as it is believed.
func unreached(err error) bool {
	kind := policy.KindOf(err)
	return kind == policy.Unavailable || kind == policy.Exhausted || errors.Is(err, context.DeadlineExceeded)
}

// look returns the decision that was made for a request by what decides in its
// namespace, if that is known, and is what the request asks for. Whether it is
// stale is for the caller to work out.
func (c *Client) look(r *policy.Request, now time.Time) (d policy.Decision, s *state, ok bool) {
	s = c.known.current(r.Namespace)
	if s == nil {
		return policy.Decision{}, nil, false
	}
	if !r.Freshness.IsZero() && !s.satisfies(r.Freshness) {
		return policy.Decision{}, s, false
	}
	builder := c.keys.Get().(*decisionkey.Builder)
	d, ok = c.cache.Get(r.Namespace, builder.Key(s.layout, r, now.Unix()))
	c.keys.Put(builder)
	return d, s, ok
}

// satisfies reports whether it is certain that what decides is what is asked for.
func (s *state) satisfies(f policy.Freshness) bool {
	versions := s.layout.Versions()
	if _, _, behind := older(versions, f.Seen()); behind || f.IsHead() {
		return false
	}
	for _, t := range f.Tokens() {
		want, err := t.Version()
		if err != nil || !slices.ContainsFunc(versions, func(v policy.Version) bool {
			return v.Namespace == want.Namespace && v.Epoch == want.Epoch && v.Reaches(want)
		}) {
			return false
		}
	}
	return true
}

// enter counts a call that waits for a PDP, until leave. Too many are refused.
func (c *Client) enter() error {
	if n := c.waiting.Add(1); n > c.inFlight {
		c.waiting.Add(-1)
		return policy.Errorf(policy.Exhausted, "%d calls wait for PDPs already; ask again later, or raise Config.InFlight", c.inFlight)
	}
	return nil
}

func (c *Client) leave() { c.waiting.Add(-1) }

// bounded gives a call a deadline if its caller has set none.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// peer is how messages call all PDPs.
func (c *Client) peer() string {
	if len(c.pool.pdps) == 1 {
		return c.pool.pdps[0].name()
	}
	servers := make([]string, len(c.pool.pdps))
	for i, p := range c.pool.pdps {
		servers[i] = p.server
	}
	return "PDPs at " + strings.Join(servers, ", ")
}

// ended tells the end of a call to the caller whose ctx it is, whoever's deadline
// it was.
func (c *Client) ended(ctx context.Context, err error) error {
	_, own := ctx.Deadline()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s was asked: %w", c.peer(), ctx.Err())
	case !policy.Ended(err):
		return err
	case own && errors.Is(err, context.DeadlineExceeded): // the PDP's clock was faster
		return err
	case own:
		return fmt.Errorf("%s was asked: %w", c.peer(), context.DeadlineExceeded)
	}
	return policy.Errorf(policy.Unavailable, "%s did not answer within %s (%v); ask again, or give the call a longer deadline", c.peer(), c.timeout, err)
}

// failure reads the error by which asking ended.
func failure(p *pdp, err error) error {
	if p == nil {
		return err
	}
	a, itself := errors.AsType[*answer](err)
	if itself {
		err = a.error
	}
	switch code := status.Code(err); {
	case code == codes.DeadlineExceeded && itself: // it says what it has waited for
		return fmt.Errorf("%s was asked: %s: %w", p.name(), wire.Message(status.Convert(err).Message()), context.DeadlineExceeded)
	case code == codes.DeadlineExceeded:
		return fmt.Errorf("%s was asked: %w", p.name(), context.DeadlineExceeded)
	case code == codes.Canceled && closing(p):
		return policy.Errorf(policy.Unavailable, "client of the %s is closed; make a new one", p.name())
	case code == codes.Canceled:
		return policy.Errorf(policy.Unavailable, "%s cancelled the call; ask again", p.name())
	}
	return wire.Error(p.name(), err)
}
