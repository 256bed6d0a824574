package front

import (
	"context"

	"github.com/open-policy-agent/opa/v1/ast"
)

func parse(ctx context.Context, src *Source) (map[string]*ast.Module, error) {
	options := ast.ParserOptions{
		Capabilities: src.Capabilities, RegoVersion: src.RegoVersion,
		FutureKeywords: src.FutureKeywords, ProcessAnnotation: src.Annotations,
	}
	var unparsed Unparsed
	modules := make(map[string]*ast.Module, len(src.Modules))
	for _, m := range src.Modules {
		if err := alive(ctx, "parse "+m.Path); err != nil {
			return nil, err
		}
		module, err := ast.ParseModuleWithOpts(m.Path, m.Text, options)
		switch {
		case err != nil:
			unparsed = append(unparsed, UnparsedModule{m.Path, err})
		case module == nil:
			unparsed = append(unparsed, UnparsedModule{m.Path, ErrEmpty})
		default:
			modules[m.Path] = module
		}
	}
	if len(unparsed) > 0 {
		return nil, unparsed
	}
	return modules, nil
}
