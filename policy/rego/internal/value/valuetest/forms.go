package valuetest

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

var forms = []struct {
	name string
	make func(doc any) value.Value
}{
	{"built", Built},
	{"packed", Packed},
	{"held in Go maps", Held},
	{"held in a composite", func(doc any) value.Value { return value.FromPolicy(inComposite(doc)) }},
}

// Built returns a document as an evaluation builds it.
func Built(doc any) value.Value {
	switch doc := doc.(type) {
	case nil:
		return value.NullValue
	case bool:
		return value.Boolean(doc)
	case string:
		return value.Text(doc)
	case json.Number:
		return value.NumberText(string(doc))
	case []any:
		v := value.NewArray()
		for _, e := range doc {
			v.Append(Built(e))
		}
		return v
	case map[string]any:
		v := value.NewObject(0)
		for name, e := range doc {
			v.Insert(value.Text(name), Built(e))
		}
		return v
	}
	panic(fmt.Sprintf("%T is not what encoding/json decodes to", doc))
}

// Packed returns a document in a [value.Data] of its own.
func Packed(doc any) value.Value {
	d, err := value.Pack(Built(map[string]any{"a": doc}))
	if err != nil {
		panic(err)
	}
	return d.Value().GetText("a")
}

// Held returns a document as a request has it in Go's maps.
func Held(doc any) value.Value { return value.FromPolicy(policy.ValueOf(plain(doc))) }

// plain has what Go programs have instead of what encoding/json decodes to.
func plain(doc any) any {
	switch doc := doc.(type) {
	case json.Number:
		if i, err := doc.Int64(); err == nil {
			return i
		}
	case []any:
		list, texts := make([]any, len(doc)), make([]string, 0, len(doc))
		for i, e := range doc {
			list[i] = plain(e)
			if s, ok := e.(string); ok {
				texts = append(texts, s)
			}
		}
		if len(texts) == len(list) {
			return texts
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(doc))
		for name, e := range doc {
			m[name] = plain(e)
		}
		return m
	}
	return doc
}

func requestNumber(n json.Number) (policy.Properties, error) {
	return policy.NewProperties(map[string]any{"n": n})
}

// composite holds an object or an array as protobuf's Struct does: behind
// policy.Composite.
type composite struct {
	members map[string]any
	elems   []any
}

func inComposite(doc any) policy.Value {
	switch doc := doc.(type) {
	case map[string]any:
		return policy.ObjectValue(&composite{members: doc})
	case []any:
		return policy.ArrayValue(&composite{elems: doc})
	}
	return policy.ValueOf(doc)
}

func (c *composite) Len() int { return len(c.members) + len(c.elems) }

func (c *composite) Get(name string) policy.Value {
	if e, ok := c.members[name]; ok {
		return inComposite(e)
	}
	return policy.Value{}
}

func (c *composite) Index(i int) policy.Value { return inComposite(c.elems[i]) }

func (c *composite) Names() iter.Seq[string] { return maps.Keys(c.members) }
