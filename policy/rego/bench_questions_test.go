package rego_test

import (
	"encoding/json"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/microwall/microwall/policy"
)

// shape is one kind of policy as teams write it, and questions that it is asked
// in turn: allowed and denied ones, so that no engine is measured on one lucky
// branch.
type shape struct {
	name      string
	module    string
	data      map[string]any // as encoding/json decodes it
	text      []byte         // the data as JSON, in place of data where there is much
	questions []question
	// cedar is the same policy for Cedar. It is nil where Cedar has no words
	// for the question: its expressions cannot bind a member of a list, sum or
	// compare in a loop (comprehensions), and know no regular expressions
	// (strings).
	cedar *cedarShape
}

// question is a request and the whole answer to it.
type question struct {
	name        string
	subject     entity
	action      string
	resource    entity
	context     map[string]any
	allow       bool
	deny        []string
	reasons     []string
	obligations string // as JSON; empty is {}
}

type entity struct {
	kind, id   string
	properties map[string]any
}

// cedarShape is a shape in Cedar's words.
type cedarShape struct {
	policies string
	entities cedar.EntityMap
	// request puts a question; what it says of subject and resource stands in
	// their entities, which request adds.
	request func(q question) cedar.Request
}

// request returns the question as callers of Microwall hold it.
func (q question) request(tb testing.TB) policy.Request {
	tb.Helper()
	properties := func(m map[string]any) policy.Properties {
		p, err := policy.NewProperties(m)
		if err != nil {
			tb.Fatal(err)
		}
		return p
	}
	r := policy.Request{
		Namespace: "shop.bench",
		Subject:   policy.Entity{Type: q.subject.kind, ID: q.subject.id, Properties: properties(q.subject.properties)},
		Action:    policy.Action{Name: q.action},
		Resource:  policy.Entity{Type: q.resource.kind, ID: q.resource.id, Properties: properties(q.resource.properties)},
		Context:   properties(q.context),
	}
	if err := (policy.Limits{}).Check(&r); err != nil {
		tb.Fatal(err)
	}
	return r
}

// input returns the question as callers of OPA hold it. It has no time: none of
// the policies reads one, so that a caller of OPA would not pay for it.
func (q question) input() map[string]any {
	object := func(e entity) map[string]any {
		return map[string]any{"type": e.kind, "id": e.id, "properties": orEmpty(e.properties)}
	}
	return map[string]any{
		"subject":  object(q.subject),
		"action":   map[string]any{"name": q.action, "properties": map[string]any{}},
		"resource": object(q.resource),
		"context":  orEmpty(q.context),
	}
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

// want is the answer that a question has.
func (q question) want() answer {
	a := answer{q.allow, q.deny, q.reasons, q.obligations}
	if a.obligations == "" {
		a.obligations = "{}"
	}
	return a
}

// object returns the shape's data as OPA's store takes it.
func (s *shape) object(tb testing.TB) map[string]any {
	tb.Helper()
	data := s.data
	if s.text != nil {
		if err := util.UnmarshalJSON(s.text, &data); err != nil {
			tb.Fatal(err)
		}
	}
	return orEmpty(data)
}

// json returns the shape's data as a bundle has it.
func (s *shape) json(tb testing.TB) []byte {
	tb.Helper()
	if s.data == nil {
		return s.text
	}
	text, err := json.Marshal(s.data)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func uid(kind cedar.EntityType, id string) cedar.EntityUID {
	return cedar.NewEntityUID(kind, cedar.String(id))
}

// add adds an entity.
func (s *cedarShape) add(kind cedar.EntityType, id string, attributes cedar.RecordMap, parents ...cedar.EntityUID) {
	u := uid(kind, id)
	s.entities[u] = cedar.Entity{UID: u, Parents: cedar.NewEntityUIDSet(parents...), Attributes: cedar.NewRecord(attributes)}
}
