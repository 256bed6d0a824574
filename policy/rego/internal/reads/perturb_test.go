package reads_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/reads"
)

// A perturbation holds a set against OPA: it changes an input wherever the set
// lets it, and wants to see the same answer.
type perturbation struct {
	question *question
	set      *reads.Set
	// members are names that the policy may look for in objects.
	members []string
	// limit is how many changed inputs are evaluated, chosen by rand if there are
	// more; 0 for all.
	limit int
	rand  *rand.Rand

	agreement agreement
	// except is a set with which everything that agrees is left out.
	except *reads.Set

	evaluated int  // inputs that differ outside of the set
	failed    bool // the answer to the last input is an error
}

// An agreement says by what two inputs have to agree on a path that leads to
// nothing in both.
type agreement struct{ depth, kind bool }

// toTheLetter is what the package's documentation says.
var toTheLetter = agreement{depth: true, kind: true}

func newPerturbation(q *question, p *ir.Policy, set *reads.Set) *perturbation {
	d := &perturbation{question: q, set: set, agreement: toTheLetter, rand: rand.New(rand.NewPCG(1, 2))}
	for _, s := range p.Static.Strings {
		if len(d.members) < 40 && !slices.Contains(d.members, s.Value) {
			d.members = append(d.members, s.Value)
		}
	}
	return d
}

// errUnsteady is a question that has another answer each time it is asked.
var errUnsteady = fmt.Errorf("the answer is not steady")

// on tries an input. It returns a description of the first change outside of the
// set that is noticed, empty if none is.
func (d *perturbation) on(ctx context.Context, input ast.Value) (string, error) {
	want, err := d.question.eval(ctx, input)
	if err != nil {
		return "", err
	}
	if again, err := d.question.eval(ctx, input); err != nil || again != want {
		return "", errUnsteady
	}
	d.failed = strings.HasPrefix(want, failure)
	changed := []ast.Value{d.scrub(input, d.set.Paths())}
	agrees := d.agreement.with(d.set, input)
	if !agrees(changed[0]) {
		return "", fmt.Errorf("%v and its scrubbed form %v do not agree on %v", input, changed[0], d.set)
	}
	excepted := func(ast.Value) bool { return false }
	if d.except != nil {
		excepted = toTheLetter.with(d.except, input)
	}
	var changes []func() ast.Value
	d.change(input, func(build func() ast.Value) { changes = append(changes, build) })
	if d.limit > 0 {
		d.rand.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
	}
	for _, build := range changes {
		if d.limit > 0 && len(changed) >= d.limit {
			break
		}
		if v := build(); agrees(v) && !excepted(v) {
			changed = append(changed, v)
		}
	}
	for _, v := range changed {
		got, err := d.question.eval(ctx, v)
		if err != nil {
			return "", err
		}
		d.evaluated++
		if got != want {
			return fmt.Sprintf("set:   %v\ninput: %v\n    -> %s\ninput: %v\n    -> %s", d.set, input, want, v, got), nil
		}
	}
	return "", nil
}

// with returns what says whether an input agrees with this one on a set.
func (g agreement) with(set *reads.Set, a ast.Value) func(ast.Value) bool {
	type end struct {
		path  []*ast.Term
		value ast.Value
		steps int
	}
	ends := make([]end, 0, len(set.Paths()))
	for _, p := range set.Paths() {
		path := make([]*ast.Term, len(p))
		for i, k := range p {
			path[i] = term(k)
		}
		value, steps := walk(a, path)
		ends = append(ends, end{path, value, steps})
	}
	return func(b ast.Value) bool {
		for _, e := range ends {
			value, steps := walk(b, e.path)
			switch {
			case steps == len(e.path) || e.steps == len(e.path):
				if steps != e.steps || value.Compare(e.value) != 0 {
					return false
				}
			case g.depth && steps != e.steps, g.kind && ast.ValueName(value) != ast.ValueName(e.value):
				return false
			}
		}
		return true
	}
}

// walk goes down a path as far as it leads, and returns what is there and how
// many steps it is down.
func walk(v ast.Value, path []*ast.Term) (ast.Value, int) {
	for i, k := range path {
		next := member(v, k)
		if next == nil {
			return v, i
		}
		v = next
	}
	return v, len(path)
}

func member(v ast.Value, k *ast.Term) ast.Value {
	var found *ast.Term
	switch v := v.(type) {
	case *ast.Array:
		found = v.Get(k)
	case ast.Object:
		found = v.Get(k)
	case ast.Set:
		if v.Contains(k) {
			found = k
		}
	}
	if found == nil {
		return nil
	}
	return found.Value
}

func term(k reads.Key) *ast.Term {
	switch k.Kind {
	case reads.Bool:
		return ast.BooleanTerm(k.Text == "true")
	case reads.Number:
		return ast.NewTerm(ast.Number(k.Text))
	case reads.String:
		return ast.StringTerm(k.Text)
	}
	return ast.NullTerm()
}

// change calls f with what builds an input that differs from v in one place: what
// is there is taken away, is another value of its type, is of another type; what
// is not there is added.
func (d *perturbation) change(v ast.Value, f func(build func() ast.Value)) {
	for _, other := range d.others(v) {
		f(func() ast.Value { return other })
	}
	switch v := v.(type) {
	case ast.Object:
		for _, k := range v.Keys() {
			f(func() ast.Value { return without(v, k) })
			d.change(v.Get(k).Value, func(child func() ast.Value) {
				f(func() ast.Value { return with(v, k, child()) })
			})
		}
		for _, name := range d.members {
			if k := ast.StringTerm(name); v.Get(k) == nil {
				for _, child := range []ast.Value{ast.Boolean(true), ast.String(name), ast.NewObject()} {
					f(func() ast.Value { return with(v, k, child) })
				}
			}
		}
	case *ast.Array:
		elements := slices.Collect(elementsOf(v))
		for i := range elements {
			f(func() ast.Value { return ast.NewArray(slices.Delete(slices.Clone(elements), i, i+1)...) })
			d.change(elements[i].Value, func(child func() ast.Value) {
				f(func() ast.Value {
					changed := slices.Clone(elements)
					changed[i] = ast.NewTerm(child())
					return ast.NewArray(changed...)
				})
			})
		}
		f(func() ast.Value { return ast.NewArray(append(slices.Clone(elements), ast.StringTerm("added"))...) })
		f(func() ast.Value {
			reversed := slices.Clone(elements)
			slices.Reverse(reversed)
			return ast.NewArray(reversed...)
		})
	}
}

// others returns values to put in the place of v.
func (d *perturbation) others(v ast.Value) []ast.Value {
	others := []ast.Value{
		ast.Null{}, ast.Boolean(true), ast.Boolean(false), ast.Number("0"), ast.Number("7"), ast.String(""), ast.String("other"),
		ast.NewArray(), ast.NewArray(ast.NewTerm(v)), ast.NewObject(), ast.NewObject([2]*ast.Term{ast.StringTerm("0"), ast.NewTerm(v)}),
	}
	switch v := v.(type) {
	case ast.Number:
		if n, ok := v.Int(); ok {
			others = append(others, ast.Number(strconv.Itoa(n+1)), ast.String(v))
		}
	case ast.String:
		others = append(others, v+"x")
		if len(v) > 0 {
			others = append(others, v[1:])
		}
	}
	for i := range d.members {
		if i < 8 {
			others = append(others, ast.String(d.members[i]))
		}
	}
	return others
}

// scrub returns an input that agrees with v on paths and has next to nothing of
// it beyond them.
func (d *perturbation) scrub(v ast.Value, paths []reads.Path) ast.Value {
	if len(paths) == 0 {
		return ast.String("scrubbed")
	}
	below := map[reads.Key][]reads.Path{}
	for _, p := range paths {
		if len(p) == 0 {
			return v
		}
		below[p[0]] = append(below[p[0]], p[1:])
	}
	keys := slices.SortedFunc(maps.Keys(below), func(a, b reads.Key) int { return term(a).Value.Compare(term(b).Value) })
	switch v := v.(type) {
	case ast.Object:
		scrubbed := ast.NewObject([2]*ast.Term{ast.StringTerm("scrubbed"), ast.BooleanTerm(true)})
		for _, k := range keys {
			if child := member(v, term(k)); child != nil {
				scrubbed.Insert(term(k), ast.NewTerm(d.scrub(child, below[k])))
			}
		}
		return scrubbed
	case *ast.Array:
		elements := slices.Collect(elementsOf(v))
		for i := range elements {
			elements[i] = ast.NewTerm(d.scrub(elements[i].Value, below[reads.Key{Kind: reads.Number, Text: strconv.Itoa(i)}]))
		}
		return ast.NewArray(elements...)
	case ast.String:
		return ast.String("scrubbed")
	case ast.Number:
		return ast.Number("314")
	case ast.Boolean:
		return !v
	}
	return v
}

func elementsOf(a *ast.Array) func(yield func(*ast.Term) bool) {
	return func(yield func(*ast.Term) bool) {
		for i := range a.Len() {
			if !yield(a.Elem(i)) {
				return
			}
		}
	}
}

func without(o ast.Object, key *ast.Term) ast.Object {
	left := ast.NewObject()
	o.Foreach(func(k, v *ast.Term) {
		if !k.Equal(key) {
			left.Insert(k, v)
		}
	})
	return left
}

func with(o ast.Object, key *ast.Term, v ast.Value) ast.Object {
	changed := without(o, key)
	changed.Insert(key, ast.NewTerm(v))
	return changed
}
