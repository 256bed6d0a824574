package jetstream

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	neturl "net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/policy"
)

const (
	// pingInterval is how often a connection asks its server for a sign of life,
	// and maxPings how many of these questions may be open. So a server that hangs
	// is left after 10 to 15 s: with the third beacon that is missing. A thousand
	// clients cost a server about one hundredth of a core by it.
	pingInterval = 5 * time.Second
	maxPings     = 2
)

// ConnectOptions say how to connect. The zero value is usable.
type ConnectOptions struct {
	// Name of this client in the broker's own reports. Empty is "microwall".
	Name string
	// Credentials of the principal that connects. Zero shows none, and is what
	// brokers take that only this machine reaches.
	Credentials Credentials
	// TLS, if not nil, is insisted on: a broker without TLS is refused. So it is
	// if a URL begins with tls://. Nil takes the system's roots.
	TLS *tls.Config
	// Plaintext lets the connection leave this machine without TLS, in a mesh
	// that encrypts. Whoever is on the way could take the connection over: read
	// policies, and do in the broker what this principal may do there.
	Plaintext bool
	// InProcess, if not nil, is a broker inside this process: it is spoken to
	// without the network, and without TLS, whatever the URL.
	InProcess nats.InProcessConnProvider
	// Events is told about the connection; nil tells nobody.
	Events func(Event)
}

// Check refuses, with an error of kind [policy.BadRequest], what [Connect] would
// refuse for reasons of safety. It connects to nobody.
func (o ConnectOptions) Check(url string) error {
	if o.InProcess != nil || o.TLS != nil || asksForTLS(url) || o.Plaintext || !leavesMachine(url) {
		return nil
	}
	return policy.Errorf(policy.BadRequest, "the connection to NATS would leave this machine without TLS; write tls://HOST:PORT for each server, or allow plaintext in a mesh that encrypts (--allow-plaintext of serve, --plaintext of authorize, Plaintext in Go)")
}

// Connect connects to the broker at url (a comma separates several of one
// cluster). It returns a usable connection even if no broker is there yet; the
// connection is then made when one is, and made again, with another server if
// there are several, whenever it is lost or its server has not answered for 15 s:
// after a pause that differs from client to client, so that they do not come all at once. It
// tries each URL once, for two seconds at most, before it returns; ctx may cut
// that short. The caller closes the connection.
//
// A connection made here sends nothing later than when it was asked to: what is
// published while there is no connection fails at once, instead of reaching the
// broker when its author has already been told that it did not.
func Connect(ctx context.Context, url string, o ConnectOptions) (*nats.Conn, error) {
	if err := o.Check(url); err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "microwall"
	}
	events := o.Events
	if events == nil {
		events = func(Event) {}
	}
	way := &route{}
	connected := func(nc *nats.Conn) {
		way.connected(nc)
		events(Connected{URL: nc.ConnectedUrlRedacted()})
	}
	// What goes wrong after the dialling, in TLS say, nats.go has no callback for.
	var conn atomic.Pointer[nats.Conn]
	next := func(all []nats.Server, info nats.ServerInfo) (*nats.Server, time.Duration) {
		if nc := conn.Load(); nc != nil {
			go func() { // nats.go holds its lock here
				if err := nc.LastError(); err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
					events(BrokerError{Err: o.explain(err)})
				}
			}()
		}
		return way.next(all, info)
	}
	options := []nats.Option{
		nats.Name(o.Name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectToServer(next),
		nats.ReconnectBufSize(-1),
		nats.Timeout(2 * time.Second),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPings),
		nats.IgnoreAuthErrorAbort(),
		nats.ConnectHandler(connected),
		nats.ReconnectHandler(connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { events(Disconnected{Err: err}) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { events(BrokerError{Err: o.explain(err)}) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			// Whoever subscribed reports what was dropped.
			if !errors.Is(err, nats.ErrSlowConsumer) {
				events(BrokerError{Err: o.explain(err)})
			}
		}),
	}
	options = append(options, o.Credentials.Options()...)
	if o.InProcess != nil {
		options = append(options, nats.InProcessServer(o.InProcess))
	}
	switch {
	case o.InProcess != nil:
		url = strings.ReplaceAll(url, "tls://", "nats://") // there is no network to protect it from
	case o.TLS != nil:
		options = append(options, nats.Secure(o.TLS.Clone()))
	case asksForTLS(url):
		options = append(options, nats.Secure())
	case !o.Plaintext:
		// Servers tell of others, on other machines.
		options = append(options, nats.IgnoreDiscoveredServers())
	}

	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(url, options...)
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			// A URL that cannot be read is not repeated: it may hold a password.
			if bad, ok := errors.AsType[*neturl.Error](r.err); ok {
				return nil, policy.Errorf(policy.BadRequest, "the URL of NATS cannot be read: %w; it has the form nats://HOST:PORT", bad.Err)
			}
			return nil, policy.Errorf(policy.BadRequest, "cannot connect to NATS: %w; look at the URL, which has the form nats://HOST:PORT, and at the credentials", r.err)
		}
		conn.Store(r.nc)
		return r.nc, nil
	case <-ctx.Done():
		go func() {
			if r := <-done; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil, policy.Errorf(policy.Unavailable, "gave up connecting to NATS: %w", context.Cause(ctx))
	}
}

// Redacted returns the URLs of brokers without the passwords that may be in them.
func Redacted(list string) string {
	var all []string
	for _, u := range servers(list) {
		all = append(all, u.Redacted())
	}
	return strings.Join(all, ",")
}

// servers are the URLs in a list with commas between, those that can be read.
func servers(list string) (all []*neturl.URL) {
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		if u, err := neturl.Parse(one); err == nil {
			all = append(all, u)
		}
	}
	return all
}

// asksForTLS reports whether one of the URLs has a scheme of TLS.
func asksForTLS(list string) bool {
	return slices.ContainsFunc(servers(list), func(u *neturl.URL) bool { return u.Scheme == "tls" || u.Scheme == "wss" })
}

// leavesMachine reports whether one of the URLs is of another machine. Names
// other than localhost are not looked up.
func leavesMachine(list string) bool {
	return slices.ContainsFunc(servers(list), func(u *neturl.URL) bool {
		ip := net.ParseIP(u.Hostname())
		return u.Hostname() != "localhost" && u.Hostname() != "" && (ip == nil || !ip.IsLoopback())
	})
}

// backoff returns how long to wait after the nth failure in a row, counted from
// zero: 100 ms, doubled each time up to the given limit, and half more or less,
// so that many clients do not come back at once.
func backoff(n int, limit time.Duration) time.Duration {
	d := limit
	if n >= 0 && n < 20 {
		d = min(100*time.Millisecond<<n, limit)
	}
	return jitter(d)
}

// jitter returns a time between half of d and one and a half.
func jitter(d time.Duration) time.Duration {
	return d/2 + below(d)
}

// below returns a time from 0 to less than d.
func below(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d) //nolint:gosec // it spreads load and keeps no secret
}
