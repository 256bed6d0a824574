package live

import (
	"context"
	"fmt"

	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// Path is what decides the requests of one namespace: its guardrails and its
// own policy. It is immutable, but for the age of what it decides by, and safe
// for concurrent use.
type Path struct {
	namespace  policy.Namespace
	guardrails []guardrail // the outermost first
	own        *rego.Program
	versions   []policy.Version
	limits     []limit // of versions, if they can become stale
	layout     *decisionkey.Layout
	trust      uint64 // of its snapshot
	fault      error
}

type guardrail struct {
	namespace policy.Namespace
	program   *rego.Program
}

// Versions returns the versions that decide, guardrails from the outermost in,
// then the namespace. It must not be changed.
func (p *Path) Versions() []policy.Version { return p.versions }

// Layout returns how the keys of its decisions are built.
func (p *Path) Layout() *decisionkey.Layout { return p.layout }

// Decide asks the namespace's policy, and every guardrail for what binds it.
//
// Denied: every deny message on the path, and no obligations. Allowed: the
// reasons of the namespace, and the obligations of all; one that two of them
// give different values is an error. An error of any policy on the path is an
// error of the decision, of kind policy.Failed, or ctx's if ctx ended.
//
// What is decided depends on nothing but the versions and the input, and may be
// cached. Before it is handed out it goes through [Path.Judge].
func (p *Path) Decide(ctx context.Context, in *rego.Input) (policy.Decision, error) {
	own, err := p.own.Evaluate(ctx, in)
	if err != nil {
		return policy.Decision{}, p.failed(p.namespace, err)
	}
	var reasons []policy.Reason
	merged := obligations{}
	denied := !own.Allow
	for _, g := range p.guardrails {
		out, err := g.program.EvaluateGuardrail(ctx, in)
		if err != nil {
			return policy.Decision{}, p.failed(g.namespace, err)
		}
		reasons = appendReasons(reasons, g.namespace, out.Deny)
		merged = append(merged, obligation{g.namespace, out.Obligations})
	}
	reasons = appendReasons(reasons, p.namespace, own.Deny)
	if denied || len(reasons) > 0 {
		return policy.Decision{Reasons: reasons, Versions: p.versions, Evaluation: p.evaluation(in)}, nil
	}
	all := own.Obligations
	if len(p.guardrails) > 0 {
		all, err = append(merged, obligation{p.namespace, own.Obligations}).merge()
	}
	if err != nil {
		return policy.Decision{}, err
	}
	return policy.Decision{
		Allowed:     true,
		Reasons:     appendReasons(nil, p.namespace, own.Reasons),
		Obligations: all,
		Versions:    p.versions,
		Evaluation:  p.evaluation(in),
	}, nil
}

func (p *Path) evaluation(in *rego.Input) policy.Evaluation {
	return policy.Evaluation{Time: in.Stamp().Unix(), Engine: p.layout.Engine(), Trust: p.trust}
}

// failed says in which namespace an error happened, and by which versions if a policy
// is to blame.
func (p *Path) failed(n policy.Namespace, err error) error {
	err = fmt.Errorf("namespace %s: %w", n, err)
	if policy.KindOf(err) != policy.Failed {
		return err
	}
	return &policy.Error{Kind: policy.Failed, Message: err.Error(), Err: err, Versions: p.versions}
}

// appendReasons keeps reasons sorted: an ancestor's name sorts before those
// below it, and each outcome is sorted.
func appendReasons(to []policy.Reason, n policy.Namespace, texts []string) []policy.Reason {
	for _, text := range texts {
		to = append(to, policy.Reason{Namespace: n, Text: text})
	}
	return to
}

type obligation struct {
	from policy.Namespace
	all  policy.Properties
}

type obligations []obligation

// merge puts the obligations of a path together.
func (os obligations) merge() (policy.Properties, error) {
	var only policy.Properties
	givers := 0
	for _, o := range os {
		if o.all.Len() > 0 {
			only, givers = o.all, givers+1
		}
	}
	if givers < 2 {
		return only, nil
	}
	all := make(map[string]any)
	from := make(map[string]policy.Namespace)
	for _, o := range os {
		for name := range o.all.Value().Names() {
			value, _ := o.all.Get(name)
			if other, ok := all[name]; ok {
				if string(value.AppendJSON(nil)) != spelled(other) {
					return policy.Properties{}, policy.Errorf(policy.Failed, "obligation %q has different values in namespaces %s and %s; give one of them another name", name, from[name], o.from)
				}
				continue
			}
			all[name], from[name] = value.Any(), o.from
		}
	}
	return policy.NewProperties(all)
}

func spelled(v any) string {
	p, err := policy.NewProperties(map[string]any{"": v})
	if err != nil {
		return ""
	}
	member, _ := p.Get("")
	return string(member.AppendJSON(nil))
}
