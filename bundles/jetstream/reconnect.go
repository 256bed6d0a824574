package jetstream

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// maxReconnectDelay bounds the pause between attempts to connect again.
const maxReconnectDelay = 5 * time.Second

// route is how a connection finds its way to a server again. nats.go on its own
// pauses only when all servers were tried: of a cluster of three, all clients of
// the one that is gone would be at the others at one moment.
type route struct {
	mu sync.Mutex
	at string // the URL of the server that it was connected to last
	// tried is how often each server was, since there was a connection. nats.go
	// counts as well, but forgets only what it counted of the server that it
	// reached: after an outage, the others would be avoided for as long as it took.
	tried map[string]int
}

// connected says that there is a connection, and where.
func (r *route) connected(nc *nats.Conn) {
	url := nc.ConnectedUrl()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tried = nil
	if url != "" { // it is not lost again already
		r.at = url
	}
}

// next returns the server to try next, and after which pause: one that was tried
// least since there was a connection, better another than the one that was lost,
// and any of those. The pause grows with every round.
func (r *route) next(servers []nats.Server, _ nats.ServerInfo) (*nats.Server, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rank := func(s *nats.Server) int {
		n := 2 * r.tried[s.URL.String()]
		if s.URL.String() == r.at {
			n++
		}
		return n
	}
	best := &servers[rand.IntN(len(servers))] //nolint:gosec // it spreads load and keeps no secret
	for i := range servers {
		if s := &servers[i]; rank(s) < rank(best) {
			best = s
		}
	}
	url := best.URL.String()
	before := r.tried[url]
	if r.tried == nil {
		r.tried = make(map[string]int, len(servers))
	}
	r.tried[url] = before + 1
	return best, backoff(before, maxReconnectDelay)
}
