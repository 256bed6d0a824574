package wire

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/policy"
)

// Properties reads s in place; nil is {}. The error names the path inside s.
func Properties(s *structpb.Struct) (policy.Properties, error) {
	if len(s.GetFields()) == 0 {
		return policy.Properties{}, nil
	}
	return policy.ReadProperties((*object)(s))
}

// object and array let package policy read protobuf's values where they are.
type (
	object structpb.Struct
	array  structpb.ListValue
)

func (o *object) Len() int                     { return len(o.Fields) }
func (o *object) Get(name string) policy.Value { return member(o.Fields, name) }
func (o *object) Names() iter.Seq[string]      { return maps.Keys(o.Fields) }

// Index is never called: an object has no elements.
func (o *object) Index(int) policy.Value { return policy.Value{} }

func (a *array) Len() int                 { return len(a.Values) }
func (a *array) Index(i int) policy.Value { return value(a.Values[i]) }
func (a *array) Get(string) policy.Value  { return policy.Value{} }
func (a *array) Names() iter.Seq[string]  { return func(func(string) bool) {} }

func member(fields map[string]*structpb.Value, name string) policy.Value {
	v, ok := fields[name]
	if !ok {
		return policy.Value{}
	}
	return value(v)
}

func value(v *structpb.Value) policy.Value {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_NullValue:
		return policy.NullValue()
	case *structpb.Value_BoolValue:
		return policy.BoolValue(kind.BoolValue)
	case *structpb.Value_NumberValue:
		return policy.FloatValue(kind.NumberValue)
	case *structpb.Value_StringValue:
		return policy.StringValue(kind.StringValue)
	case *structpb.Value_StructValue:
		if kind.StructValue != nil {
			return policy.ObjectValue((*object)(kind.StructValue))
		}
	case *structpb.Value_ListValue:
		if kind.ListValue != nil {
			return policy.ArrayValue((*array)(kind.ListValue))
		}
	}
	return policy.InvalidValue("has no value")
}

// PropertiesProto copies properties into protobuf; {} is nil. A number that a
// double cannot say exactly is an error that names the path: protobuf's values
// have no other numbers.
func PropertiesProto(p policy.Properties) (*structpb.Struct, error) {
	if p.Len() == 0 {
		return nil, nil
	}
	v, bad := valueProto(p.Value())
	if bad != nil {
		return nil, policy.Errorf(policy.BadRequest, "%s is %s, which a double cannot say exactly; send it as a string", bad.where(), bad.number)
	}
	return v.GetStructValue(), nil
}

// inexact is a number that protobuf cannot carry, and the way to it, the
// innermost step first: it is put together only once it is needed.
type inexact struct {
	number json.Number
	path   []string
}

func (b *inexact) where() string {
	slices.Reverse(b.path)
	return strings.Join(b.path, "")
}

func valueProto(v policy.Value) (*structpb.Value, *inexact) {
	switch v.Type() {
	case policy.Bool:
		return structpb.NewBoolValue(v.Bool()), nil
	case policy.String:
		return structpb.NewStringValue(v.Text()), nil
	case policy.Number:
		f, exact := v.Float64()
		if !exact {
			return nil, &inexact{number: v.Number()}
		}
		return structpb.NewNumberValue(f), nil
	case policy.Array:
		list := &structpb.ListValue{Values: make([]*structpb.Value, v.Len())}
		for i := range list.GetValues() {
			element, bad := valueProto(v.Index(i))
			if bad != nil {
				bad.path = append(bad.path, "["+strconv.Itoa(i)+"]")
				return nil, bad
			}
			list.Values[i] = element
		}
		return structpb.NewListValue(list), nil
	case policy.Object:
		s := &structpb.Struct{Fields: make(map[string]*structpb.Value, v.Len())}
		for name := range v.Names() {
			member, bad := valueProto(v.Get(name))
			if bad != nil {
				bad.path = append(bad.path, "."+name)
				return nil, bad
			}
			s.Fields[name] = member
		}
		return structpb.NewStructValue(s), nil
	}
	return structpb.NewNullValue(), nil
}
