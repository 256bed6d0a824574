package jetstream

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// maxReconnectDelay bounds the pause between attempts to connect again.
const maxReconnectDelay = 5 * time.Second

// route is how a connection finds its way to a server again. nats.go on its own
// pauses only when all servers were tried: of a cluster of three, all clients of
// the one that is gone would be at the others at one moment.
type route struct {
	at atomic.Pointer[string] // the URL of the server that it was connected to last
}

// connected says that there is a connection, and where.
func (r *route) connected(nc *nats.Conn) {
	url := nc.ConnectedUrl()
	r.at.Store(&url)
}

// next returns the server to try next, and after which pause: one that was tried
// least since it last was there, better another than the one that was lost, and
// any of those. The pause grows with every round.
func (r *route) next(servers []nats.Server, _ nats.ServerInfo) (*nats.Server, time.Duration) {
	tried := func(s *nats.Server) int {
		n := 2 * s.Reconnects
		if at := r.at.Load(); at != nil && s.URL.String() == *at {
			n++
		}
		return n
	}
	best := &servers[rand.IntN(len(servers))] //nolint:gosec // it spreads load and keeps no secret
	for i := range servers {
		if s := &servers[i]; tried(s) < tried(best) {
			best = s
		}
	}
	return best, backoff(best.Reconnects, maxReconnectDelay)
}
