package jetstream

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/microwall/microwall/policy"
)

// storeAccount is the account that has the streams. No domain has its name: a
// domain's is in lower case.
const storeAccount = "STORE"

// Limits of the accounts of domains.
const (
	// DefaultMaxConnections is how many connections the clients of a domain may
	// hold together unless configured.
	DefaultMaxConnections = 100_000
	// maxSubscriptions bounds one connection of a client: three for each of its
	// namespaces, and few more.
	maxSubscriptions = 1024
	// maxClientPayload bounds what a client publishes: questions, and reports of
	// how it is doing.
	maxClientPayload = 16 << 10
)

// Accounts is who may connect to the broker, and what as: one account has the
// streams, and another, without JetStream, the clients of the domain.
type Accounts struct {
	// Domain is the name of the trust domain, and of its account.
	Domain string
	// Users by their principals. Names and keys are there once each.
	Users []User
	// Anonymous, if not empty, is the public key of a user that nobody has the
	// seed of: whoever shows no credentials is taken for it, and may do what a
	// client of all namespaces may. It is for brokers that only this machine
	// reaches.
	Anonymous string
	// MaxConnections is how many connections the clients may hold together.
	// Zero is [DefaultMaxConnections].
	MaxConnections int
}

// User is a principal with its public key.
type User struct {
	Principal
	// Key is the public half of an NKey of a user; it begins with "U".
	Key string
}

// Config returns the accounts as a part of a NATS server's configuration file.
// Errors are of kind [policy.BadRequest].
func (a Accounts) Config() ([]byte, error) {
	if err := checkDomain(a.Domain); err != nil {
		return nil, err
	}
	if a.MaxConnections == 0 {
		a.MaxConnections = DefaultMaxConnections
	}
	if a.MaxConnections < 0 {
		return nil, policy.Errorf(policy.BadRequest, "the clients of %s may hold %d connections; say a positive number", a.Domain, a.MaxConnections)
	}
	var store, clients bytes.Buffer
	names, keys := map[string]bool{anonymousName: true}, map[string]bool{a.Anonymous: true}
	for _, u := range a.Users {
		allowed, err := u.Permissions(a.Domain)
		if err != nil {
			return nil, err
		}
		if err := checkKey(u.Name, u.Key); err != nil {
			return nil, err
		}
		if names[u.Name] || keys[u.Key] {
			return nil, policy.Errorf(policy.BadRequest, "there are two principals called %s, or with its key; give each a name and a key of its own (%s is taken)", u.Name, anonymousName)
		}
		names[u.Name], keys[u.Key] = true, true
		to := &clients
		if u.Kind == PDP {
			to = &store
		}
		writeUser(to, fmt.Sprintf("%s, a %s", u.Name, u.Kind), u.Key, allowed)
	}
	var b bytes.Buffer
	if a.Anonymous != "" {
		if err := checkKey(anonymousName, a.Anonymous); err != nil {
			return nil, err
		}
		writeUser(&clients, "whoever shows no credentials", a.Anonymous, anonymous(a.Domain))
		fmt.Fprintf(&b, "no_auth_user: %s\n\n", a.Anonymous)
	}

	fmt.Fprintf(&b, "accounts {\n  # The streams. What a client may ask of them is exported, subject by subject.\n  %s {\n    jetstream: enabled\n    exports: [\n", storeAccount)
	all := imports(a.Domain)
	for _, i := range all {
		fmt.Fprintf(&b, "      {%s: %s, accounts: [%s]}\n", i.kind, strconv.Quote(i.from), strconv.Quote(a.Domain))
	}
	fmt.Fprintf(&b, "    ]\n    users: [\n%s    ]\n  }\n", store.Bytes())
	fmt.Fprintf(&b, "  # The clients of the domain. They have no JetStream of their own. What they ask for,\n  # hear and say has short names here, because a server keeps in memory, for each\n  # connection, what it may do.\n  %s {\n    limits {max_connections: %d, max_subscriptions: %d, max_payload: %d}\n    imports: [\n",
		strconv.Quote(a.Domain), a.MaxConnections, maxSubscriptions, maxClientPayload)
	for _, i := range all {
		fmt.Fprintf(&b, "      {%s: {account: %s, subject: %s}, to: %s}\n", i.kind, storeAccount, strconv.Quote(i.from), strconv.Quote(i.to))
	}
	fmt.Fprintf(&b, "    ]\n    users: [\n%s    ]\n  }\n}\n", clients.Bytes())
	return b.Bytes(), nil
}

// imported is what the clients of a domain have of the account of the streams: a
// service is asked, a stream comes by itself.
type imported struct{ kind, from, to string }

// imports are all of them. One wildcard stands for all namespaces: an import for
// each would take a broker minutes to start.
//
// An answer goes to the subject that its asker chose, and that may be one of these
// names. Then nats-server imports the answer, too, as if it had come by the name
// that the broker itself gave the question, which has three tokens: "_R_", and two
// that nobody chose. So what a stream or a PDP would take has a wildcard beyond
// them: it is empty then, and nobody listens to such a subject. What is left are
// direct gets of nonsense that want no answer, which are not looked at.
func imports(domain string) []imported {
	from, to := storeNames(domain), clientNames(domain)
	return []imported{
		{"service", from.askHead("*"), to.askHead("$1")},
		{"service", from.askBlob("*", "*"), to.askBlob("$1", "$2")},
		{"service", from.askBeat("*"), to.askBeat("$1")},
		{"service", from.askConfirmOf("*", "*"), to.askConfirmOf("$1", "$2")},
		{"service", from.say("*", "*", "*"), to.say("$1", "$2", "$3")},
		{"stream", from.hearHead("*"), to.hearHead("$1")},
		{"stream", from.hearBeat("*"), to.hearBeat("$1")},
	}
}

func writeUser(b *bytes.Buffer, comment, key string, p Permissions) {
	fmt.Fprintf(b, "      # %s\n      {nkey: %s, permissions: {\n", comment, key)
	for _, side := range []struct {
		name           string
		allowed, never []string
	}{{"publish", p.Publish, p.NeverPublish}, {"subscribe", p.Subscribe, p.NeverSubscribe}} {
		fmt.Fprintf(b, "        %s: {allow: %s", side.name, quoted(side.allowed))
		if len(side.never) > 0 {
			fmt.Fprintf(b, ", deny: %s", quoted(side.never))
		}
		b.WriteString("}\n")
	}
	b.WriteString("      }}\n")
}

func quoted(subjects []string) string {
	all := make([]string, len(subjects))
	for i, s := range subjects {
		all[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(all, ", ") + "]"
}
