package lint

// Modules from outside, by the prefix of their import paths.
const (
	opa        = "github.com/open-policy-agent/opa"
	grpc       = "google.golang.org/grpc"
	protobuf   = "google.golang.org/protobuf"
	rpcStatus  = "google.golang.org/genproto/googleapis/rpc"
	natsClient = "github.com/nats-io/nats.go"
	natsServer = "github.com/nats-io/nats-server"
	natsJWT    = "github.com/nats-io/jwt"
	natsKeys   = "github.com/nats-io/nkeys"
	nats       = "github.com/nats-io" // all of the above four
	prometheus = "github.com/prometheus"
	cobra      = "github.com/spf13/cobra"
	pflag      = "github.com/spf13/pflag"
	lru        = "github.com/hashicorp/golang-lru/v2"
	note       = "golang.org/x/mod/sumdb/note"
	modFile    = "golang.org/x/mod/modfile"
	xsync      = "golang.org/x/sync"
	xsys       = "golang.org/x/sys"
	rate       = "golang.org/x/time/rate"
	term       = "golang.org/x/term"
	jsonText   = "github.com/go-json-experiment/json"
	yaml       = "go.yaml.in/yaml/v3"
	testscript = "github.com/rogpeppe/go-internal"
	lineDiff   = "github.com/rogpeppe/go-internal/diff"
	goCmp      = "github.com/google/go-cmp"
	gobwasGlob = "github.com/gobwas/glob"
	globsMeet  = "github.com/yashtewari/glob-intersection"
	cedar      = "github.com/cedar-policy/cedar-go"
	distance   = "github.com/agnivade/levenshtein"
)

// ImportMap is the house: which package may import which. A package that is not
// here may not exist, and a row may be here before its package is.
//
// To let a package import more, change its row in the commit that needs it, and
// say in the commit why.
var ImportMap = Map{
	Rules: []Rule{
		// The vocabulary. Standard library only: every door speaks it, and none
		// makes the others link its libraries.
		{Package: "policy"},

		// The only door to OPA, and what evaluates: source to plan (front), plan to
		// closures (exec), and what these calculate with.
		{Package: "policy/rego",
			Inside: []string{"policy", "policy/rego/internal/budget", "policy/rego/internal/builtin", "policy/rego/internal/convert", "policy/rego/internal/exec",
				"policy/rego/internal/front", "policy/rego/internal/reads", "policy/rego/internal/reference", "policy/rego/internal/value"},
			Outside: []string{distance, opa},
			Never:   []string{nats, grpc, prometheus, cobra}},
		{Package: "policy/rego/internal/budget"},
		{Package: "policy/rego/internal/value",
			Inside: []string{"policy"}},
		{Package: "policy/rego/internal/convert",
			Inside:  []string{"policy/rego/internal/value"},
			Outside: []string{opa}},
		{Package: "policy/rego/internal/builtin",
			Inside:  []string{"policy/rego/internal/budget", "policy/rego/internal/convert", "policy/rego/internal/value"},
			Outside: []string{opa, gobwasGlob, globsMeet}},
		{Package: "policy/rego/internal/front",
			Inside:  []string{"policy/rego/internal/value"},
			Outside: []string{opa}},
		{Package: "policy/rego/internal/exec",
			Inside:  []string{"policy/rego/internal/budget", "policy/rego/internal/builtin", "policy/rego/internal/value"},
			Outside: []string{opa}},
		{Package: "policy/rego/internal/reads",
			Outside: []string{opa}},
		{Package: "policy/rego/internal/reference",
			Outside: []string{opa}},
		// What its tests share.
		{Package: "policy/rego/internal/value/valuetest",
			Inside: []string{"policy", "policy/rego/internal/value"}},
		{Package: "policy/rego/internal/suite",
			Inside: []string{"policy/rego/internal/builtin", "policy/rego/internal/convert", "policy/rego/internal/exec", "policy/rego/internal/front",
				"policy/rego/internal/value"},
			Outside: []string{opa}},
		{Package: "policy/rego/internal/differential",
			Inside: []string{"policy/rego/internal/budget", "policy/rego/internal/builtin", "policy/rego/internal/convert", "policy/rego/internal/exec",
				"policy/rego/internal/front", "policy/rego/internal/reference", "policy/rego/internal/value"},
			Outside: []string{opa}},

		// Bytes and signatures; no Rego, no network.
		{Package: "bundles",
			Inside:  []string{"policy"},
			Outside: []string{note, jsonText, yaml},
			Never:   []string{opa, nats, grpc, prometheus, cobra, "net", "net/http"}},

		// Where trust is decided, once for servers and clients, whatever carries
		// the releases.
		{Package: "bundles/live",
			Inside:  []string{"bundles", "internal/decisionkey", "internal/staleness", "internal/mutant", "policy", "policy/rego"},
			Outside: []string{xsync},
			Never:   []string{nats, grpc, prometheus, cobra}},

		// The NATS side; it decides nothing.
		{Package: "bundles/jetstream",
			Inside:  []string{"bundles", "policy"},
			Outside: []string{natsClient, natsKeys, xsync},
			Never:   []string{opa, natsServer, grpc, prometheus, cobra}},

		// The key of a decision, for those who evaluate and those who ask.
		{Package: "internal/decisionkey",
			Inside: []string{"internal/mutant", "policy"}},

		// What is handed out of a decision that nobody has proven for a while, for the
		// same two.
		{Package: "internal/staleness",
			Inside: []string{"policy"}},

		// How clients are broken on purpose, to see that tests notice: false constants in
		// all that ships. Their tests' own builds read the environment.
		{Package: "internal/mutant",
			Process: true},

		{Package: "proto/microwall/v1",
			Outside: []string{grpc, protobuf}},

		{Package: "pdp",
			Inside:  []string{"bundles", "bundles/jetstream", "bundles/live", "internal/decisionkey", "policy", "policy/rego"},
			Outside: []string{note, xsync},
			Never:   []string{natsServer, grpc, prometheus, cobra}},
		{Package: "pdp/grpcapi",
			Inside:  []string{"bundles", "internal/wire", "pdp", "policy", "proto/microwall/v1"},
			Outside: []string{grpc, protobuf, rpcStatus, xsync},
			Never:   []string{natsServer, prometheus, cobra}},

		{Package: "clients/cache",
			Inside:  []string{"internal/mutant", "policy"},
			Outside: []string{lru, xsync},
			Never:   []string{opa, nats, grpc, prometheus, cobra}},
		{Package: "clients/embedded",
			Inside: []string{"bundles", "bundles/jetstream", "bundles/live", "clients/cache", "internal/decisionkey", "internal/filewatch", "internal/fleet", "internal/mutant",
				"policy", "policy/rego"},
			Outside: []string{natsClient, xsync},
			Never:   []string{natsServer, grpc, prometheus, cobra}},
		{Package: "clients/remote",
			Inside:  []string{"clients/cache", "internal/decisionkey", "internal/dial", "internal/mutant", "internal/staleness", "internal/wire", "policy", "proto/microwall/v1"},
			Outside: []string{grpc, protobuf, rpcStatus, xsync},
			Never:   []string{opa, nats, prometheus, cobra}},

		// The enforcement point. It asks whatever Authorizer it is given.
		{Package: "clients/enforce",
			Inside:  []string{"policy"},
			Outside: []string{grpc},
			Never:   []string{opa, nats, prometheus, cobra}},

		// It knows what it measures by methods alone, so that it links nobody's
		// clients.
		{Package: "clients/metrics",
			Inside:  []string{"clients/cache", "policy"},
			Outside: []string{prometheus},
			Never:   []string{opa, nats, grpc, cobra}},

		// The wire and the vocabulary, translated once for server and client.
		{Package: "internal/wire",
			Inside:  []string{"policy", "proto/microwall/v1"},
			Outside: []string{grpc, protobuf, rpcStatus},
			Never:   []string{opa, nats, prometheus, cobra}},

		// AuthZEN's JSON and the vocabulary.
		{Package: "internal/authzen",
			Inside:  []string{"policy"},
			Outside: []string{jsonText},
			Never:   []string{opa, nats, grpc, prometheus, cobra}},

		// decisions.yaml, a policy's tests through the whole path.
		{Package: "internal/decisions",
			Inside:  []string{"bundles", "bundles/live", "internal/authzen", "policy", "policy/rego"},
			Outside: []string{jsonText, yaml},
			Never:   []string{nats, grpc, prometheus, cobra}},

		// How a client reaches a PDP, and certificates that follow their files.
		{Package: "internal/dial",
			Inside:  []string{"internal/filewatch", "internal/tlsfiles", "policy"},
			Outside: []string{grpc},
			Never:   []string{opa, nats, prometheus, cobra}},
		{Package: "internal/tlsfiles",
			Inside: []string{"internal/filewatch", "policy"}},
		// The certificates that its tests, and those of the doors, run on.
		{Package: "internal/tlsfiles/tlstest"},

		// What `microwall push` does: it verifies before it signs.
		{Package: "internal/pap",
			Inside:  []string{"bundles", "clients/remote", "internal/dial", "internal/report", "internal/wire", "policy", "proto/microwall/v1"},
			Outside: []string{grpc, protobuf, note},
			Never:   []string{nats, prometheus, cobra}},

		{Package: "internal/filewatch"},
		{Package: "internal/loglimit"},

		// The only home of the NATS server, whose log lines it hands on.
		{Package: "internal/natsserver",
			Inside:  []string{"internal/loglimit", "policy"},
			Outside: []string{natsServer, natsJWT, natsKeys, xsys, "log/slog"},
			Never:   []string{opa, grpc, prometheus, cobra}},

		// What those who decide say of themselves, and how they say it.
		{Package: "internal/report",
			Inside: []string{"policy"}},
		{Package: "internal/fleet",
			Inside:  []string{"bundles/jetstream", "bundles/live", "internal/report", "policy"},
			Outside: []string{natsClient},
			Never:   []string{natsServer, grpc, prometheus, cobra}},
		// The commands that measure, and what they have in common.
		{Package: "internal/bench/figures",
			Process: true},
		{Package: "internal/bench/child",
			Process: true},
		{Package: "internal/bench/domain",
			Inside:  []string{"bundles/...", "internal/bench/child", "internal/natsserver", "internal/pap", "pdp/...", "policy"},
			Outside: []string{grpc, note}},
		{Package: "internal/bench/...",
			Inside:  []string{"bundles/...", "clients/...", "examples/...", "internal/bench/...", "internal/natsserver", "internal/pap", "internal/wire", "pdp/...", "policy/...", "proto/..."},
			Outside: []string{opa, grpc, protobuf, natsClient, note, xsync},
			Process: true},
		// What tests share: no rule lets a package that ships import it.
		{Package: "internal/testkit",
			Inside: []string{"bundles/...", "clients/...", "internal/dial", "internal/natsserver", "internal/pap", "internal/tlsfiles",
				"internal/wire", "pdp/...", "policy/...", "proto/microwall/v1"},
			Outside: []string{grpc, natsClient, note}},
		// A cluster of NATS servers, each a process of its own.
		{Package: "internal/testkit/cluster",
			Outside: []string{natsClient}},

		// What clients promise of caching, held against plain OPA. It has tests only.
		{Package: "internal/exactness"},

		// The documents, held against the program. It has tests only.
		{Package: "docs"},

		{Package: "internal/lint",
			Outside: []string{modFile}},

		{Package: "examples/...",
			Inside:  []string{"clients/...", "examples/...", "policy"},
			Outside: []string{grpc, protobuf},
			Never:   []string{natsServer},
			Process: true},

		// The one binary: it alone starts servers, reads flags and environment,
		// and owns logging, metrics and signals. It knows no OPA.
		{Package: "cmd/microwall",
			Inside: []string{"bundles/...", "clients/...", "examples/boutique", "internal/authzen", "internal/decisions", "internal/dial",
				"internal/filewatch", "internal/fleet", "internal/loglimit", "internal/natsserver", "internal/pap", "internal/tlsfiles", "internal/wire", "pdp/...",
				"policy/...", "proto/microwall/v1"},
			Outside: []string{cobra, pflag, grpc, protobuf, natsClient, prometheus, note, yaml, xsync, rate, term, lineDiff},
			Process: true},
	},

	// The tests of a package may use all that the repository uses, but NATS
	// servers come from internal/natsserver, as they do for everyone.
	Tests: []string{opa, grpc, protobuf, rpcStatus, natsClient, natsJWT, natsKeys, prometheus, cobra, lru, note, modFile,
		xsync, jsonText, yaml, testscript, goCmp, cedar},
}
