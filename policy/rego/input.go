package rego

import (
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy"
)

// Stamp is the time that a decision is made at, as policies see it in
// input.time: UTC, to the second. A caller cannot set it; whoever decides
// stamps once a decision or batch. Stamps are comparable.
type Stamp struct {
	unix int64
}

// NewStamp returns the stamp of t.
func NewStamp(t time.Time) Stamp { return Stamp{unix: t.Unix()} }

// Time returns the stamped time in UTC.
func (s Stamp) Time() time.Time { return time.Unix(s.unix, 0).UTC() }

var weekdays = [...]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

func (s Stamp) term() *ast.Term {
	t := s.Time()
	return object(
		"unix", ast.NumberTerm(json.Number(strconv.FormatInt(s.unix, 10))),
		"hour", ast.InternedTerm(t.Hour()),
		"minute", ast.InternedTerm(t.Minute()),
		"date", ast.StringTerm(t.Format(time.DateOnly)),
		"weekday", ast.StringTerm(weekdays[t.Weekday()]),
	)
}

// Input is what policies read: one request and its stamp, in AuthZEN's JSON
// shape with `time` beside it. Required fields are never empty, and properties
// and context are {} when absent. One Input serves every namespace on the path
// of a decision, one after the other; it is not safe for concurrent use.
type Input struct {
	value func() ast.Value
}

// NewInput returns the input for a request that policy.Limits has accepted.
// Nothing is converted before an evaluation needs it.
func NewInput(r *policy.Request, stamp Stamp) *Input {
	return &Input{value: sync.OnceValue(func() ast.Value {
		return object(
			"subject", entity(r.Subject),
			"action", object("name", ast.StringTerm(r.Action.Name), "properties", term(r.Action.Properties.Value())),
			"resource", entity(r.Resource),
			"context", term(r.Context.Value()),
			"time", stamp.term(),
		).Value
	})}
}

func entity(e policy.Entity) *ast.Term {
	return object("type", ast.StringTerm(e.Type), "id", ast.StringTerm(e.ID), "properties", term(e.Properties.Value()))
}

// object makes an object of names and values in turn.
func object(members ...any) *ast.Term {
	pairs := make([][2]*ast.Term, 0, len(members)/2)
	for i := 0; i < len(members); i += 2 {
		pairs = append(pairs, [2]*ast.Term{ast.InternedTerm(members[i].(string)), members[i+1].(*ast.Term)})
	}
	return ast.ObjectTerm(pairs...)
}

// term converts a value of a request.
func term(v policy.Value) *ast.Term {
	switch v.Type() {
	case policy.Bool:
		return ast.InternedTerm(v.Bool())
	case policy.Number:
		return ast.NumberTerm(v.Number())
	case policy.String:
		return ast.StringTerm(v.Text())
	case policy.Array:
		elems := make([]*ast.Term, v.Len())
		for i := range elems {
			elems[i] = term(v.Index(i))
		}
		return ast.ArrayTerm(elems...)
	case policy.Object:
		pairs := make([][2]*ast.Term, 0, v.Len())
		for name := range v.Names() {
			pairs = append(pairs, [2]*ast.Term{ast.StringTerm(name), term(v.Get(name))})
		}
		return ast.ObjectTerm(pairs...)
	}
	return ast.InternedNullTerm
}
