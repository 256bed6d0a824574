package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// explainFlags are those of the explain command.
type explainFlags struct {
	authorizeFlags // of which only the request is used
	out            output
	at             string
	all            bool
	limit          time.Duration
}

func newExplain(w world) *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:     "explain DIR",
		GroupID: groupAuthor,
		Short:   "Show why a policy decides a request as it does",
		Long: `Decide one request by the policy in a folder, and show how that came about: which
rules were tried, the values that they saw, and what the decision hinged on.
With --guardrail the guardrails in that folder bind the policy, as they will
where it is released; name each with a flag of its own.

The request is given as to authorize: by flags, or as AuthZEN JSON on stdin if
neither --subject, --action nor --resource is given.

What is shown was traced in OPA's own evaluator. Should it answer otherwise than
Microwall's, and not as docs/from-opa.md says, that is a bug: it is said so, with
exit code 2. A policy that goes over its budget is not traced, as OPA has none.

Exit code 0 if the request is allowed, 1 if it is denied, 2 if there is no
decision.`,
		Example: `  microwall explain policies/cart --action AddItem \
      --subject workload:spiffe://boutique.example/ns/default/sa/frontend \
      --resource grpc:hipstershop.CartService
  microwall explain policies/cart --guardrail policies/guardrails --format json < request.json
  microwall explain policies/cart --time 2026-01-05T23:30:00Z < request.json`,
		Args:              one("folder"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return f.explain(cmd.Context(), w, args[0]) },
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.guardrails, "guardrail", nil, "folder with guardrails that bind the policy; may be repeated")
	fs.StringVar(&f.namespace, "namespace", "", "namespace of the policy (default: as its .manifest says)")
	fs.StringVar(&f.subject, "subject", "", "TYPE:ID of who asks")
	fs.StringVar(&f.action, "action", "", "name of the action")
	fs.StringVar(&f.resource, "resource", "", "TYPE:ID of what it is done to")
	fs.StringArrayVar(&f.context, "context", nil, "NAME=TEXT or NAME:=JSON; may be repeated")
	fs.StringVar(&f.at, "time", "", "time of the decision, for instance 2026-01-05T12:00:00Z (default: now)")
	fs.BoolVar(&f.all, "all", false, "show every rule, also where many end at their first expression")
	fs.DurationVar(&f.limit, "timeout", 30*time.Second, "how long it may take")
	completeFolders(cmd, "guardrail")
	f.out.flag(cmd, formatJSON)
	return cmd
}

func (f *explainFlags) explain(ctx context.Context, w world, dir string) error {
	if err := f.out.check(); err != nil {
		return err
	}
	stamp := time.Now()
	if f.at != "" {
		var err error
		if stamp, err = time.Parse(time.RFC3339, f.at); err != nil {
			return policy.Errorf(policy.BadRequest, "--time is %q; write it as 2026-01-05T12:00:00Z", f.at)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, f.limit)
	defer cancel()
	r, err := f.request(w)
	if err != nil {
		return err
	}
	x, err := f.explainFolders(ctx, &r, dir, rego.NewStamp(stamp))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return policy.Errorf(policy.Exhausted, "the explanation took longer than %s; allow it more with --timeout", f.limit)
	}
	if err != nil {
		return err
	}
	if f.out.format == formatJSON {
		err = writeJSON(w.stdout, x.report())
	} else {
		err = x.text(w.stdout, f.all)
	}
	switch {
	case err != nil:
		return err
	case x.disagreement() != "":
		return policy.Errorf(policy.Internal, "this is a bug of Microwall or of OPA; please report it, with the policy and the request: %s", x.disagreement())
	case x.err != nil:
		return x.err
	case !x.decision.Allowed:
		return errNo
	}
	return nil
}

// explanation of a decision.
type explanation struct {
	namespace policy.Namespace
	decision  policy.Decision
	err       error       // why there is no decision
	policies  []explained // guardrails from the outermost in, then the namespace
}

// explained is one policy on the way.
type explained struct {
	*rego.Explanation
	namespace policy.Namespace
	guardrail bool
	dir       string
}

// explainFolders decides by folders, and explains each of them.
func (f *explainFlags) explainFolders(ctx context.Context, r *policy.Request, dir string, stamp rego.Stamp) (*explanation, error) {
	own, guardrails, snapshot, err := f.openFolders(ctx, r, dir)
	if err != nil {
		return nil, err
	}
	if err := (policy.Limits{}).Check(r); err != nil {
		return nil, err
	}
	path, err := snapshot.Path(r.Namespace)
	if err != nil {
		return nil, err
	}
	in := rego.NewInput(r, stamp)
	x := &explanation{namespace: r.Namespace}
	if x.decision, x.err = path.Decide(ctx, in); x.err != nil && ctx.Err() != nil {
		return nil, x.err
	}
	for _, v := range path.Versions() {
		e := explained{namespace: v.Namespace, guardrail: v.Namespace != r.Namespace, dir: dir}
		folder, how := own, rego.Explain
		if e.guardrail {
			folder, how = folderOf(guardrails, v.Namespace), rego.ExplainGuardrail
		}
		e.dir = folder.dir
		if e.Explanation, err = how(ctx, live.SourceOf(folder.bundle), in); err != nil {
			return nil, fmt.Errorf("explain %s: %w", v.Namespace, err)
		}
		x.policies = append(x.policies, e)
	}
	return x, nil
}

func folderOf(all []*policyFolder, n policy.Namespace) *policyFolder {
	for _, f := range all {
		if f.bundle.Namespace() == n {
			return f
		}
	}
	return nil
}

// disagreement says how the two evaluators answer differently, "" if they do not.
func (x *explanation) disagreement() string {
	for _, p := range x.policies {
		if p.Disagreement != "" {
			return fmt.Sprintf("namespace %s: %s", p.namespace, p.Disagreement)
		}
	}
	return ""
}

// verdict is the decision in a word.
func (x *explanation) verdict() string {
	switch {
	case x.err != nil:
		return "error"
	case x.decision.Allowed:
		return "allowed"
	}
	return "denied"
}

// closest returns the rule for allow that got furthest, nil if there is none.
func closest(all []rego.Attempt) *rego.Attempt {
	var best *rego.Attempt
	for i := range all {
		a := &all[i]
		if !a.Default && !a.Held && (best == nil || cmp.Compare(held(a.Steps), held(best.Steps)) > 0) {
			best = a
		}
	}
	return best
}

func held(steps []rego.Step) int {
	n := 0
	for _, s := range steps {
		if s.Held {
			n++
		}
	}
	return n
}
