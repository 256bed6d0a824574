package jetstream

import (
	"regexp"
	"slices"

	"github.com/microwall/microwall/policy"
)

// Kind is what a principal may do.
type Kind int

// The kinds of principals. The zero Kind is none of them.
const (
	// PDP is a replica of the decision point. It has the streams of all domains:
	// it stores releases, and issues beacons.
	PDP Kind = iota + 1
	// Client reads its namespaces and their guardrails, and says how it is
	// doing. It can store nothing else.
	Client
	// Fleet reads all namespaces of the domain, and hears how its clients are
	// doing. It can store nothing.
	Fleet
)

// String returns the kind as it is written in files.
func (k Kind) String() string {
	switch k {
	case PDP:
		return "pdp"
	case Client:
		return "client"
	case Fleet:
		return "fleet"
	}
	return "none"
}

// ParseKind reads what [Kind.String] writes.
func ParseKind(s string) (Kind, error) {
	for k := PDP; k <= Fleet; k++ {
		if s == k.String() {
			return k, nil
		}
	}
	return 0, policy.Errorf(policy.BadRequest, "%q is no kind of principal; there are pdp, client and fleet", s)
}

// Principal is who connects to the broker.
type Principal struct {
	// Name is part of the subjects that are its own: one label, as in a
	// namespace.
	Name string
	Kind Kind
	// Namespaces that a Client decides, at least one; others have none.
	Namespaces []policy.Namespace
	// Guardrails that bind them.
	Guardrails []policy.Namespace
}

// InboxPrefix is the subject below which a principal receives answers. No other
// may listen there.
func InboxPrefix(principal string) string { return "_INBOX_" + principal }

// label is what a name may be: one token of a subject, without wildcards.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckInstance refuses, with an error of kind [policy.BadRequest], what cannot be the
// name of an instance in a [Status].
func CheckInstance(name string) error {
	if !label.MatchString(name) {
		return policy.Errorf(policy.BadRequest, "%.100q is no name of an instance; it has up to 63 lower-case letters, digits and hyphens, and begins and ends with a letter or a digit", name)
	}
	return nil
}

func checkPrincipal(name string) error {
	if !label.MatchString(name) {
		return policy.Errorf(policy.BadRequest, "%.100q is no name of a principal; it has up to 63 lower-case letters, digits and hyphens, and begins and ends with a letter or a digit", name)
	}
	return nil
}

// Permissions are the subjects that a user of the broker may publish and
// subscribe to, wildcards among them. Nothing else is allowed.
type Permissions struct {
	Publish   []string
	Subscribe []string
	// NeverPublish and NeverSubscribe are not allowed although the others say so.
	NeverPublish   []string
	NeverSubscribe []string
}

// Permissions returns what the broker lets the principal do in a domain.
//
// What a client may ask names one subject of one stream, because only that form
// of a direct get can be permitted for some messages and not for others: the
// forms that ask by number, for the next message, for many or in batches name
// what they want where no broker looks.
func (p Principal) Permissions(domain string) (Permissions, error) {
	if err := checkDomain(domain); err != nil {
		return Permissions{}, err
	}
	if err := checkPrincipal(p.Name); err != nil {
		return Permissions{}, err
	}
	if p.Kind != Client && len(p.Namespaces)+len(p.Guardrails) > 0 {
		return Permissions{}, policy.Errorf(policy.BadRequest, "principal %s is of kind %s, which has no namespaces of its own; name them for a client", p.Name, p.Kind)
	}
	switch p.Kind {
	case PDP:
		return Permissions{Publish: []string{">"}, Subscribe: []string{">"}}, nil
	case Fleet:
		return fleet(domain, p.Name), nil
	case Client:
	default:
		return Permissions{}, policy.Errorf(policy.BadRequest, "principal %s has no kind; there are pdp, client and fleet", p.Name)
	}
	if len(p.Namespaces) == 0 {
		return Permissions{}, policy.Errorf(policy.BadRequest, "principal %s is a client of no namespace; name at least one", p.Name)
	}
	seen := map[string]bool{}
	var tokens []string
	for _, ns := range slices.Concat(p.Namespaces, p.Guardrails) {
		if err := checkNamespace(domain, ns); err != nil {
			return Permissions{}, err
		}
		if t := token(ns); !seen[t] {
			seen[t] = true
			tokens = append(tokens, t)
		}
	}
	return client(domain, p.Name, tokens), nil
}

// anonymousName is the principal that everybody is who shows no credentials.
const anonymousName = "anonymous"

// anonymous are its permissions: those of a client of every namespace.
func anonymous(domain string) Permissions {
	all := client(domain, anonymousName, []string{"*"})
	all.Subscribe = append(all.Subscribe, "_INBOX.>")
	all.NeverPublish, all.NeverSubscribe = ticksAsked, ticksHeard
	return all
}

// client asks about its namespaces whatever may be asked, hears of them, says how
// it is doing in each, and has the trust file. A broker keeps this in memory for
// each connection, and so it is short.
func client(domain, name string, tokens []string) Permissions {
	n := clientNames(domain)
	all := Permissions{Subscribe: []string{InboxPrefix(name) + ".>"}}
	for _, t := range tokens {
		all.Publish = append(all.Publish, "ask."+t+".>", n.say(t, name, "*"))
	}
	if !slices.Contains(tokens, "*") {
		tokens = append(tokens, trustToken)
		all.Publish = append(all.Publish, "ask."+trustToken+".>")
	}
	for _, t := range tokens {
		all.Subscribe = append(all.Subscribe, n.hear(t, true)...)
	}
	return all
}

// fleet asks for the heads, chunks and beacons of all namespaces, hears of them,
// and hears what clients say.
func fleet(domain, name string) Permissions {
	n := clientNames(domain)
	return Permissions{
		Publish:        []string{n.askHead("*"), n.askBeat("*"), n.askBlob("*", "*")},
		Subscribe:      append(n.hear("*", true), n.say("*", "*", "*"), InboxPrefix(name)+".>"),
		NeverPublish:   ticksAsked,
		NeverSubscribe: ticksHeard,
	}
}

// Ticks are not for those either who have all namespaces. It keeps them from listening;
// who asks for a literal "*" may be handed one, as the package comment says.
var (
	ticksAsked = []string{"ask." + tickToken + ".>", "ask." + confirmToken + ".>"}
	ticksHeard = []string{"hear." + tickToken + ".*", "hear." + confirmToken + ".*"}
)
