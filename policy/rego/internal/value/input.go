package value

import (
	"encoding/json"
	"time"

	"github.com/microwall/microwall/policy"
)

// Input is a request and the time of its decision, in AuthZEN's JSON shape. A
// [Value] made from it reads it in place, so it must not change meanwhile.
type Input struct {
	Request policy.Request
	// Unix is the time in seconds.
	Unix int64
}

// The parts of an input, which a view's num names.
const (
	viewInput = iota
	viewSubject
	viewAction
	viewResource
	viewTime
)

// viewMembers are the members of each part, sorted.
var viewMembers = [...][]string{
	viewInput:    {"action", "context", "resource", "subject", "time"},
	viewSubject:  {"id", "properties", "type"},
	viewAction:   {"name", "properties"},
	viewResource: {"id", "properties", "type"},
	viewTime:     {"date", "hour", "minute", "unix", "weekday"},
}

// Value returns the input as an object.
func (in *Input) Value() Value { return in.part(viewInput) }

func (in *Input) part(p uint64) Value {
	return Value{tag: Object.as(view), num: p, ref: in}
}

func (in *Input) get(part uint64, name string) Value {
	switch part {
	case viewInput:
		switch name {
		case "subject":
			return in.part(viewSubject)
		case "action":
			return in.part(viewAction)
		case "resource":
			return in.part(viewResource)
		case "context":
			return properties(in.Request.Context)
		case "time":
			return in.part(viewTime)
		}
	case viewSubject:
		return entity(&in.Request.Subject, name)
	case viewResource:
		return entity(&in.Request.Resource, name)
	case viewAction:
		switch name {
		case "name":
			return Text(in.Request.Action.Name)
		case "properties":
			return properties(in.Request.Action.Properties)
		}
	case viewTime:
		return in.time(name)
	}
	return Value{}
}

func entity(e *policy.Entity, name string) Value {
	switch name {
	case "id":
		return Text(e.ID)
	case "type":
		return Text(e.Type)
	case "properties":
		return properties(e.Properties)
	}
	return Value{}
}

var weekdays = [...]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

func (in *Input) time(name string) Value {
	t := time.Unix(in.Unix, 0).UTC()
	switch name {
	case "unix":
		return Int(in.Unix)
	case "hour":
		return Int(int64(t.Hour()))
	case "minute":
		return Int(int64(t.Minute()))
	case "date":
		return Text(t.Format(time.DateOnly))
	case "weekday":
		return Text(weekdays[t.Weekday()])
	}
	return Value{}
}

// properties returns properties as the object that they are.
func properties(p policy.Properties) Value {
	return Value{tag: Object.as(held), ref: p.Held()}
}

// FromPolicy returns a value of a request, read in place; the undefined Value
// for an absent one.
func FromPolicy(v policy.Value) Value {
	switch v.Type() {
	case policy.Null:
		return NullValue
	case policy.Bool:
		return Boolean(v.Bool())
	case policy.Number:
		if i, ok := v.Int64(); ok {
			return Int(i)
		}
		if f, ok := v.Float64(); ok {
			return Float(f)
		}
		return NumberText(string(v.Number()))
	case policy.String:
		return Text(v.Text())
	case policy.Array:
		return Value{tag: Array.as(held), ref: v.Held()}
	case policy.Object:
		return Value{tag: Object.as(held), ref: v.Held()}
	}
	return Value{}
}

// fromGo returns a Go value of a request. What is read most costs least.
func fromGo(x any) Value {
	switch x := x.(type) {
	case string:
		return Text(x)
	case bool:
		return Boolean(x)
	case map[string]any:
		return Value{tag: Object.as(held), ref: x}
	case []any, []string:
		return Value{tag: Array.as(held), ref: x}
	case json.Number:
		if i, ok := canonicalInt(string(x)); ok {
			return Int(i)
		}
	case int:
		return Int(int64(x))
	}
	return FromPolicy(policy.ValueOf(x))
}
