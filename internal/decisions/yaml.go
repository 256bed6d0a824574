package decisions

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/microwall/microwall/policy"
)

// File is the name of the file in a policy's folder.
const File = "decisions.yaml"

// maxFile bounds a file, in bytes.
const maxFile = 16 << 20

// Error is what is wrong with a file, and where. Its kind is policy.BadRequest.
type Error struct {
	// Line and Column count from 1; 0 where they are not known.
	Line, Column int
	// Message says what is wrong.
	Message string
}

// Error returns the place and the message.
func (e *Error) Error() string {
	if e.Line == 0 {
		return File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", File, e.Line, e.Column, e.Message)
}

// Unwrap gives the error its kind.
func (e *Error) Unwrap() error {
	return &policy.Error{Kind: policy.BadRequest, Message: e.Error()}
}

func fail(n *yaml.Node, format string, args ...any) error {
	return &Error{Line: n.Line, Column: n.Column, Message: fmt.Sprintf(format, args...)}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(?s:(.*))$`)

// document reads YAML's nodes. They are read here one by one, rather than
// decoded into Go values, because decoding would lose the spelling of numbers,
// take null for anything, and follow aliases.
func document(file []byte) (*yaml.Node, error) {
	if len(file) > maxFile {
		return nil, policy.Errorf(policy.Exhausted, "%s is %d bytes, the limit is %d; write fewer decisions", File, len(file), maxFile)
	}
	if !utf8.Valid(file) {
		return nil, &Error{Message: "the file is not UTF-8"}
	}
	d := yaml.NewDecoder(bytes.NewReader(file))
	var doc yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, &Error{Message: "the file is empty; write decisions into it, or remove it"}
	case err != nil:
		return nil, notYAML(err)
	}
	switch err := d.Decode(new(yaml.Node)); {
	case err == nil:
		return nil, &Error{Message: "the file has more documents than one; keep one"}
	case !errors.Is(err, io.EOF):
		return nil, notYAML(err)
	}
	root := doc.Content[0]
	return root, plain(root)
}

func notYAML(err error) error {
	e := &Error{Message: "the file is not YAML: " + err.Error()}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		e.Message = "the file is not YAML: " + m[2]
		if e.Line, _ = strconv.Atoi(m[1]); e.Line > 0 {
			e.Column = 1
		}
	}
	return e
}

// plain refuses what YAML has beyond plain values.
func plain(n *yaml.Node) error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return fail(n, "anchors and aliases are refused; write the value out")
	case n.Style&yaml.TaggedStyle != 0:
		return fail(n, "tags are refused; leave %.100s away", n.Tag)
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && child.ShortTag() != "!!str" {
			return fail(child, "a name must be a text; put it in quotes if it is one")
		}
		if err := plain(child); err != nil {
			return err
		}
	}
	return nil
}

// members returns the members of a mapping, each once, no others than known
// ones. Nothing known means that every name is.
func members(n *yaml.Node, what string, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, fail(n, "%s must be a mapping of names to values, not %s", what, describe(n))
	}
	all := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		name := n.Content[i].Value
		if len(known) > 0 && !slices.Contains(known, name) {
			return nil, fail(n.Content[i], "%s: unknown name %.200q; known are %s", what, name, strings.Join(known, ", "))
		}
		if all[name] != nil {
			return nil, fail(n.Content[i], "%s: %.200q is there twice", what, name)
		}
		all[name] = n.Content[i+1]
	}
	return all, nil
}

func items(n *yaml.Node, what string) ([]*yaml.Node, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, fail(n, "%s must be a list, not %s", what, describe(n))
	}
	return n.Content, nil
}

func text(n *yaml.Node, what string) (string, error) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return "", fail(n, "%s must be a text, not %s; put it in quotes if it is one", what, describe(n))
	}
	return n.Value, nil
}

func boolean(n *yaml.Node, what string) (bool, error) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		if b, err := strconv.ParseBool(n.Value); err == nil {
			return b, nil
		}
	}
	return false, fail(n, "%s must be true or false, not %s", what, describe(n))
}

// properties reads an object as JSON would give it.
func properties(n *yaml.Node, what string) (policy.Properties, error) {
	if n.Kind != yaml.MappingNode {
		return policy.Properties{}, fail(n, "%s must be a mapping of names to values, not %s", what, describe(n))
	}
	v, err := value(n, what)
	if err != nil {
		return policy.Properties{}, err
	}
	p, err := policy.NewProperties(v.(map[string]any))
	if err != nil {
		return policy.Properties{}, fail(n, "%s: %v", what, err)
	}
	return p, nil
}

// value reads any value as the Go values that policy.NewProperties takes.
func value(n *yaml.Node, what string) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		all, err := members(n, what)
		if err != nil {
			return nil, err
		}
		object := make(map[string]any, len(all))
		for name, member := range all {
			if object[name], err = value(member, what); err != nil {
				return nil, err
			}
		}
		return object, nil
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			var err error
			if list[i], err = value(item, what); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		return boolean(n, what)
	case "!!str":
		// YAML takes a number that is out of its range for a text.
		if n.Style == 0 && likeNumber.MatchString(n.Value) {
			return number(n, what)
		}
		return n.Value, nil
	case "!!int", "!!float":
		return number(n, what)
	}
	return nil, fail(n, "%s: JSON has no such value as %.100s; put it in quotes if it is a text", what, n.Value)
}

var likeNumber = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)

// number keeps the spelling, if it is one that JSON has.
func number(n *yaml.Node, what string) (any, error) {
	v := json.Number(n.Value)
	if _, err := policy.NewProperties(map[string]any{n.Value: v}); err != nil {
		return nil, fail(n, "%s: %v; write it as JSON has it, or put it in quotes", what, err)
	}
	return v, nil
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	}
	return "a text"
}
