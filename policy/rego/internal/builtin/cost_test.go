package builtin_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// slowest is how long a step may take at most; it should take ten nanoseconds.
const slowest = 100 * time.Nanosecond

// TestNoBuiltinTakesLongerThanItIsChargedFor calls every built-in of the language
// with operands that grow until the budget says no.
func TestNoBuiltinTakesLongerThanItIsChargedFor(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	inChild(t, func(t *testing.T) {
		for _, name := range language(t) {
			decl := ast.BuiltinMap[name]
			if _, ok := builtin.Find(name); !ok || decl == nil {
				continue // eq, assign and print, which the compiler replaces
			}
			largest := 0
			for variant := range uint64(6) {
				for _, n := range []int{20, 1000, 30_000, 2_000_000} {
					h := hostile{rand.New(rand.NewPCG(variant, 5)), n}
					args := make([]value.Value, decl.Decl.Arity())
					for i := range args {
						args[i] = h.operand(decl.Decl.FuncArgs().Arg(i), 1)
					}
					if !measure(t, fmt.Sprintf("%s, variant %d, size %d", name, variant, n), name, args...) {
						break
					}
					largest = max(largest, n)
				}
			}
			if largest == 0 {
				t.Errorf("%s does not fit with the smallest operands", name)
			}
		}
	})
}

// TestHostileCalls are calls that are known to be costly in OPA.
func TestHostileCalls(t *testing.T) {
	inChild(t, func(t *testing.T) {
		text := func(s string) value.Value { return value.Text(s) }
		rep := strings.Repeat
		alikeSet, alikeObject := value.NewSet(0), value.NewObject(0)
		alikeAtFirst(1000, 300, func(member value.Value) { alikeSet.Add(member) })
		alikeAtFirst(1000, 300, func(member value.Value) { alikeObject.Insert(member, value.True) })
		for _, tc := range []struct {
			does string
			name string
			args []value.Value
		}{
			{"shift by two billion", "bits.lsh", []value.Value{value.Int(1), value.Int(2_000_000_000)}},
			{"nested counted repetition over a megabyte", "regex.match", []value.Value{text("((a{0,30}){0,30}){0,1}b"), text(rep("a", 1<<20))}},
			{"nested counted repetition that finds", "regex.find_n", []value.Value{text("(a{1,50}b?){1,20}"), text(rep("a", 1<<20)), value.Int(-1)}},
			{"a graph of 200,000 nodes", "graph.reachable", []value.Value{chain(200_000), value.NewArray(value.Int(0))}},
			{"all paths of a complete graph", "graph.reachable_paths", []value.Value{complete(30), value.NewArray(value.Int(0))}},
			{"300,000 elements", "sort", []value.Value{shuffled(300_000)}},
			{"a width of a billion", "sprintf", []value.Value{text("%1000000000d"), value.NewArray(value.Int(1))}},
			{"a precision of a billion", "sprintf", []value.Value{text("%.1000000000f"), value.NewArray(value.NumberText("0.1"))}},
			{"a width that is an operand", "sprintf", []value.Value{text("%*d"), value.NewArray(value.Int(1_000_000_000), value.Int(1))}},
			{"a billion numbers", "numbers.range", []value.Value{value.Int(0), value.Int(1_000_000_000)}},
			{"every address", "net.cidr_expand", []value.Value{text("0.0.0.0/0")}},
			{"every address of six", "net.cidr_expand", []value.Value{text("::/0")}},
			{"digits without end", "mul", []value.Value{value.NumberText(rep("9", 1<<20)), value.NumberText(rep("9", 1<<20))}},
			{"an exponent of a billion", "plus", []value.Value{value.NumberText("1e999999999"), value.Int(1)}},
			{"an exponent of a billion in a sum", "sum", []value.Value{value.NewArray(value.NumberText("1e999999999"), value.NumberText("0.5"))}},
			{"an exponent of a billion for a time", "time.clock", []value.Value{value.NumberText("1e999999999")}},
			{"a glob of many alternatives", "glob.match", []value.Value{text(rep("{a,b,c,d}", 200)), value.NewArray(text("/")), text(rep("a", 200))}},
			{"a billion laughs", "yaml.unmarshal", []value.Value{text(laughs(9))}},
			{"a value of 2^60 leaves", "json.marshal", []value.Value{doubled(60)}},
			{"a value of 2^60 leaves, compared", "internal.member_2", []value.Value{doubled(60), value.NewArray(doubled(60))}},
			{"a value of 2^60 leaves in YAML", "yaml.marshal", []value.Value{doubled(60)}},
			{"a walk of 2^60 leaves", "walk", []value.Value{doubled(60)}},
			{"a union of a million with itself", "object.union_n", []value.Value{value.NewArray(many(20_000), many(20_000), many(20_000), many(20_000))}},
			{"fractions, which OPA hashes alike", "yaml.marshal", []value.Value{alike(1000, false)}},
			{"too many fractions", "yaml.marshal", []value.Value{alike(100_000, false)}},
			{"arrays, which OPA hashes alike", "yaml.marshal", []value.Value{alike(700, true)}},
			{"a run in a million", "object.subset", []value.Value{ones(1<<20, 0), ones(1<<10, 1)}},
			{"deep brackets", "json.unmarshal", []value.Value{text(rep("[", 1<<20))}},
			{"deep brackets in YAML", "yaml.unmarshal", []value.Value{text(rep("[", 9000))}},
			{"deep brackets in GraphQL", "graphql.parse_query", []value.Value{text("{a(b:" + rep("[", 1<<22))}},
			{"a modulus of 260,000 bits", "io.jwt.verify_rs256", []value.Value{text("eyJhbGciOiJSUzI1NiJ9.e30.VVVV"), text(`{"kty":"RSA","n":"` + rep("VVVV", 11_000) + `","e":"f____w"}`)}},
			{"a layout of a megabyte", "time.format", []value.Value{value.NewArray(value.Int(0), text("UTC"), text(rep("January", 1<<17)))}},
			{"an indent of a megabyte", "json.marshal_with_options", []value.Value{deep(1000), object("indent", text(rep(" ", 1<<20)))}},
			{"replacements without end", "strings.replace_n", []value.Value{object("a", text(rep("b", 1<<16))), text(rep("a", 1<<20))}},
			{"sets in sets that are equal", "equal", []value.Value{sets(5, 0), sets(5, 0)}},
			{"sets in sets, as a member", "internal.member_2", []value.Value{sets(5, 1), value.SetOf(sets(5, 0))}},
			{"members that differ in their last element", "sort", []value.Value{alikeSet}},
			{"keys that differ in their last element", "object.keys", []value.Value{alikeObject}},
			{"names that are no strings, at every depth", "json.marshal", []value.Value{unnamed(60)}},
			{"one long text to replace", "strings.replace_n", []value.Value{object("b"+rep("a", 30_000), text("x")), text(rep("a", 1<<20))}},
			{"lines without end", "internal.print", []value.Value{value.NewArray(many10(), many10(), many10(), many10(), many10(), many10(), many10(), many10(), many10())}},
		} {
			measure(t, tc.does, tc.name, tc.args...)
		}
	})
}

func TestALongCallEndsWithItsContext(t *testing.T) {
	for name, args := range map[string][]value.Value{
		"sort":                  {shuffled(300_000)},
		"graph.reachable":       {chain(200_000), value.NewArray(value.Int(0))},
		"graph.reachable_paths": {complete(30), value.NewArray(value.Int(0))},
		"walk":                  {doubled(60)},
		"json.marshal":          {doubled(60)},
		"object.subset":         {ones(1<<20, 0), ones(1<<10, 1)},
		"count":                 {value.Text(strings.Repeat("ü", 1<<18))},
	} {
		ctx, end := context.WithCancel(context.Background())
		m := new(budget.Meter)
		m.Reset(ctx, budget.Limits{})
		end()
		b, _ := builtin.Find(name)
		var err error
		took := worked(func() { _, err = b.Func(&builtin.Call{Meter: m}, args) })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the context's error", name, err)
		}
		if took > 50*time.Millisecond && !raceDetector {
			t.Errorf("%s went on for %v", name, took)
		}
	}
}

// measure calls a built-in, and reports whether its operands fitted into the
// budget. It fails the test if the call took longer than it was charged for.
func measure(t *testing.T, does, name string, args ...value.Value) bool {
	limits := budget.Limits{Steps: 4_000_000, Bytes: 128 << 20}
	b, ok := builtin.Find(name)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	var fits bool
	var steps, bytes int64
	var took time.Duration
	for range 4 { // some work is done once, and the machine has other work, too
		m := new(budget.Meter)
		m.Reset(context.Background(), limits)
		var err error
		took = worked(func() { _, err = b.Func(&builtin.Call{Meter: m}, args) })
		var e *builtin.Error
		if fits = !budget.IsOver(err); fits && err != nil && !errors.As(err, &e) {
			t.Fatalf("%s: %s: %v", does, name, err)
		}
		steps, bytes = limits.Steps, limits.Bytes
		for fits && m.Step(1000) == nil {
			steps -= 1000
		}
		for fits && m.Bytes(10_000) == nil {
			bytes -= 10_000
		}
		// Memory that is new takes about a nanosecond a byte by itself.
		if took < 3*time.Millisecond+time.Duration(steps)*slowest+time.Duration(bytes) {
			return fits
		}
	}
	t.Errorf("%s: %s (fits: %t) takes %v for %d steps and %d bytes, %d ns a step", does, name, fits, took, steps, bytes, took.Nanoseconds()/max(steps, 1))
	return fits
}

// worked returns how long the processor worked for a call, or where that cannot
// be told how long it took.
func worked(call func()) time.Duration {
	const thread = 1 // RUSAGE_THREAD of Linux
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after syscall.Rusage
	start := time.Now()
	err := syscall.Getrusage(thread, &before)
	call()
	if err != nil || syscall.Getrusage(thread, &after) != nil {
		return time.Since(start)
	}
	return time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
}

// inChild runs a test in a process of its own, which may use a gigabyte and a
// half, and four minutes. What it measures means nothing under the race detector.
func inChild(t *testing.T, test func(t *testing.T)) {
	if raceDetector {
		t.Skip("it measures time and memory, of which the race detector takes many times as much: run it without")
	}
	const mark = "MICROWALL_BUILTIN_CHILD"
	if os.Getenv(mark) == t.Name() {
		test(t)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), mark+"="+t.Name(), "GOMEMLIMIT=1GiB")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("the child process: %v\n%s", err, tail(out))
	}
	usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return
	}
	if used := usage.Maxrss >> 10; used > 1500 {
		t.Errorf("the child process used %d MiB", used)
	}
}

func tail(out []byte) []byte { return out[max(0, len(out)-8000):] }

func language(t *testing.T) []string {
	f, err := os.Open("../../language.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for s := bufio.NewScanner(f); s.Scan(); {
		names = append(names, s.Text())
	}
	return names
}

// hostile makes up operands of a size that are costly.
type hostile struct {
	*rand.Rand
	n int
}

func (h hostile) operand(typ types.Type, depth int) value.Value {
	switch typ := typ.(type) {
	case *types.NamedType:
		return h.operand(typ.Type, depth)
	case types.Number:
		return h.number()
	case types.String:
		return value.Text(h.text())
	case types.Any:
		if len(typ) > 0 {
			return h.operand(typ[h.IntN(len(typ))], depth)
		}
	case *types.Array:
		if typ.Len() > 0 {
			array := value.NewArray()
			for i := range typ.Len() {
				array.Append(h.operand(typ.Select(i), depth))
			}
			return array
		}
		array := value.NewArray()
		h.each(typ.Dynamic(), depth, func(elem value.Value) { array.Append(elem) })
		return array
	case *types.Set:
		set := value.NewSet(0)
		h.each(typ.Of(), depth, func(elem value.Value) { set.Add(elem) })
		return set
	case *types.Object:
		object := value.NewObject(0)
		for _, p := range typ.StaticProperties() {
			object.Insert(value.Text(fmt.Sprint(p.Key)), h.operand(p.Value, depth))
		}
		if p := typ.DynamicProperties(); p != nil {
			h.each(p.Key, depth, func(key value.Value) { object.Insert(key, h.small().operand(p.Value, depth-1)) })
		}
		return object
	}
	switch h.IntN(5) {
	case 0:
		return value.Text(h.text())
	case 1:
		return h.number()
	case 2:
		return many(min(h.n, 200_000))
	case 3:
		return deep(min(h.n, 10_000)) // as deep as JSON can be
	}
	return shuffled(min(h.n, 200_000))
}

// small is for members of what is large.
func (h hostile) small() hostile { return hostile{h.Rand, h.IntN(10)} }

// each makes up many small things, or one that is large.
func (h hostile) each(typ types.Type, depth int, yield func(value.Value)) {
	if depth <= 0 || h.IntN(4) == 0 {
		yield(h.operand(typ, depth-1))
		return
	}
	n := min(h.n, 30_000)
	for i := range n {
		v := h.small().operand(typ, depth-1)
		if v.Kind() == value.String { // another one each time
			v = value.Text(v.Text() + strconv.Itoa(i))
		} else if v.Kind() == value.Number {
			v = value.Int(int64(i * 7919 % n))
		}
		yield(v)
	}
}

func (h hostile) number() value.Value {
	switch h.IntN(5) {
	case 0:
		return value.NumberText("9" + strings.Repeat("7", min(h.n, 300)))
	case 1:
		return value.NumberText("0." + strings.Repeat("3", min(h.n, 300)))
	case 2:
		return value.NumberText(fmt.Sprint("1e", h.n))
	case 3:
		return value.Int(2)
	}
	return value.Int(int64(h.n))
}

var costlyTexts = []string{
	"a", "é", "9", "a,", "/", "a/", ".", "*", "a*", "(a|b)", "[a-z]", "{a,b}", "(", "[", "{", "\"", "%", "%d", "%v ", "%41", "QUFB", "ff", "1.", "a.b-", "\n", "- ", "k: v\n",
	"[1,", "{\"a\":", "1,", "January", "1h", "1d", "10.0.0.0/8 ", "~1", "+", "&a=b", " ", "x\x00", "\xff", "${a}", "<.*>", "{{", "日本", "a{1,9}",
}

func (h hostile) text() string {
	part := costlyTexts[h.IntN(len(costlyTexts))]
	return strings.Repeat(part, h.n/len(part))
}

func chain(n int) value.Value {
	graph := value.NewObject(n)
	for i := range n {
		graph.Insert(value.Int(int64(i)), value.NewArray(value.Int(int64(i+1)), value.Int(int64(i/2))))
	}
	return graph
}

func complete(n int) value.Value {
	all := ones(0, 0)
	for i := range n {
		all.Append(value.Int(int64(i)))
	}
	graph := value.NewObject(n)
	for i := range n {
		graph.Insert(value.Int(int64(i)), all)
	}
	return graph
}

func shuffled(n int) value.Value {
	array := value.NewArray()
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		array.Append(value.Int(int64(i)))
	}
	return array
}

// doubled is a small value that is 2^levels ones to who looks at them.
func doubled(levels int) value.Value {
	v := value.Int(1)
	for range levels {
		v = value.NewArray(v, v)
	}
	return v
}

// sets is a set of sets of sets: each has the same seven, and another one.
func sets(depth, which int) value.Value {
	if depth == 0 {
		return value.Int(int64(which))
	}
	set := value.NewSet(8)
	for i := range 7 {
		set.Add(sets(depth-1, i))
	}
	set.Add(sets(depth-1, 7+which))
	return set
}

// alikeAtFirst is a set, or the keys of an object, of arrays that begin with the
// same long one.
func alikeAtFirst(n, long int, add func(member value.Value)) {
	first := value.NewArray()
	for i := range long {
		first.Append(object("a", value.Int(int64(i))))
	}
	for i := range n {
		add(value.NewArray(first, value.Int(int64(i*7919%100_003))))
	}
}

// unnamed is an object that has another one, and a name that is no string.
func unnamed(levels int) value.Value {
	v := value.Int(1)
	for range levels {
		o := object("a", v)
		o.Insert(value.NewArray(value.Int(1)), value.True)
		v = object("b", o)
	}
	return v
}

func deep(levels int) value.Value {
	v := value.Int(1)
	for range levels {
		v = value.NewArray(v)
	}
	return v
}

func many(n int) value.Value {
	object := value.NewObject(n)
	for i := range n {
		object.Insert(value.Text("key"+strconv.Itoa(i)), value.Float(float64(i)+0.5))
	}
	return object
}

func many10() value.Value {
	set := value.NewSet(10)
	for i := range 10 {
		set.Add(value.Int(int64(i)))
	}
	return set
}

// alike is a set of numbers between 0 and 1, or of arrays with the same sum.
func alike(n int, arrays bool) value.Value {
	set := value.NewSet(n)
	for i := range n {
		if arrays {
			set.Add(value.NewArray(value.Int(int64(i)), value.Int(int64(n-i))))
		} else {
			set.Add(value.Float((float64(i) + 0.5) / float64(n)))
		}
	}
	return set
}

// ones is an array of n ones and a last number.
func ones(n int, last int64) value.Value {
	array := value.NewArray()
	for range n {
		array.Append(value.Int(1))
	}
	if last != 0 {
		array.Append(value.Int(last + 1))
	}
	return array
}

func object(key string, val value.Value) value.Value {
	o := value.NewObject(1)
	o.Insert(value.Text(key), val)
	return o
}

// laughs is YAML in which each level holds the one before it nine times.
func laughs(levels int) string {
	var b strings.Builder
	b.WriteString("a0: &a0 lol\n")
	for i := range levels {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}
	return b.String()
}
