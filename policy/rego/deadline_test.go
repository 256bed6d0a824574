package rego_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// What takes longer than its budget ends when that is over, whatever it is doing.
// Sets and objects whose members are long are put in order by many comparisons of
// the same: none of the ways to ask for that may run on.
func TestNothingGoesOnAfterItsDeadline(t *testing.T) {
	if race {
		t.Skip("it measures time, of which the race detector takes many times as much: run it without")
	}
	const (
		pairs  = "pairs := {[big, (i * 7919) % 100003] | some i in numbers.range(1, 1500)}\n"
		held   = "big := input.context.big\n" + pairs
		built  = "big := [{\"a\": i, \"b\": 1} | some i in numbers.range(1, 300)]\n" + pairs
		sets   = "big := {[(i * 7919) % 307, {i}] | some i in numbers.range(1, 306)}\n" + pairs
		keyed  = built + "keyed := {p: 1 | some p in pairs}\n"
		texts  = "long := concat(\"\", [sprintf(\"%09d\", [i]) | some i in numbers.range(1, 5000)])\ntexts := {concat(\"\", [long, sprintf(\"%d\", [(i * 7919) % 100003])]) | some i in numbers.range(1, 500)}\n"
		whole  = "whole := {j | some i in numbers.range(1, 300000); j := (i * 7919) % 1000003}\n"
		nested = built + "nested := {\"a\": [{\"b\": pairs}]}\n"
	)
	var big []any
	names := map[string]any{}
	for i := range 300 {
		big = append(big, map[string]any{"aaaaaa": i, "bbbbbb": 1})
	}
	for i := range 100_000 {
		names[fmt.Sprint(i*7919%1_000_003)] = i
	}
	for name, module := range map[string]string{
		"a loop over what the request has": held + "allow if { some p in pairs; p[1] == input.context.q }",
		"a loop":                           built + "allow if { some p in pairs; p[1] == -1 }",
		"a loop over sets":                 sets + "allow if { some p in pairs; p[1] == -1 }",
		"a loop over an object":            keyed + "allow if { some k, _ in keyed; k[1] == -1 }",
		"a loop over numbers":              whole + "allow if { some n in whole; n < 0 }",
		"a loop over names":                "allow if { some i in numbers.range(1, 1000); some k, _ in input.context.names; k == sprintf(\"x%d\", [i]) }",
		"every":                            built + "allow if { every p in pairs { p[1] > 0 } }",
		"max":                              built + "allow if max(pairs)[1] == -1",
		"max of numbers":                   whole + "allow if max(whole) == -1",
		"sort":                             built + "allow if sort(pairs)[0] == -1",
		"an intersection":                  built + "allow if (pairs & pairs) == {1}",
		"a union":                          built + "allow if (pairs | {1}) == {1}",
		"a set of sets":                    built + "allow if union({pairs, {1}}) == {1}",
		"keys":                             keyed + "allow if object.keys(keyed) == {1}",
		"removing":                         keyed + "allow if object.remove(keyed, [1]) == {}",
		"merging":                          keyed + "allow if object.union(keyed, {1: 2}) == {}",
		"a subset":                         built + "allow if object.subset({1}, pairs)",
		"a text":                           built + "allow if sprintf(\"%v\", [pairs]) == \"\"",
		"a concatenation":                  texts + "allow if concat(\"\", texts) == \"\"",
		"JSON":                             "big := \"" + strings.Repeat("0123456789", 20_000) + "\"\n" + pairs[:len(pairs)-6] + "900)}\nallow if json.marshal({\"a\": {[c, x] | some x in pairs; c := 1}}) == \"\"",
		"JSON of what is nested":           nested + "allow if json.marshal(nested) == \"\"",
		"a walk":                           nested + "allow if walk(nested, [[1], _])",
		"a comparison":                     built + "allow if { less := {p | some p in numbers.range(1, 1500)}; other := {[big, p] | some p in less}; other < pairs }",
		"comparisons of what is nested":    nested + "allow if [1, nested] < [1, {\"a\": [{\"b\": {[big, (i * 7919) % 100019] | some i in numbers.range(1, 1500)}}]}]",
		"an answer":                        texts + "allow := true\ndeny contains x if some x in texts\ndeny contains y if { some x in texts; y := concat(x, [\"\", \"\"]) }",
		"an obligation":                    built + "allow := true\nobligations[\"a\"] := pairs",
		"an input that is replaced":        held + "allow if { some i in numbers.range(1, 100); q with input.context.names.a as i }\nq if input.context.names.b",
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t)
			r.Context = props(t, map[string]any{"big": big, "names": names, "q": -1})
			in := rego.NewInput(&r, noon)
			for _, limit := range []time.Duration{50 * time.Millisecond, 150 * time.Millisecond, 300 * time.Millisecond} {
				p, err := rego.Compile(t.Context(), source("package authz\n"+module, "{}"), rego.Options{Budget: limit, Steps: 1 << 60, Bytes: 2 << 30})
				if err != nil {
					t.Fatal(err)
				}
				over := time.Hour
				for range 6 { // the machine has other work, too
					start := time.Now()
					_, err = p.Evaluate(t.Context(), in)
					over = min(over, time.Since(start)-limit)
					if over < 10*time.Millisecond {
						break
					}
				}
				if over >= 10*time.Millisecond {
					t.Errorf("with %s, it takes %s more: %v", limit, over, err)
				}
				if e, ok := errors.AsType[*policy.Error](err); err != nil && (!ok || e.Kind != policy.Failed || !strings.Contains(e.Error(), "budget")) {
					t.Errorf("with %s: %v", limit, err)
				}
			}
		})
	}
}
