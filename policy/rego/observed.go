package rego

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// observed is what is found out about one test while it runs.
type observed struct {
	test front.Test
	room *int // left in the report, in bytes

	output strings.Builder
	silent bool // there was no room for more

	failures []string // of calls, each text once
	more     int      // that were left out

	reached int64 // the last place in the text that the test has come to
	// entered are the cases that the test has come to, each with the last place
	// that it reached; now is the one that it is at.
	entered map[string]*int64
	now     *int64

	places map[int64]string // failures by the place that was reached

	value *outcome            // of a test without cases
	cases map[string]*outcome // of the others, by their names
}

// outcome of a test or a case.
type outcome struct {
	passed bool
	// but is what is there instead of true, "" for nothing.
	but     string
	reached int64
}

const (
	// mostFailures are how many failed calls are told of one test.
	mostFailures = 10
	// failureBytes are kept of a text that says why a test failed.
	failureBytes = 4 << 10
	// caseBytes are what a case takes, its names left out.
	caseBytes = 256
)

func observe(t front.Test, room *int) *observed {
	return &observed{test: t, room: room, reached: -1, entered: map[string]*int64{}, places: map[int64]string{}}
}

func (o *observed) watch() *builtin.Watch {
	return &builtin.Watch{Print: o.print, Case: o.enter, Reached: o.reach, Failed: o.fail}
}

// print is charged for by what calls it, but outlives the test.
func (o *observed) print(line string) {
	switch {
	case o.silent:
	case len(line)+1 > *o.room:
		o.silent = true
		o.output.WriteString("(the report has no room for more)\n")
	default:
		*o.room -= len(line) + 1
		o.output.WriteString(line + "\n")
	}
}

func (o *observed) fail(err error) {
	text := brief(err.Error())
	switch {
	case slices.Contains(o.failures, text):
	case len(o.failures) < mostFailures:
		o.failures = append(o.failures, text)
	default:
		o.more++
	}
}

func (o *observed) reach(place int64) {
	o.reached = max(o.reached, place)
	if o.now != nil {
		*o.now = max(*o.now, place)
	}
}

func (o *observed) enter(names []string) {
	key := caseName(names)
	at, ok := o.entered[key]
	if !ok {
		at = new(int64)
		*at = -1
		o.entered[key] = at
	}
	o.now = at
}

// caseName is what comes behind the name of the test.
func caseName(names []string) string { return "[" + strings.Join(names, "][") + "]" }

// judge takes over what the test is when it has come to its end.
func (o *observed) judge(c *builtin.Call, v value.Value) error {
	if !o.test.Cases || v.Kind() != value.Object {
		o.value = newOutcome(v)
		o.value.reached = o.reached
		return nil
	}
	o.cases = map[string]*outcome{}
	groups := map[string]bool{}
	if err := o.judgeCases(c, v, nil, groups); err != nil {
		return err
	}
	for name, reached := range o.entered {
		switch {
		case o.cases[name] != nil:
			o.cases[name].reached = *reached
		case !groups[name]:
			o.cases[name] = &outcome{reached: *reached}
		}
	}
	return nil
}

// judgeCases takes over the outcomes of the cases below names, and notes the
// names that have cases below them.
func (o *observed) judgeCases(c *builtin.Call, v value.Value, names []string, groups map[string]bool) error {
	members, err := c.Scan(v)
	if err != nil {
		return err
	}
	for key, member := range members.All() {
		name, err := c.CaseName(key)
		if err != nil {
			return err
		}
		below := append(slices.Clip(names), name)
		whole := caseName(below)
		if err := c.Work(1, int64(len(whole)+caseBytes)); err != nil {
			return err
		}
		if member.Kind() == value.Object && member.Len() > 0 {
			groups[whole] = true
			if err := o.judgeCases(c, member, below, groups); err != nil {
				return err
			}
			continue
		}
		found := newOutcome(member)
		if same := o.cases[whole]; same != nil && !same.passed {
			found = same // 1 and "1" have one name
		}
		o.cases[whole] = found
	}
	return nil
}

func newOutcome(v value.Value) *outcome {
	return &outcome{passed: v.IsTrue(), but: instead(v), reached: -1}
}

// instead returns how a failure names a value that should be true.
func instead(v value.Value) string {
	switch v.Kind() {
	case value.Undefined:
		return ""
	case value.Bool, value.Null:
		return v.String()
	case value.Array, value.Object:
		return "an " + v.Kind().String()
	}
	return "a " + v.Kind().String()
}

// results returns one result for each case, and one for a test that has none. So
// does a failure that is no case's.
func (o *observed) results(failure string, took time.Duration) []TestResult {
	whole := resultOf(o.test)
	whole.Output = o.output.String()
	whole.Duration = took
	switch {
	case failure != "":
		whole.Failure = brief(failure)
	case len(o.failures) > 0:
		whole.Failure = strings.Join(o.failures, "\n")
		if o.more > 0 {
			whole.Failure += fmt.Sprintf("\nand %d more", o.more)
		}
	case o.value != nil:
		whole.Failure = o.why(o.value)
	}
	var all []TestResult
	for name, c := range o.cases {
		if *o.room -= len(whole.Name) + len(name) + caseBytes; *o.room < 0 {
			whole.Failure = "the report has no room for all of its cases"
			break
		}
		one := whole
		one.Name += name
		one.Failure = o.why(c)
		one.Duration = took / time.Duration(len(o.cases))
		all = append(all, one)
	}
	if len(all) == 0 || whole.Failure != "" {
		if len(all) > 0 {
			whole.Duration = 0 // the cases have it
		}
		all = append(all, whole)
	}
	return all
}

// why returns why an outcome is a failure; "" if it is none.
func (o *observed) why(c *outcome) string {
	if c.passed {
		return ""
	}
	if c.but != "" {
		return "is not true, but " + c.but
	}
	return o.place(c.reached)
}

// place returns the failure of a test that came no further. Many cases may have
// the same.
func (o *observed) place(n int64) string {
	at := o.test.Places[n]
	if at == nil {
		return "is not true"
	}
	if o.places[n] == "" {
		text, _, cut := bytes.Cut(at.Text, []byte("\n"))
		failure := brief(fmt.Sprintf("is not true: %s:%d: %s", at.File, at.Row, text))
		if cut {
			failure += " ..."
		}
		o.places[n] = failure
	}
	return o.places[n]
}

// brief returns what is kept of a text.
func brief(text string) string {
	if len(text) <= failureBytes {
		return text
	}
	return strings.ToValidUTF8(text[:failureBytes], "") + "..."
}
