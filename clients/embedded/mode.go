package embedded

import (
	"cmp"
	"path/filepath"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
)

// Mode is how a client hears of releases: [Push], [Poll], [Once] or [Directory].
// The zero value is Push.
//
// No mode makes a release believed for longer: without beacons, which NATS
// brings, a release that says `when-stale: deny` denies, at once if no beacon has
// ever proven it, and otherwise once its max-staleness is over. A mode that does not
// bring beacons as often as a release needs them is not refused, as authors decide
// that later: the event [live.Outpaced] says so, and Outpaced in
// [Status].Namespaces.
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
// must be well below the namespaces' max-staleness: half of it less 5 seconds is.
func Poll(every time.Duration) Mode { return Mode{by: jetstream.ByPoll, every: every} }

// Once is to ask NATS at the start, until it has answered, and then to leave it
// alone: what is released later is for the next start. What it holds is stale for
// good once its max-staleness is over.
func Once() Mode { return Mode{by: jetstream.ByAsking} }

// Directory is to do without NATS. The newest release of each namespace is in a
// file of the directory that is called as the namespace, with ".release" behind:
// as `microwall push --sign-only -o` writes it, or as a client or a PDP that is on
// NATS keeps it in its own [Config].Dir. Files are looked at every two seconds,
// and verified like all else; put them there by renaming, as half a file is
// refused. Nothing is ever written there. Where the trust file lists keys that sign
// beacons, all that comes so is stale at once.
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
	case m.dir != "" && c.ofNATS() != "":
		return policy.Errorf(policy.BadRequest, "Config.%s is for NATS, and Config.Mode is a directory without it; drop one of the two", c.ofNATS())
	case m.dir != "" && filepath.Clean(m.dir) == filepath.Clean(c.Dir):
		return policy.Errorf(policy.BadRequest, "Config.Dir belongs to this client alone, and %s is where others put releases; name another one, or none", m.dir)
	}
	if m.dir != "" {
		return checkDirectory(m.dir)
	}
	return nil
}

// ofNATS returns the name of a field that only a client of NATS has, "" if none is
// set.
func (c Config) ofNATS() string {
	switch {
	case c.NATS != "":
		return "NATS"
	case c.Credentials != "":
		return "Credentials"
	case c.TLS != nil:
		return "TLS"
	case c.Plaintext:
		return "Plaintext"
	}
	return ""
}

// beaconInterval is how often a PDP issues beacons.
const beaconInterval = 5 * time.Second

// provenEvery is how old a beacon may be at most when the next one comes.
func (m Mode) provenEvery() time.Duration {
	switch {
	case m.dir != "", m.by == jetstream.ByAsking:
		return live.Forever
	case m.by == jetstream.ByPoll:
		return cmp.Or(m.every, jetstream.DefaultPoll)*3/2 + beaconInterval
	}
	return 0
}
