package embedded

import (
	"path/filepath"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

// Mode is how a client hears of releases: [Push], [Poll], [Once] or [Directory].
// The zero value is Push.
//
// No mode makes a release believed for longer: without beacons, which NATS
// brings, a release that says `when-stale: deny` denies once its max-staleness is
// over.
type Mode struct {
	by    jetstream.Mode
	every time.Duration // of Poll
	dir   string        // of Directory
}

// Push is to be told of releases over NATS as they are made, and to ask every
// half a minute or so, as a message may get lost.
func Push() Mode { return Mode{} }

// Poll is to ask NATS every so often, half of that more or less, and to subscribe
// to nothing. Zero is [jetstream.DefaultPoll]. For beacons to prove anything it
// must be well below the namespaces' max-staleness.
func Poll(every time.Duration) Mode { return Mode{by: jetstream.ByPoll, every: every} }

// Once is to ask NATS at the start, until it has answered, and then to leave it
// alone: what is released later is for the next start.
func Once() Mode { return Mode{by: jetstream.ByAsking} }

// Directory is to do without NATS. The newest release of each namespace is in a
// file of the directory that is called as the namespace, with ".release" behind:
// as `microwall push --sign-only -o` writes it, or as a client or a PDP that is on
// NATS keeps it in its own [Config].Dir. Files are looked at every two seconds,
// and verified like all else; put them there by renaming, as half a file is
// refused. Nothing is ever written there.
func Directory(dir string) Mode { return Mode{dir: dir} }

// listens reports whether the client can be told of releases once it has started.
func (m Mode) listens() bool { return m.dir == "" && m.by != jetstream.ByAsking }

// String returns "push", "poll", "once" or "directory".
func (m Mode) String() string {
	switch {
	case m.dir != "":
		return "directory"
	case m.by == jetstream.ByPoll:
		return "poll"
	case m.by == jetstream.ByAsking:
		return "once"
	}
	return "push"
}

// check refuses what does not go together.
func (m Mode) check(c Config) error {
	switch {
	case m.every < 0:
		return policy.Errorf(policy.BadRequest, "mode polls every %s; it cannot be negative", m.every)
	case m.dir == "" && c.NATS == "":
		return policy.Errorf(policy.BadRequest, "no NATS server: name one in Config.NATS, for instance nats://127.0.0.1:4222, or a directory of releases: Mode: embedded.Directory(DIR)")
	case m.dir != "" && (c.NATS != "" || c.Credentials != "" || c.TLS != nil || c.Plaintext):
		return policy.Errorf(policy.BadRequest, "Config speaks of NATS, and the mode is a directory without it; drop one of the two")
	case m.dir != "" && filepath.Clean(m.dir) == filepath.Clean(c.Dir):
		return policy.Errorf(policy.BadRequest, "Config.Dir belongs to this client alone, and %s is where others put releases; name another one, or none", m.dir)
	}
	if m.dir != "" {
		return checkDirectory(m.dir)
	}
	return nil
}
