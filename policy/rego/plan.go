package rego

import (
	"context"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/rego"
)

type planner struct {
	sync.Mutex
	plan *ir.Policy
}

func (p *planner) IsTarget(t string) bool { return t == "microwall" }

func (p *planner) PrepareForEval(_ context.Context, plan *ir.Policy, _ ...rego.PrepareOption) (rego.TargetPluginEval, error) {
	p.plan = plan
	return nil, nil
}

var thePlanner = func() *planner {
	p := &planner{}
	rego.RegisterPlugin("microwall", p)
	return p
}()

func plan(ctx context.Context, compiler *ast.Compiler, query string) (*ir.Policy, error) {
	thePlanner.Lock()
	defer thePlanner.Unlock()
	_, err := rego.New(rego.Query(query), rego.Compiler(compiler), rego.Target("microwall"), rego.SetRegoVersion(ast.RegoV1)).PrepareForEval(ctx)
	return thePlanner.plan, err
}
