package rego_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// hostile is a policy that a team might write to bring a PDP down.
type hostile struct {
	module string
	// data is made in the child.
	data func() string
	// text of input.resource.properties.text.
	text func() string
	// fits is set if there is nothing wrong with it: it is only large.
	fits bool
	// refused is set if it is not even compiled.
	refused bool
}

func hostilePolicies() map[string]hostile {
	repeat := func(s string, n int) func() string { return func() string { return strings.Repeat(s, n) } }
	doubling := func(first, next, last string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "x0 := %s\n", first)
		for i := range 60 {
			fmt.Fprintf(&b, strings.ReplaceAll(next, "X", "x%[2]d")+"\n", i+1, i)
		}
		return b.String() + "allow if " + last
	}
	list := func(n int, of func(i int) string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = of(i)
		}
		return strings.Join(parts, ",")
	}
	twenty := "allow if { data.many[a] == 1; data.many[b] == 2; data.many[c] == 3; data.many[d] == 4; data.many[e] == 5 }\n"
	nested := "o0 := 1\n"
	for i := range 40 {
		nested += fmt.Sprintf("o%d := {\"a\": o%d, [1]: 1}\n", i+1, i)
	}
	mocks := "allow if f0(1) == 1\n"
	for i := range 24 {
		mocks += fmt.Sprintf("f%d(x) := y if { y := f%d(x) with g as h%d; z := f%d(x) with g as h%d; z == y }\nh%d(x) := x\n", i, i+1, i, i+1, i, i)
	}
	mocks += "f24(x) := g(x)\ng(x) := x\n"
	return map[string]hostile{
		"a shift by two billion":                  {module: `allow if bits.lsh(1, 2000000000) > 0`},
		"a range of a billion":                    {module: `allow if count(numbers.range(1, 1000000000)) > 0`},
		"nested counted repetition on a megabyte": {module: `allow if regex.match("((((a{0,9}){0,9}){0,9})b)$", input.resource.properties.text)`, text: repeat("a", 900_000)},
		"a pattern from the request":              {module: `allow if regex.match(input.resource.properties.text, "a")`, text: repeat("(x?){50}", 20_000)},
		"a graph of 200,000 nodes": {module: `allow if count(graph.reachable(data.g, ["n0"])) == 200000`, fits: true, data: func() string {
			return `{"g":{` + list(200_000, func(i int) string { return fmt.Sprintf(`"n%d":["n%d","n%d"]`, i, (i+1)%200_000, i*7%200_000) }) + `}}`
		}},
		"all paths of a graph": {module: `allow if count(graph.reachable_paths(data.g, ["n0"])) > 0`, data: func() string {
			return `{"g":{` + list(60, func(i int) string { return fmt.Sprintf(`"n%d":["n%d","n%d","n%d"]`, i, i+1, i+2, i+3) }) + `}}`
		}},
		"300,000 elements to sort": {module: `allow if sort(data.l)[0] == 1`, fits: true, data: func() string {
			return `{"l":[` + list(300_000, func(i int) string { return fmt.Sprint(1 + i*7919%300_000) }) + `]}`
		}},
		"loops in loops":             {module: `allow if { some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); some c in numbers.range(1, 3000); a + b + c < 0 }`},
		"a product of sets":          {module: `allow if count({[a, b, c] | some a in numbers.range(1, 1000); some b in numbers.range(1, 1000); some c in numbers.range(1, 1000)}) > 0`},
		"a text that doubles":        {module: doubling(`"0123456789"`, `x%[1]d := concat("", [X, X])`, `count(x60) == 1`)},
		"an array that doubles":      {module: doubling(`[1, 2]`, `x%[1]d := array.concat(X, X)`, `count(x60) == 1`)},
		"a number that squares":      {module: doubling(`12345678901234567890`, `x%[1]d := X * X`, `x60 == 1`)},
		"a width of a billion":       {module: `allow if sprintf("%1000000000d", [1]) == ""`},
		"a list in a list":           {module: doubling(`[1]`, `x%[1]d := [X, X]`, `json.marshal(x60) == ""`), refused: true},
		"an obligation that doubles": {module: doubling(`{"a": 1}`, `x%[1]d := object.union({"a": X}, {"b": X})`, `count(x60) > 0`) + "\nobligations[\"o\"] := x60"},
		"names that are no strings":  {module: nested + `allow if json.marshal(o40) != ""`, fits: true},
		"every address":              {module: `allow if count(net.cidr_expand("::/0")) > 0`},
		"a deep document": {module: `allow if count([p | walk(json.unmarshal(input.resource.properties.text), [p, _])]) > 0`, text: func() string {
			return strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000)
		}},
		"comparisons of a megabyte": {module: `allow if { some a in numbers.range(1, 1000000); data.l == data.m; a < 0 }`, data: func() string {
			l := "[" + list(200_000, func(i int) string { return fmt.Sprint(i) }) + "]"
			return `{"l":` + l + `,"m":` + l + `}`
		}},
		"rules that are all one":                            {module: `allow if { some i in numbers.range(1, 3000000); p[i] }` + "\np contains i if some i in numbers.range(1, 3000000)"},
		"a world for each element":                          {module: `allow if { every i in numbers.range(1, 3000000) { h with input.action.name as sprintf("%d", [i]) } }` + "\nh if input.action.name != \"\""},
		"five unbound references":                           {module: twenty, refused: true},
		"functions replaced in functions that are replaced": {module: mocks, refused: true},
	}
}

const (
	hostileEnv   = "MICROWALL_TEST_HOSTILE"
	childTimeout = 20 * time.Second
)

// child runs a test in a process of its own, with the hostile of that name.
func child(ctx context.Context, test, name string) *exec.Cmd {
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+test+"$", "-test.count=1", "-test.v")
	// The race detector sleeps for a second at the end.
	c.Env = append(os.Environ(), hostileEnv+"="+name, "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	return c
}

// A team's policy, however it is written, costs an error, not the process.
func TestAHostilePolicyDoesNotBringTheProcessDown(t *testing.T) {
	if name := os.Getenv(hostileEnv); name != "" {
		suffer(t, hostilePolicies()[name])
		return
	}
	for name := range hostilePolicies() {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), childTimeout)
			defer cancel()
			out, err := child(ctx, "TestAHostilePolicyDoesNotBringTheProcessDown", name).CombinedOutput()
			if ctx.Err() != nil {
				t.Fatalf("still running after %s", childTimeout)
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

// suffer compiles and evaluates one policy under a limit of memory.
func suffer(t *testing.T, h hostile) {
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: childMemory, Max: childMemory}); err != nil {
		t.Fatal(err)
	}
	src := rego.Source{Modules: []rego.Module{{Path: "authz.rego", Source: []byte("package authz\n" + h.module)}}}
	if strings.Contains(h.module, "data.many") {
		src.Modules = append(src.Modules, rego.Module{Path: "many.rego", Source: []byte(twentyRules())})
	}
	if h.data != nil {
		src.Data = []byte(h.data())
	}
	properties := map[string]any{}
	if h.text != nil {
		properties["text"] = h.text()
	}
	r := request(t)
	r.Resource.Properties = props(t, properties)
	options, most := rego.Options{}, 3*time.Second // the budget is a second, and what cannot be interrupted is short
	if race && h.fits {
		options.Budget, most = childTimeout, childTimeout // what fits takes ten times as long
	}
	start := time.Now()
	p, err := rego.Compile(t.Context(), src, options)
	if _, refused := errors.AsType[rego.Problems](err); refused != h.refused {
		t.Fatalf("refused: %t, want %t: %v", refused, h.refused, err)
	} else if refused {
		t.Logf("refused after %s: %v", time.Since(start), err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	compiled := time.Now()
	got, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon))
	took := time.Since(compiled)
	t.Logf("compiled in %s, evaluated in %s: %v", compiled.Sub(start), took, err)
	switch {
	case h.fits && (err != nil || !got.Allow):
		t.Errorf("it would fit: %+v, %v", got, err)
	case err != nil && policy.KindOf(err) != policy.Failed:
		t.Errorf("kind of %v", err)
	}
	if took > most {
		t.Errorf("it took %s", took)
	}
}

// twentyRules is a package with 20 rules.
func twentyRules() string {
	var b strings.Builder
	b.WriteString("package many\n")
	for i := range 20 {
		fmt.Fprintf(&b, "r%d := %d if input.action.name\n", i, i)
	}
	return b.String()
}
