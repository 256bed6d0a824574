package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
	bundle                    string
	guardrails                []string
	namespace                 string
	subject, action, resource string
	context                   []string
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
--action nor --resource is given. --context NAME=TEXT sets a text, and
--context NAME:=JSON any JSON value.

Exit code 0 if it is allowed, 1 if it is denied, 2 if there is no decision.`,
		Example: `  microwall authorize --namespace boutique.cart --action AddItem \
      --subject workload:spiffe://boutique.example/ns/default/sa/frontend \
      --resource grpc:hipstershop.CartService
  microwall authorize --namespace boutique.cart --format json < request.json
  microwall authorize --bundle policies/cart --guardrail policies/guardrails < request.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.authorize(cmd.Context(), w) },
	}
	f.add(cmd, w)
	f.flag(cmd, formatJSON)
	trustFlag(cmd, w, &f.trust)
	fs := cmd.Flags()
	fs.StringVar(&f.nats, "nats", "", "decide here, by the releases on this NATS server")
	fs.StringVar(&f.bundle, "bundle", "", "decide here, by the policy in this folder")
	fs.StringArrayVar(&f.guardrails, "guardrail", nil, "with --bundle: folder with guardrails that bind it; may be repeated")
	fs.StringVar(&f.namespace, "namespace", "", "namespace that decides (default with --bundle: as its .manifest says)")
	fs.StringVar(&f.subject, "subject", "", "TYPE:ID of who asks")
	fs.StringVar(&f.action, "action", "", "name of the action")
	fs.StringVar(&f.resource, "resource", "", "TYPE:ID of what it is done to")
	fs.StringArrayVar(&f.context, "context", nil, "NAME=TEXT or NAME:=JSON; may be repeated")
	cmd.MarkFlagsMutuallyExclusive("nats", "bundle")
	completeFolders(cmd, "bundle", "guardrail")
	return cmd
}

func (f *authorizeFlags) authorize(ctx context.Context, w world) error {
	if err := f.check(); err != nil {
		return err
	}
	if len(f.guardrails) > 0 && f.bundle == "" {
		return policy.Errorf(policy.BadRequest, "--guardrail goes with --bundle: elsewhere it is the trust file that names guardrails")
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	r, err := f.request(w)
	if err != nil {
		return err
	}
	ask, done, err := f.open(ctx, &r)
	if err != nil {
		return err
	}
	defer done()
	d, err := ask.Authorize(ctx, r)
	if err != nil {
		return err
	}
	if err := f.print(w, r.Namespace, d); err != nil {
		return err
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
		limit := policy.Limits{}.WithDefaults().RequestBytes
		raw, err := io.ReadAll(io.LimitReader(w.stdin, int64(2*limit)))
		if err != nil {
			return policy.Request{}, fmt.Errorf("read the request from stdin: %w", err)
		}
		return authzen.ParseRequest(raw, n)
	}
	r := policy.Request{Namespace: n, Action: policy.Action{Name: f.action}}
	for _, e := range []struct {
		flag, value string
		to          *policy.Entity
	}{{"--subject", f.subject, &r.Subject}, {"--resource", f.resource, &r.Resource}} {
		kind, id, ok := strings.Cut(e.value, ":")
		if !ok || kind == "" || id == "" {
			return policy.Request{}, policy.Errorf(policy.BadRequest, "%s is %q; it is TYPE:ID, for instance %s grpc:hipstershop.CartService", e.flag, e.value, e.flag)
		}
		e.to.Type, e.to.ID = kind, id
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
			v, err := authzen.ParseValue([]byte(value))
			if err != nil {
				return policy.Properties{}, policy.Errorf(policy.BadRequest, "--context %s: %w", name, err)
			}
			m[name] = v
		}
	}
	return policy.NewProperties(m)
}

// open returns who decides, and what ends it.
func (f *authorizeFlags) open(ctx context.Context, r *policy.Request) (policy.Authorizer, func(), error) {
	switch {
	case f.bundle != "":
		a, err := f.openFolder(ctx, r)
		return a, func() {}, err
	case f.nats != "":
		if _, err := policy.ParseNamespace(string(r.Namespace)); err != nil {
			return nil, nil, err
		}
		c, err := embedded.New(ctx, embedded.Config{NATS: f.nats, TrustFile: f.trust, Namespaces: []policy.Namespace{r.Namespace}})
		if err != nil {
			return nil, nil, err
		}
		return c, c.Close, nil
	}
	c, err := remote.New(ctx, remote.Config{Server: f.dial.Server, CA: f.dial.CA, Cert: f.dial.Cert, CertKey: f.dial.CertKey, Plaintext: f.dial.Plaintext, Timeout: f.timeout})
	if err != nil {
		return nil, nil, err
	}
	return c, func() { _ = c.Close() }, nil
}

// openFolder decides by folders, as tests do.
func (f *authorizeFlags) openFolder(ctx context.Context, r *policy.Request) (policy.Authorizer, error) {
	own, err := readFolder(ctx, f.bundle)
	if err != nil {
		return nil, err
	}
	var guardrails []*policyFolder
	for _, dir := range f.guardrails {
		g, err := readFolder(ctx, dir)
		if err != nil {
			return nil, err
		}
		guardrails = append(guardrails, g)
	}
	if r.Namespace, err = namespaceOf(own.bundle, string(r.Namespace)); err != nil {
		return nil, err
	}
	snapshot, err := newLocal(ctx, own, r.Namespace, guardrails)
	if err != nil {
		return nil, err
	}
	return pdp.New(pdp.Config{Source: snapshot, Now: time.Now}), nil
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

func (f *authorizeFlags) print(w world, n policy.Namespace, d policy.Decision) error {
	if f.format == formatJSON {
		_, err := w.stdout.Write(append(authzen.AppendDecision(nil, d), '\n'))
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
	for _, r := range d.Reasons {
		fmt.Fprintf(&b, "  %s\n", r)
	}
	if d.Obligations.Len() > 0 {
		fmt.Fprintf(&b, "  obligations %s\n", d.Obligations)
	}
	for _, v := range d.Versions {
		fmt.Fprintf(&b, "  by %s revision %d (epoch %d) %s\n", v.Namespace, v.Revision, v.Epoch, v.Digest)
	}
	_, err := io.WriteString(w.stdout, b.String())
	return err
}
