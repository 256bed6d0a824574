package authzen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/microwall/microwall/policy"
)

// maxDepth bounds the nesting of the whole document, so that no document
// exhausts a stack. policy.NewProperties allows less inside properties.
const maxDepth = 128

// ParseRequest reads one request. Its namespace is the default one if the
// request has no member of that name; an empty one that is there is not
// replaced. What is missing is left empty: policy.Limits.Check says which fields
// are required. Whoever calls it bounds the size of src.
//
// Errors are of kind policy.BadRequest and name the member. They come with the
// zero Request.
func ParseRequest(src []byte, defaultNamespace policy.Namespace, options ...Option) (policy.Request, error) {
	d := newDecoder(src)
	for _, set := range options {
		set(&d)
	}
	r, err := d.request(defaultNamespace)
	if err == nil {
		err = d.end()
	}
	if err != nil {
		return policy.Request{}, asBadRequest(err)
	}
	return r, nil
}

// Option of [ParseRequest].
type Option func(*decoder)

// Ignored tells of each member that is ignored, in their order: its path, for
// instance "subject.colour", and the sorted names that are known in its place. It
// is for doors that are not AuthZEN's, where such a member is a slip.
func Ignored(tell func(path string, known []string)) Option {
	return func(d *decoder) { d.ignored = tell }
}

// asBadRequest keeps the errors of this package and explains those of the JSON
// decoder.
func asBadRequest(err error) error {
	var own *policy.Error
	switch {
	case errors.As(err, &own):
		return err
	case errors.Is(err, io.EOF):
		return policy.Errorf(policy.BadRequest, "request is empty; send an AuthZEN request as JSON: {\"subject\": ..., \"action\": ..., \"resource\": ...}")
	}
	return policy.Errorf(policy.BadRequest, "request is not JSON as it must be: %w", err)
}

type decoder struct {
	*jsontext.Decoder
	ignored func(path string, known []string) // nil tells nobody
}

func newDecoder(src []byte) decoder {
	return decoder{Decoder: jsontext.NewDecoder(bytes.NewBuffer(src))}
}

// member reads the value of one member of an object; path is how errors call
// it.
type member func(path string) error

func (d decoder) request(namespace policy.Namespace) (policy.Request, error) {
	r := policy.Request{Namespace: namespace}
	err := d.object("", map[string]member{
		"namespace": func(path string) error {
			text, err := d.text(path)
			r.Namespace = policy.Namespace(text)
			return err
		},
		"subject": func(path string) error { return d.entity(path, &r.Subject) },
		"action": func(path string) error {
			return d.object(path, map[string]member{
				"name":       d.into(&r.Action.Name),
				"properties": d.intoProperties(&r.Action.Properties),
			})
		},
		"resource":    func(path string) error { return d.entity(path, &r.Resource) },
		"context":     d.intoProperties(&r.Context),
		"evaluations": d.evaluations,
	})
	return r, err
}

func (d decoder) entity(path string, e *policy.Entity) error {
	return d.object(path, map[string]member{
		"type":       d.into(&e.Type),
		"id":         d.into(&e.ID),
		"properties": d.intoProperties(&e.Properties),
	})
}

// evaluations refuses a batch. AuthZEN reads a batch whose evaluations are
// empty as a single request.
func (d decoder) evaluations(path string) error {
	v, err := d.value(path)
	if err != nil {
		return err
	}
	if list, ok := v.([]any); ok && len(list) == 0 {
		return nil
	}
	return policy.Errorf(policy.BadRequest, "evaluations asks for more decisions than one; send each as a request of its own")
}

func (d decoder) into(to *string) member {
	return func(path string) (err error) {
		*to, err = d.text(path)
		return err
	}
}

func (d decoder) intoProperties(to *policy.Properties) member {
	return func(path string) error {
		if err := d.expect(path, jsontext.KindBeginObject, "an object"); err != nil {
			return err
		}
		v, err := d.value(path)
		if err != nil {
			return err
		}
		if *to, err = policy.NewProperties(v.(map[string]any)); err != nil {
			return under(path, err)
		}
		return nil
	}
}

// under puts the path of a field before an error that names the path inside it.
func under(path string, err error) error {
	text := err.Error()
	if !strings.HasPrefix(text, " ") { // the fault is inside, not the field itself
		text = "." + text
	}
	return policy.Errorf(policy.KindOf(err), "%s%s", path, text)
}

// object reads an object whose known members are read by their functions.
// Unknown members are ignored, but have to be JSON.
func (d decoder) object(path string, known map[string]member) error {
	if err := d.expect(path, jsontext.KindBeginObject, "an object"); err != nil {
		return err
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != jsontext.KindEndObject {
		token, err := d.ReadToken()
		if err != nil {
			return err
		}
		name := token.String()
		read, ok := known[name]
		if !ok {
			if err := otherCase(path, name, known); err != nil {
				return err
			}
			read = func(path string) error {
				if d.ignored != nil {
					d.ignored(path, slices.Sorted(maps.Keys(known)))
				}
				_, err := d.value(path)
				return err
			}
		}
		if err := read(join(path, name)); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// otherCase refuses a name that some readers would take for a known one.
func otherCase(path, name string, known map[string]member) error {
	for k := range known {
		if strings.EqualFold(k, name) {
			return policy.Errorf(policy.BadRequest, "%.200q is written %q; names are compared letter by letter", join(path, name), join(path, k))
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (d decoder) text(path string) (string, error) {
	if err := d.expect(path, jsontext.KindString, "a string"); err != nil {
		return "", err
	}
	token, err := d.ReadToken()
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

// expect makes sure that a value of that kind is next.
func (d decoder) expect(path string, kind jsontext.Kind, want string) error {
	switch got := d.PeekKind(); got {
	case kind:
		return nil
	case jsontext.KindInvalid:
		_, err := d.ReadToken() // says what is wrong
		return err
	default:
		if path == "" {
			path = "request"
		}
		return policy.Errorf(policy.BadRequest, "%s is %s; it must be %s", path, typeNames[got], want)
	}
}

var typeNames = map[jsontext.Kind]string{
	jsontext.KindNull:        "null",
	jsontext.KindTrue:        "a boolean",
	jsontext.KindFalse:       "a boolean",
	jsontext.KindString:      "a string",
	jsontext.KindNumber:      "a number",
	jsontext.KindBeginArray:  "an array",
	jsontext.KindBeginObject: "an object",
}

// value reads any value as the Go values that policy.NewProperties takes.
func (d decoder) value(path string) (any, error) {
	if d.StackDepth() > maxDepth {
		return nil, policy.Errorf(policy.BadRequest, "%.200s is nested deeper than %d levels", path, maxDepth)
	}
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case jsontext.KindNull:
		return nil, nil
	case jsontext.KindTrue, jsontext.KindFalse:
		return token.Bool(), nil
	case jsontext.KindString:
		return token.String(), nil
	case jsontext.KindNumber:
		return json.Number(token.String()), nil
	case jsontext.KindBeginArray:
		list := []any{}
		for d.PeekKind() != jsontext.KindEndArray {
			v, err := d.value(path)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.ReadToken()
		return list, err
	case jsontext.KindBeginObject:
		object := map[string]any{}
		for d.PeekKind() != jsontext.KindEndObject {
			token, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			name := token.String()
			if object[name], err = d.value(path); err != nil {
				return nil, err
			}
		}
		_, err := d.ReadToken()
		return object, err
	}
	return nil, fmt.Errorf("unexpected %s", token.Kind())
}

// end makes sure that nothing follows the request.
func (d decoder) end() error {
	switch _, err := d.ReadToken(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return policy.Errorf(policy.BadRequest, "something follows the request; send one request and nothing else")
}
