package jetstream

import (
	"context"
	"errors"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/policy"
)

// names are the subjects under which a principal finds what the broker has for
// it. PDPs are in the account of the streams, where a subject says all. Others are
// in the account of their domain, to which the imports bring the same things under
// short names: a broker keeps, for each connection, a tree of its own of what it
// may do, and every token costs.
type names struct {
	domain string
	short  bool
}

// storeNames are those in the account of the streams.
func storeNames(domain string) names { return names{domain: domain} }

// clientNames are those in the account of the domain. Where a token is to be a
// wildcard, "*" matches it and "$1" says in an import which one it is.
func clientNames(domain string) names { return names{domain: domain, short: true} }

// names returns the subjects of principals of a kind.
func (k Kind) names(domain string) (names, error) {
	if err := checkDomain(domain); err != nil {
		return names{}, err
	}
	switch k {
	case PDP:
		return storeNames(domain), nil
	case Client, Fleet:
		return clientNames(domain), nil
	}
	return names{}, policy.Errorf(policy.BadRequest, "it is not said as what the connection to NATS was made; say that it is a pdp's or a client's")
}

// What a short name ends with.
const (
	headName    = "head"
	beatName    = "beat"
	blobName    = "blob"
	confirmName = "confirm"
)

// askHead is where to ask for the head of a token.
func (n names) askHead(token string) string {
	if n.short {
		return "ask." + token + "." + headName
	}
	return getSubject(headStream, headOf(n.domain, token))
}

// askBeat is where to ask for the newest beacon of a token.
func (n names) askBeat(token string) string {
	if n.short {
		return "ask." + token + "." + beatName
	}
	return getSubject(beatStream, beatOf(n.domain, token))
}

// askBlob is where to ask for one of the blobs of a token.
func (n names) askBlob(token, blob string) string {
	if n.short {
		return "ask." + token + "." + blobName + "." + blob
	}
	return getSubject(blobStream, blobOf(n.domain, token, blob))
}

// askConfirm is where to ask a PDP to confirm the head of a token.
func (n names) askConfirm(token string) string { return n.askConfirmOf(token, confirmHead) }

func (n names) askConfirmOf(token, what string) string {
	if n.short {
		return "ask." + token + "." + confirmName + "." + what
	}
	return confirmOf(n.domain, token, what)
}

// hearHead is where heads of a token are heard.
func (n names) hearHead(token string) string {
	if n.short {
		return "hear." + token + "." + headName
	}
	return pushOf(n.domain, token)
}

// hearBeat is where beacons of a token are heard.
func (n names) hearBeat(token string) string {
	if n.short {
		return "hear." + token + "." + beatName
	}
	return "pdp.beat." + n.domain + "." + token
}

// say is where an instance of a principal says how it is doing.
func (n names) say(token, principal, instance string) string {
	if n.short {
		return "say." + principal + "." + token + "." + instance
	}
	return statusSubject(n.domain, token, principal, instance)
}

// hear returns what to subscribe to for the heads of a token, and for beacons.
func (n names) hear(token string, beacons bool) []string {
	switch {
	case !beacons:
		return []string{n.hearHead(token)}
	case n.short:
		return []string{"hear." + token + ".*"} // each costs a broker
	}
	return []string{n.hearHead(token), n.hearBeat(token)}
}

// heard reads a subject by which a message came: of which token it is the head, or
// the beacon.
func (n names) heard(subject string) (token string, beacon, ok bool) {
	first, last := strings.IndexByte(subject, '.'), strings.LastIndexByte(subject, '.')
	if n.short {
		if first < 0 || first >= last {
			return "", false, false
		}
		token = subject[first+1 : last]
	} else {
		token = subject[last+1:]
	}
	switch subject {
	case n.hearHead(token):
		return token, false, true
	case n.hearBeat(token):
		return token, true, true
	}
	return "", false, false
}

// get asks any replica for the newest message of a subject, once. It may be an old
// one, and errAbsent may be wrong for a moment.
func (n names) get(ctx context.Context, nc *nats.Conn, ask string) (stored, error) {
	return n.getAgain(ctx, nc, 0, ask)
}

// getAgain is get after attempts that were too short.
func (n names) getAgain(ctx context.Context, nc *nats.Conn, tooShort int, ask string) (stored, error) {
	var found stored
	err := attemptAgain(ctx, nc, tooShort, func(ctx context.Context) error {
		m, err := nc.RequestWithContext(ctx, ask, nil)
		if err != nil {
			return err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			found = stored{seq: sequence(m), data: m.Data}
			return nil
		case "404":
			return errAbsent
		default:
			return errors.New("the broker refuses the question: " + status + " " + m.Header.Get("Description"))
		}
	})
	return found, err
}
