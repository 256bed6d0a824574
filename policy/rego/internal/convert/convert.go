// Package convert turns values into OPA's and back. Nothing is lost on the way:
// numbers keep their spelling, objects may have keys of any kind, and sets are sets.
//
// It copies, and it has no budget: whoever converts knows the size of what is
// converted, or counts it first.
package convert

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// FromAST returns a value of OPA's. It returns an error if v is, or holds, what
// is no value but has yet to be evaluated (a variable, a reference, a call, a
// comprehension), or a number longer than [value.MaxNumeral]. A nil v gives the undefined Value.
func FromAST(v ast.Value) (value.Value, error) {
	switch v := v.(type) {
	case nil:
		return value.Value{}, nil
	case ast.Null:
		return value.NullValue, nil
	case ast.Boolean:
		return value.Boolean(bool(v)), nil
	case ast.Number:
		if len(v) > value.MaxNumeral {
			return value.Value{}, fmt.Errorf("a number of more than %d digits", value.MaxNumeral)
		}
		return value.NumberText(string(v)), nil
	case ast.String:
		return value.Text(string(v)), nil
	case *ast.Array:
		elems := make([]value.Value, v.Len())
		for i := range elems {
			var err error
			if elems[i], err = FromAST(v.Elem(i).Value); err != nil {
				return value.Value{}, err
			}
		}
		return value.NewArray(elems...), nil
	case ast.Object:
		object := value.NewObject(v.Len())
		err := v.Iter(func(k, e *ast.Term) error {
			key, err := FromAST(k.Value)
			if err != nil {
				return err
			}
			val, err := FromAST(e.Value)
			if err != nil {
				return err
			}
			object.Insert(key, val)
			return nil
		})
		return object, err
	case ast.Set:
		set := value.NewSet(v.Len())
		err := v.Iter(func(m *ast.Term) error {
			member, err := FromAST(m.Value)
			if err != nil {
				return err
			}
			set.Add(member)
			return nil
		})
		return set, err
	}
	return value.Value{}, fmt.Errorf("%s is not a value", ast.ValueName(v))
}

// ToAST returns a value as OPA's, nil for the undefined Value.
func ToAST(v value.Value) ast.Value {
	switch v.Kind() {
	case value.Null:
		return ast.InternedNullTerm.Value
	case value.Bool, value.Number, value.String:
		return ToTerm(v).Value
	case value.Array:
		terms := make([]*ast.Term, v.Len())
		for i := range terms {
			terms[i] = ToTerm(v.Elem(i))
		}
		return ast.NewArray(terms...)
	case value.Object:
		members := make([][2]*ast.Term, 0, v.Len())
		for key, val := range v.All() {
			members = append(members, ast.Item(ToTerm(key), ToTerm(val)))
		}
		return ast.NewObject(members...)
	case value.Set:
		terms := make([]*ast.Term, 0, v.Len())
		for member := range v.All() {
			terms = append(terms, ToTerm(member))
		}
		return ast.NewSet(terms...)
	}
	return nil
}

// ToTerm returns a value as a term of OPA's without a location.
func ToTerm(v value.Value) *ast.Term {
	switch v.Kind() {
	case value.Null:
		return ast.InternedNullTerm
	case value.Bool:
		return ast.InternedTerm(v.IsTrue())
	case value.Number:
		return ast.NewTerm(ast.Number(v.Numeral()))
	case value.String:
		return ast.NewTerm(ast.String(v.Text()))
	}
	return ast.NewTerm(ToAST(v))
}
