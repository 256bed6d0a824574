package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/authzen"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
)

// authorizeFlags are those of the authorize command.
type authorizeFlags struct {
	clientFlags
	output
	nats, trust               string
	broker                    natsFlags
	bundle                    string
	guardrails                []string
	namespace                 string
	subject, action, resource string
	context                   []string
	atLeast                   []string
	head                      bool
	repeat                    int
}

func newAuthorize(w world) *cobra.Command {
	var f authorizeFlags
	cmd := &cobra.Command{
		Use:     "authorize",
		GroupID: groupAsk,
		Short:   "Ask whether a subject may do an action to a resource",
		Long: `Ask a PDP (--server), or decide here: by the releases on NATS, as the embedded
client does (--nats), or by a folder (--bundle).

The request is given by flags, or as AuthZEN JSON on stdin if neither --subject,
--action nor --resource is given; what AuthZEN does not know in it is ignored, and
named on stderr. --context NAME=TEXT sets a text, and --context NAME:=JSON any
JSON value.

Properties of the subject, the action and the resource can only be given as
JSON: {"subject": {"type": "user", "id": "ann", "properties": {...}}, ...}.

What decides is what the one who is asked holds, which is within a second of the
newest. --at-least TOKEN has it decided by the release that a push printed the
token of, or a newer one, and --head by the newest as it is confirmed to be now;
both wait until --timeout. --head is for a PDP that issues beacons (--beacon-key).

--repeat N asks N times and says how long the first answer took, those from the
client's cache, and those that were decided anew: on stderr, or as latency in
--format json, in nanoseconds. The embedded client has a cache where that is
quicker than to decide, and a folder none.

Exit code 0 if it is allowed, 1 if it is denied, 2 if there is no decision; with
--format json the error is then in context.error, and decision is false.`,
		Example: `  microwall authorize --namespace boutique.cart --action AddItem \
      --subject workload:spiffe://boutique.example/ns/default/sa/frontend \
      --resource grpc:hipstershop.CartService
  microwall authorize --namespace boutique.cart --format json < request.json
  microwall authorize --bundle policies/cart --guardrail policies/guardrails < request.json
  microwall authorize --nats tls://nats.example.com:4222 --nats-creds cart-1.nkey \
      --namespace boutique.cart < request.json
  microwall authorize --namespace boutique.cart --repeat 1000 < request.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			err := f.authorize(cmd.Context(), w, cmd.Flags().Changed)
			if err != nil && !errors.Is(err, errNo) && f.format == formatJSON {
				return errors.Join(err, printError(w, err))
			}
			return err
		},
	}
	f.add(cmd, w)
	f.flag(cmd, formatJSON)
	trustFlag(cmd, w, &f.trust)
	fs := cmd.Flags()
	fs.StringVar(&f.nats, "nats", "", "decide here, by the releases on this NATS server")
	f.broker.add(fs, "with --nats: ")
	fs.StringVar(&f.bundle, "bundle", "", "decide here, by the policy in this folder")
	fs.StringArrayVar(&f.guardrails, "guardrail", nil, "with --bundle: folder with guardrails that bind it; may be repeated")
	fs.StringVar(&f.namespace, "namespace", "", "namespace that decides (default with --bundle: as its .manifest says)")
	fs.StringVar(&f.subject, "subject", "", "TYPE:ID of who asks")
	fs.StringVar(&f.action, "action", "", "name of the action")
	fs.StringVar(&f.resource, "resource", "", "TYPE:ID of what it is done to")
	fs.StringArrayVar(&f.context, "context", nil, "NAME=TEXT or NAME:=JSON; may be repeated")
	fs.StringArrayVar(&f.atLeast, "at-least", nil, "decide by the release of this token, or a newer one; may be repeated")
	fs.BoolVar(&f.head, "head", false, "decide by the newest releases, as they are confirmed to be now")
	fs.IntVar(&f.repeat, "repeat", 1, "ask so many times, and say how long it took")
	completeFolders(cmd, "bundle", "guardrail")
	return cmd
}

// checkDoors refuses flags that belong to another way to decide than the one
// that was chosen. given tells which are on the command line.
func (f *authorizeFlags) checkDoors(given func(flag string) bool) error {
	if f.repeat < 1 {
		return policy.Errorf(policy.BadRequest, "--repeat is %d; it is asked at least once", f.repeat)
	}
	if f.bundle != "" && !f.freshness().IsZero() {
		return policy.Errorf(policy.BadRequest, "--at-least and --head are for what was released; drop them, or --bundle")
	}
	if len(f.guardrails) > 0 && f.bundle == "" {
		return policy.Errorf(policy.BadRequest, "--guardrail goes with --bundle: elsewhere it is the trust file that names guardrails")
	}
	pdp := []string{"server", "ca", "cert", "cert-key", "plaintext"}
	for _, door := range []struct {
		flag, why string
		excluded  []string
	}{
		{"bundle", "--bundle decides here, by a folder", append(pdp, "nats", "trust")},
		{"nats", "--nats decides here, by the releases on NATS", []string{"server", "ca", "cert", "cert-key"}},
	} {
		for _, flag := range door.excluded {
			if given(door.flag) && given(flag) {
				return policy.Errorf(policy.BadRequest, "%s; drop one of --%s and --%s", door.why, door.flag, flag)
			}
		}
	}
	for _, flag := range natsFlagNames {
		if given(flag) && f.nats == "" {
			return policy.Errorf(policy.BadRequest, "--%s goes with --nats: it is for the connection to NATS", flag)
		}
	}
	if given("trust") && f.nats == "" {
		return policy.Errorf(policy.BadRequest, "--trust goes with --nats: a PDP has a trust file of its own")
	}
	return nil
}

// authorize prints the decision. The error is errNo if it is a denial.
func (f *authorizeFlags) authorize(ctx context.Context, w world, given func(flag string) bool) error {
	if err := f.checkDoors(given); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	r, err := f.request(w)
	if err != nil {
		return err
	}
	r.Freshness = f.freshness()
	ask, err := f.open(ctx, &r)
	if err != nil {
		return err
	}
	defer ask.done()
	var asked latencies
	d, err := asked.authorize(ctx, ask, r, f.repeat)
	if err != nil {
		return err
	}
	if err := f.print(w, r.Namespace, d, asked); err != nil {
		return err
	}
	if f.repeat > 1 && f.format == formatText {
		fmt.Fprintf(w.stderr, "microwall: %s\n", asked)
	}
	if !d.Allowed {
		return errNo
	}
	return nil
}

// request makes the request from flags, or reads it from stdin.
func (f *authorizeFlags) request(w world) (policy.Request, error) {
	n := policy.Namespace(f.namespace)
	if f.subject == "" && f.action == "" && f.resource == "" {
		if file, ok := w.stdin.(*os.File); ok {
			if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
				return policy.Request{}, policy.Errorf(policy.BadRequest, "no request: pass --subject, --action and --resource, or AuthZEN JSON on stdin")
			}
		}
		if len(f.context) > 0 {
			return policy.Request{}, policy.Errorf(policy.BadRequest, "--context goes with --subject, --action and --resource; a request on stdin has its own context")
		}
		limit := policy.Limits{}.WithDefaults().RequestBytes
		raw, err := io.ReadAll(io.LimitReader(w.stdin, int64(2*limit)))
		if err != nil {
			return policy.Request{}, fmt.Errorf("read the request from stdin: %w", err)
		}
		// On the wire such members must be ignored; who types them has made a slip.
		return authzen.ParseRequest(raw, n, authzen.Ignored(func(path string, known []string) {
			fmt.Fprintf(w.stderr, "microwall: %.200q is no member of a request and is ignored; known are %s\n", path, strings.Join(known, ", "))
		}))
	}
	r := policy.Request{Namespace: n, Action: policy.Action{Name: f.action}}
	for _, e := range []struct {
		flag, value, example string
		to                   *policy.Entity
	}{
		{"--subject", f.subject, "workload:spiffe://boutique.example/ns/default/sa/frontend", &r.Subject},
		{"--resource", f.resource, "grpc:hipstershop.CartService", &r.Resource},
	} {
		if e.value == "" {
			return policy.Request{}, policy.Errorf(policy.BadRequest, "%s is missing; it is TYPE:ID, for instance %s %s", e.flag, e.flag, e.example)
		}
		kind, id, ok := strings.Cut(e.value, ":")
		if !ok || kind == "" || id == "" {
			return policy.Request{}, policy.Errorf(policy.BadRequest, "%s is %q; it is TYPE:ID, for instance %s %s", e.flag, e.value, e.flag, e.example)
		}
		if strings.HasPrefix(id, "//") {
			typ, _, _ := strings.Cut(e.example, ":")
			return policy.Request{}, policy.Errorf(policy.BadRequest, "%s is %q, a URL without a type before it; it is TYPE:ID, so write %s %s:%s, or whatever its type is", e.flag, e.value, e.flag, typ, e.value)
		}
		e.to.Type, e.to.ID = kind, id
	}
	if f.action == "" {
		return policy.Request{}, policy.Errorf(policy.BadRequest, "--action is missing; it is a name, for instance --action AddItem")
	}
	var err error
	r.Context, err = parseContext(f.context)
	return r, err
}

// parseContext reads NAME=TEXT and NAME:=JSON.
func parseContext(flags []string) (policy.Properties, error) {
	m := make(map[string]any)
	for _, flag := range flags {
		name, value, ok := strings.Cut(flag, "=")
		name, isJSON := strings.CutSuffix(name, ":")
		if !ok || name == "" {
			return policy.Properties{}, policy.Errorf(policy.BadRequest, "--context %q is neither NAME=TEXT nor NAME:=JSON", flag)
		}
		if _, ok := m[name]; ok {
			return policy.Properties{}, policy.Errorf(policy.BadRequest, "--context names %q twice; give it once", name)
		}
		m[name] = value
		if isJSON {
			if !json.Valid([]byte(value)) {
				return policy.Properties{}, policy.Errorf(policy.BadRequest, "--context %s: %.200s is no JSON; for a text write %s=%.200s", name, value, name, value)
			}
			v, err := authzen.ParseValue([]byte(value))
			if err != nil {
				return policy.Properties{}, policy.Errorf(policy.BadRequest, "--context %s: %w", name, err)
			}
			m[name] = v
		}
	}
	return policy.NewProperties(m)
}

// open returns who decides.
func (f *authorizeFlags) open(ctx context.Context, r *policy.Request) (asker, error) {
	switch {
	case f.bundle != "":
		a, err := f.openFolder(ctx, r)
		return asker{a, nil, func() {}}, err
	case f.nats != "":
		if _, err := policy.ParseNamespace(string(r.Namespace)); err != nil {
			return asker{}, err
		}
		secure, err := f.broker.tls()
		if err != nil {
			return asker{}, err
		}
		c, err := embedded.New(ctx, embedded.Config{
			NATS: f.nats, Credentials: f.broker.creds, TLS: secure, Plaintext: f.dial.Plaintext,
			TrustFile: f.trust, Namespaces: []policy.Namespace{r.Namespace},
		})
		switch {
		case err != nil && ctx.Err() != nil:
			return asker{}, fmt.Errorf("%w (--nats, --nats-creds, --timeout)", err)
		case err != nil:
			return asker{}, err
		}
		return asker{c, func() (uint64, bool) { return c.Status().Cache.Hits, true }, c.Close}, nil
	}
	config := remote.Config{Servers: []string{f.dial.Server}, CA: f.dial.CA, Cert: f.dial.Cert, CertKey: f.dial.CertKey, Plaintext: f.dial.Plaintext, Timeout: f.timeout}
	if f.repeat == 1 {
		config.Cache.Entries = -1 // nothing will be asked again
	}
	c, err := remote.New(ctx, config)
	if err != nil {
		return asker{}, err
	}
	status := func() (uint64, bool) {
		s := c.Status()
		return s.Cache.Hits, slices.ContainsFunc(s.Namespaces, func(n remote.Namespace) bool { return n.Remembered })
	}
	return asker{c, status, func() { _ = c.Close() }}, nil
}

// openFolder decides by folders, as tests do.
func (f *authorizeFlags) openFolder(ctx context.Context, r *policy.Request) (policy.Authorizer, error) {
	_, _, snapshot, err := f.openFolders(ctx, r, f.bundle)
	if err != nil {
		return nil, err
	}
	return pdp.New(pdp.Config{Source: snapshot, Now: time.Now}), nil
}

// openFolders reads the policy in a folder and the guardrails that shall bind
// it, and gives the request its namespace.
func (f *authorizeFlags) openFolders(ctx context.Context, r *policy.Request, dir string) (own *policyFolder, guardrails []*policyFolder, _ *live.Snapshot, err error) {
	if own, err = readFolder(ctx, dir); err != nil {
		return nil, nil, nil, err
	}
	if r.Namespace, err = namespaceOf(own.bundle, string(r.Namespace)); err != nil {
		return nil, nil, nil, err
	}
	for _, dir := range f.guardrails {
		g, err := readFolder(ctx, dir)
		if err != nil {
			return nil, nil, nil, err
		}
		if g.bundle.Namespace() == r.Namespace && r.Namespace != "" {
			return nil, nil, nil, policy.Errorf(policy.BadRequest, "--guardrail %s is a policy of %s itself, which does not bind it; name guardrails of a namespace above", dir, r.Namespace)
		}
		guardrails = append(guardrails, g)
	}
	snapshot, err := newLocal(ctx, own, r.Namespace, guardrails)
	return own, guardrails, snapshot, err
}

// readFolder returns the policy in a folder, if push would take it.
func readFolder(ctx context.Context, dir string) (*policyFolder, error) {
	f, err := openPolicy(ctx, dir)
	if err != nil {
		return nil, err
	}
	if len(f.problems) > 0 {
		var b strings.Builder
		if err := printProblems(&b, f.problems); err != nil {
			return nil, err
		}
		return nil, policy.Errorf(policy.BadRequest, "the policy in %s decides nothing:\n%s", dir, strings.TrimSpace(b.String()))
	}
	return f, nil
}

// noDecision is what --format json says instead of a decision. Who reads nothing
// but decision, as AuthZEN has it, denies.
type noDecision struct {
	Decision bool `json:"decision"` // never true
	Context  struct {
		Error struct {
			Kind    string `json:"kind"`
			Message string `json:"message"`
		} `json:"error"`
	} `json:"context"`
}

func printError(w world, err error) error {
	var n noDecision
	n.Context.Error.Kind, n.Context.Error.Message = policy.KindOf(err).String(), err.Error()
	line, err := json.Marshal(n)
	if err != nil {
		return err
	}
	_, err = w.stdout.Write(append(line, '\n'))
	return err
}

// writeDecided writes what comes with a decision.
func writeDecided(b io.Writer, d policy.Decision) {
	for _, r := range d.Reasons {
		fmt.Fprintf(b, "  %s\n", visible(r.String()))
	}
	if d.Obligations.Len() > 0 {
		fmt.Fprintf(b, "  obligations %s\n", d.Obligations)
	}
}

func (f *authorizeFlags) print(w world, n policy.Namespace, d policy.Decision, took latencies) error {
	if f.format == formatJSON {
		line := authzen.AppendDecision(nil, d)
		if f.repeat > 1 {
			latency, err := json.Marshal(took)
			if err != nil {
				return err
			}
			line = fmt.Appendf(line[:len(line)-1], `,"latency":%s}`, latency)
		}
		_, err := w.stdout.Write(append(line, '\n'))
		return err
	}
	var b strings.Builder
	switch {
	case d.Allowed:
		b.WriteString("allowed\n")
	case len(d.Reasons) == 0:
		fmt.Fprintf(&b, "denied: no rule of %s allowed it\n", n)
	default:
		b.WriteString("denied\n")
	}
	writeDecided(&b, d)
	for _, v := range d.Versions {
		fmt.Fprintf(&b, "  by %s revision %d (epoch %d) %s\n", v.Namespace, v.Revision, v.Epoch, v.Digest)
	}
	for _, n := range d.Stale {
		fmt.Fprintf(&b, "  stale: no beacon proves, or has proven in time, that the release of %s is the newest\n", n)
	}
	_, err := io.WriteString(w.stdout, b.String())
	return err
}
