package builtin

import (
	"context"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// bridge returns the built-in that OPA's evaluator has under a name, with
// operands and results converted.
func bridge(name string) (*Builtin, bool) {
	return bridgeFor(name, func(c *Call, args []value.Value) error { return c.chargeBridge(name, args) })
}

// bridgeFor is bridge for another charge.
func bridgeFor(name string, charge func(c *Call, args []value.Value) error) (*Builtin, bool) {
	call := topdown.GetBuiltin(name)
	if call == nil {
		return nil, false
	}
	decl := ast.BuiltinMap[name]
	relation := decl != nil && decl.Relation
	return &Builtin{Name: name, Func: func(c *Call, args []value.Value) (value.Value, error) {
		if err := charge(c, args); err != nil {
			return value.Value{}, err
		}
		terms := make([]*ast.Term, len(args))
		for i, arg := range args {
			terms[i] = convert.ToTerm(arg)
		}
		results, err := results(name, call, *c.host(), terms)
		switch {
		case err != nil:
			return value.Value{}, c.bridgeError(err)
		case relation:
			return value.NewArray(results...), nil
		case len(results) == 0:
			return value.Value{}, nil
		}
		return results[0], nil
	}}, true
}

// results calls a built-in in OPA. A panic of it is an error; what the runtime
// does not let anybody recover from (a stack or a heap that is used up) is for
// the costs to prevent.
func results(name string, call topdown.BuiltinFunc, host topdown.BuiltinContext, terms []*ast.Term) (list []value.Value, err error) {
	defer func() {
		if p := recover(); p != nil {
			list, err = nil, fail(name, "panic: %v", p)
		}
	}()
	err = call(host, terms, func(result *ast.Term) error {
		if result == nil { // of one that only does something, such as print
			list = append(list, value.True)
			return nil
		}
		v, err := convert.FromAST(result.Value)
		if err != nil {
			return err
		}
		list = append(list, v)
		return nil
	})
	return list, err
}

// bridgeError returns an error of OPA's as ours. Its location is left out: that
// is for whoever made the call to add.
func (c *Call) bridgeError(err error) error {
	if e := c.opa.Context.Err(); e != nil {
		return e
	}
	halt, halts := errors.AsType[topdown.Halt](err)
	if halts {
		err = halt.Err
	}
	if e, ok := errors.AsType[*topdown.Error](err); ok {
		return &Error{Code: e.Code, Message: e.Message, Halts: halts}
	}
	return err
}

// host returns what OPA's built-ins are told of the evaluation. It is made when
// the first of them is called.
func (c *Call) host() *topdown.BuiltinContext {
	if c.opa == nil {
		if c.Host != nil {
			c.opa = c.Host()
		} else {
			c.opa = &topdown.BuiltinContext{
				Context: context.Background(), Cache: builtins.Cache{}, Capabilities: nowhere,
			}
		}
	}
	c.opa.Location = c.Location
	return c.opa
}

// nowhere lets a built-in reach no host.
var nowhere = &ast.Capabilities{AllowNet: []string{}}

// Cancel is how OPA's built-ins see that a context has ended.
type Cancel struct{ context.Context }

// Cancelled reports whether the context has ended.
func (c Cancel) Cancelled() bool { return c.Err() != nil }

// Cancel does nothing: whoever made the context ends it.
func (c Cancel) Cancel() {}

var _ topdown.Cancel = Cancel{}
