//go:build unix

package front_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/microwall/microwall/policy/rego/internal/front"
)

// A hostile is a policy that OPA would take very long for, or very much memory.
type hostile struct {
	name  string
	files func() []string // made only where they are needed: all of them take long to make
	why   string          // that it is refused for
	line  int             // of the last file
}

var hostiles = []hostile{
	{"five unbound references over twenty rules",
		func() []string {
			return []string{rules(20), "package z\n\nz if {\n" + each(5, "\tdata.p[a%[1]d][b%[1]d]\n") + "}\n"}
		},
		"may refer to 19 rules or more", 0},
	{"functions replaced by each other, nested",
		func() []string {
			return []string{"package z\n\nf(x) := x\ng(x) := x\nr30 := f(1)\n" + each(30, "r%[1]d if { r%[2]d with f as g; r%[2]d with g as f }\n")}
		},
		"planned anew because of its `with`", 35},
	{"rules replaced by others, nested",
		func() []string {
			return []string{"package z\n\nr30 := 1\n" + each(30, "t%[1]d := 1\nr%[1]d if { r%[2]d with data.z.t%[1]d as 1; r%[2]d with data.z.t%[1]d as 2 }\n")}
		},
		"planned anew because of its `with`", 0},
	{"a reference planned anew for each rule it may refer to",
		func() []string {
			return []string{rules(300), "package z\n\nall := [x | x := data.p[_]]\n" + each(3000, "z if { all == [1] with data.p.r%[1]d as 1 }\n")}
		},
		"planned anew because of its `with`", 4},
	{"a chain of 20,000 rules",
		func() []string { return []string{"package z\n\nr20000 := 1\n" + each(20_000, "r%[1]d := r%[2]d\n")} },
		"follow each other more than 100000 deep", 0},
	{"a chain of 100,000 rules",
		func() []string { return []string{"package z\n\nr100000 := 1\n" + each(100_000, "r%[1]d := r%[2]d\n")} },
		"follow each other more than 100000 deep", 0},
	{"arrays in arrays",
		func() []string {
			return []string{"package z\n\nz := " + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "\n"}
		},
		"are nested 25 deep", 3},
	{"arrays in arrays, deeper than the parser goes",
		func() []string {
			return []string{"package z\n\nz := " + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "\n"}
		},
		"max parsing recursion depth exceeded", 3},
	{"objects in the keys of objects",
		func() []string {
			return []string{"package z\n\nz := " + strings.Repeat("{", 1000) + "1" + strings.Repeat(":1}", 1000) + "\n"}
		},
		"are nested 25 deep", 3},
	{"comprehensions in comprehensions",
		func() []string {
			return []string{"package z\n\nz := " + strings.Repeat("[y | y := ", 40) + "1" + strings.Repeat("]", 40) + "\n"}
		},
		"are nested 16 deep", 3},
	{"templates in templates",
		func() []string {
			return []string{"package z\n\nz := " + strings.Repeat("$\"a{[x | x := ", 20) + "1" + strings.Repeat("]}\"", 20) + "\n"}
		},
		"are nested 16 deep", 3},
	{"every in every",
		func() []string {
			return []string{"package z\n\nz if " + strings.Repeat("every x in input { x; ", 300) + "true" + strings.Repeat("}", 300) + "\n"}
		},
		"are nested 16 deep", 3},
	{"a body to be put into the opposite order",
		func() []string {
			return []string{"package z\n\nz if {\n" + each(1000, "\tv%[1]d = v%[2]d + 1\n") + "\tv1000 = 1\n}\n"}
		},
		"a body of 2001 expressions", 4},
	{"a body of comprehensions over each other",
		func() []string {
			return []string{"package z\n\nz if {\n\tv0 := 1\n" + each(1500, "\tv%[2]d := [y | y := v%[1]d]\n") + "}\n"}
		},
		"a body of 1501 expressions", 4},
	{"a body of loops beside each other",
		func() []string {
			return []string{"package z\n\nz if {\n" + each(3000, "\tsome x%[1]d in input.x\n") + "}\n"}
		},
		"", 0},
	{"a body of loops beside each other, and what is not in them",
		func() []string {
			return []string{"package z\n\nz if {\n" + each(3000, "\tsome x%[1]d in input.x\n\tnot x%[1]d.a\n") + "}\n"}
		},
		"", 0},
	{"a body of 30,000 loops",
		func() []string {
			return []string{"package z\n\nz if {\n" + each(30_000, "\tsome x%[1]d in input.x\n") + "}\n"}
		},
		"a body of 30000 expressions", 4},
	{"a path of 40,000 loops",
		func() []string { return []string{"package z\n\nz if input.x" + strings.Repeat("[_]", 40_000) + "\n"} },
		"loops are nested more than 5000 deep here", 3},
	{"as many loops in each other as fit",
		func() []string { return []string{"package z\n\nz if input.x" + strings.Repeat("[_]", 5000) + "\n"} },
		"", 0},
	{"rules that are called from loops, with loops of their own",
		func() []string {
			return []string{"package z\n\nr100 := 1\n" + each(100, "r%[1]d if { input.x"+strings.Repeat("[_]", 2000)+"; r%[2]d }\n") + "z := r0\n"}
		},
		"follow each other more than 100000 deep", 0},
	{"a function of as many arguments as fit",
		func() []string {
			return []string{"package z\n\nf(" + each(34_000, "a%[1]d,") + "z) := 1\nz if f(" + strings.Repeat("1,", 34_000) + "1) == 1\n"}
		},
		"", 0},
	{"a default function of one argument again and again",
		func() []string {
			return []string{"package z\n\ndefault f(x" + strings.Repeat(",x", 30_000) + ") := 1\n"}
		},
		"this line with `default` is long", 3},
	{"a default that is many variables",
		func() []string {
			return []string{"package z\n\ndefault z := [" + strings.Repeat("x,", 400_000) + "]\n"}
		},
		"this line with `default` is long", 3},
	{"defaults in one line",
		func() []string { return []string{"package z\n\n" + strings.Repeat("default ", 900_000) + "\n"} },
		"this line with `default` is long", 3},
	{"a default that is many variables, below it",
		func() []string {
			return []string{"package z\n\ndefault z := [\n" + strings.Repeat("x,\n", 400_000) + "]\n"}
		},
		"value cannot contain var", 3},
	{"a function of 400,000 arguments",
		func() []string { return []string{"package z\n\nf(" + strings.Repeat("1,", 400_000) + "z) := 1\n"} },
		"words and signs in brackets behind a name here", 3},
	{"a rule that many numbers are the name of",
		func() []string { return []string{"package z\n\nz" + strings.Repeat("[1]", 300_000) + " := 1\n"} },
		"words and signs in brackets behind a name here", 3},
	{"a rule that a long sum is the name of, beside a template",
		func() []string {
			return []string{"package z\n\ny := $\"((({1}\"\nz[1" + strings.Repeat("+1", 400_000) + "] := 1\n"}
		},
		"words and signs in a file with templates", 0},
	{"many functions of many arguments",
		func() []string {
			return []string{"package z\n\n" + strings.Repeat("f("+strings.Repeat("1,", 20_000)+"z) := 1\n", 20)}
		},
		"words and signs in brackets behind a name here", 0},
	{"comprehensions beside many variables",
		func() []string {
			return []string{"package z\n\nz if {\n\t[" + each(50_000, "v%[1]d,") + "v] = input.x\n\ty = [" + strings.Repeat("[1 | true],", 5000) + "]\n}\n"}
		},
		"comprehensions, every, not, templates beside 50004 variables", 5},
	{"arrays of variables made equal",
		func() []string {
			return []string{"package z\n\nz if {\n\t[" + each(20_000, "x%[1]d,z%[1]d,") + "] = [" + each(20_000, "y%[1]d,1,") + "]\n}\n"}
		},
		"arrays or objects with 60000 variables", 4},
	{"references in one body to many long names",
		func() []string {
			return []string{"package z\n\n" + each(500, "q.p%[1]d"+strings.Repeat(".a", 38)+" := 1\n") + "z if {\n\tx := input.x\n\t[" + strings.Repeat("q[x],", 30_000) + "] = y\n}\n"}
		},
		"rules that refer to many rules", 0},
	{"20,000 else branches",
		func() []string {
			return []string{"package z\n\nz := 1 if input.x\n" + strings.Repeat("else := 2 if input.y\n", 20_000)}
		},
		"20000 else branches", 3},
	{"rules that all may refer to all",
		func() []string {
			return []string{"package z\n\n" + each(3000, "q.r%[1]d := 1\n") + each(3000, "s%[1]d if { some x; q[x] }\n")}
		},
		"rules that refer to many rules", 0},
	{"rules of one name that all refer to rules of one name",
		func() []string {
			return []string{"package z\n\n" + each(5000, "q if input.x == %[1]d\n") + each(5000, "s if { q; input.x == %[1]d }\n")}
		},
		"rules that refer to many rules", 0},
	{"rules with keys of their own that are called in many places",
		func() []string {
			return []string{"package z\n\n" + each(1300, "q[x] := %[1]d if x := input.k%[1]d\n") + each(1300, "s if q.k == %[1]d\n")}
		},
		"has 1300 bodies and is referred to", 3},
	{"types that double, compared",
		func() []string {
			return []string{"package z\n\na30 := {\"a\": 1}\nb30 := {\"a\": 1}\n" + each(30, "a%[1]d := [a%[2]d, a%[2]d]\nb%[1]d := [b%[2]d, b%[2]d]\n") + "z if a0 == b0\n"}
		},
		"types that are", 0},
	{"values in values, compared",
		func() []string {
			return []string{"package z\n\nz if { y := " + strings.Repeat("[", 23) + strings.Repeat("]", 23) + "; y == " + strings.Repeat("[", 23) + strings.Repeat("]", 23) + "}\n"}
		},
		"types that are", 3},
	{"a table in which no row is like another",
		func() []string {
			return []string{"package z\n\nt := {\n" + each(5000, "\t\"k%[1]d\": {\"a%[1]d\": 1},\n") + "}\n" + each(1000, "z if { some x in t[input.k%[1]d]; x == %[1]d }\n")}
		},
		"types that are", 0},
	{"rules below many bodies of a rule",
		func() []string {
			return []string{"package z\n\n" + strings.Repeat("a := 1\n", 3000) + each(3000, "a.b%[1]d := 1\n")}
		},
		"3000 rules below this one", 3},
	{"many rules replaced by many tests",
		func() []string {
			return []string{"package z\n\n" + each(3000, "q.r%[1]d := 1\n") + "all := [x | x := q[_]]\n" + each(3000, "d%[1]d := all\n") + each(3000, "c%[1]d if all == 1 with data.z.q.r%[1]d as 1\n")}
		},
		"by `with`", 0},
	{"one package in many files",
		func() []string {
			return append(many(5000, "package z\n\nx := 1\n"), "package z\n\n"+strings.Repeat("y := 1\n", 10_000))
		},
		"a package of many rules in many files", 0},
	{"files that are the same package as a rule of another",
		func() []string {
			return append(many(3000, "package z.b\n"), "package z\n\n"+strings.Repeat("b := 1\n", 3000))
		},
		"error limit reached", 0},
	{"a long path for a short name",
		func() []string {
			return []string{"package z" + strings.Repeat(".z", 20_000) + "\n\ny := 1\n" + strings.Repeat("x if y\n", 100_000)}
		},
		"names that stand for paths", 0},
	{"a long path for a short import",
		func() []string {
			return []string{"package z\n\nimport data.x" + strings.Repeat(".x", 20_000) + " as y\n\n" + strings.Repeat("x if y\n", 100_000)}
		},
		"names that stand for paths", 0},
	{"a long path for a short function",
		func() []string {
			return []string{"package z" + strings.Repeat(".z", 20_000) + "\n\nf(1) := 1\n" + strings.Repeat("x if f(1)\n", 100_000)}
		},
		"names that stand for paths", 0},
	{"a long path for many rules",
		func() []string {
			return []string{"package z" + strings.Repeat(".z", 20_000) + "\n\n" + strings.Repeat("x := 1\n", 100_000)}
		},
		"names that stand for paths", 0},
	{"a long head for many bodies",
		func() []string {
			return []string{"package z\n\nz := [" + strings.Repeat("1,", 50_000) + "1] if { true }" + strings.Repeat(" { true }", 50_000) + "\n"}
		},
		"the head of this rule is copied", 3},
	{"long arguments for many else branches",
		func() []string {
			return []string{"package z\n\nz([" + strings.Repeat("1,", 50_000) + "1]) := 1 if { true }" + strings.Repeat(" else := 1 if { true }", 50_000) + "\n"}
		},
		"the head of this rule is copied", 3},
	{"long names that are looked up",
		func() []string {
			return []string{"package z\n\n" + each(400, "x"+strings.Repeat(".a", 400)+"[y] := %[1]d if y := input.k%[1]d\n") + each(400, "z if x"+strings.Repeat(".a", 400)+".q == %[1]d\n")}
		},
		"rules that refer to many rules", 0},
	{"metadata that many rules ask for",
		func() []string {
			return []string{"# METADATA\n# custom:\n#   a: [" + strings.Repeat("1,", 100_000) + "1]\npackage z\n\n" + each(10_000, "z if count(rego.metadata.chain()) == %[1]d\n")}
		},
		"rego.metadata in a rule", 0},
	{"functions replaced in a chain",
		func() []string {
			return []string{"package z\n\nf(x) := x\ng(x) := x\nr15000 := f(1)\n" + each(15_000, "r%[1]d if r%[2]d with f as g\n")}
		},
		"functions are replaced by `with` in what was reached with others replaced", 0},
	{"functions replaced by variables in a chain",
		func() []string {
			return []string{"package z\n\nf(x) := x\nr3000 := f(1)\n" + each(3000, "r%[1]d if { x := input.x; r%[2]d with f as x"+strings.Repeat("; r3000", 30)+"}\n")}
		},
		"functions are replaced by `with` in what was reached with others replaced", 0},
	{"a number of many digits",
		func() []string { return []string{"package z\n\nz := {1, 2." + strings.Repeat("3", 2501) + "}\n"} },
		"there is a number of more than 2500 digits", 3},
	{"a million numbers",
		func() []string { return []string{"package z\n\nz := [" + strings.Repeat("1,", 1_000_000) + "]\n"} },
		"there is too much Rego", 0},
	{"numbers hidden in a string that is none",
		func() []string {
			return []string{"package z\n\nz := $\"{1}\" ; y := [" + strings.Repeat("1,", 1_000_000) + "]\n"}
		},
		"there is too much Rego", 0},
	{"a long line of strings",
		func() []string {
			return []string{"package z\n\nz := [" + each(60_000, "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa%[1]d\",") + "]\n"}
		},
		"", 0},
	{"as many numbers as fit",
		func() []string { return []string{"package z\n\nz := [" + strings.Repeat("1,", 490_000) + "]\n"} },
		"follow each other more than 100000 deep", 0},
	{"as many arrays in arrays as fit",
		func() []string {
			return []string{"package z\n\n" + strings.Repeat("z := "+strings.Repeat("[", 10)+strings.Repeat("]", 10)+"\n", 40_000)}
		},
		"", 0},
	{"as many rules as fit",
		func() []string {
			return []string{"package z\n\n" + each(43_000, "allow if {\n\tinput.action.name == \"a%[1]d\"\n\tinput.resource.id == \"r%[1]d\"\n}\n")}
		},
		"", 0},
	{"rules in a circle",
		func() []string { return []string{"package z\n\nr5000 := r0\n" + each(5000, "r%[1]d := r%[2]d\n")} },
		"is recursive", 3},
}

// rules makes a package p of so many.
func rules(n int) string { return "package p\n\n" + each(n, "r%[1]d := 1\n") }

// each formats a text with every number below n and the one after it.
func each(n int, format string) string {
	var b strings.Builder
	for i := range n {
		text := format
		if strings.Contains(format, "%[") {
			args := []any{i, i + 1}
			if !strings.Contains(format, "%[2]") {
				args = args[:1]
			}
			text = fmt.Sprintf(format, args...)
		}
		b.WriteString(text)
	}
	return b.String()
}

func many(n int, text string) []string {
	files := make([]string, n)
	for i := range files {
		files[i] = text
	}
	return files
}

const (
	hostileName = "MICROWALL_TEST_HOSTILE"
	// What a hostile policy may take: the rest of a test binary is not free.
	hostileMemory = 1 << 30
	hostileCPU    = 10 * time.Second
	hostileTime   = 5 * time.Minute // of a machine that has other things to do
)

// verdict is what a child reports about a hostile policy.
type verdict struct {
	Error string
	File  string // of a TooCostly
	Line  int
	Hint  string
	CPU   time.Duration
	KB    int64 // of memory, at most
}

func TestMain(m *testing.M) {
	if name := os.Getenv(hostileName); name != "" {
		os.Exit(judge(name))
	}
	os.Exit(m.Run())
}

// judge compiles and plans a hostile policy in this process, which may not have
// more memory than is good for it.
func judge(name string) int {
	limit := syscall.Rlimit{Cur: hostileMemory, Max: hostileMemory}
	if err := syscall.Setrlimit(syscall.RLIMIT_DATA, &limit); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var v verdict
	for _, h := range hostiles {
		if h.name != name {
			continue
		}
		if err := h.compile(); err != nil {
			v.Error = err.Error()
			if costly, ok := errors.AsType[*front.TooCostly](err); ok {
				v.File, v.Line, v.Hint = costly.File, costly.Line, costly.Hint
			}
		}
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	v.KB = used.Maxrss
	v.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		return 1
	}
	return 0
}

func (h *hostile) compile() error {
	src := front.Source{}
	for i, text := range h.files() {
		src.Modules = append(src.Modules, front.Module{Path: fmt.Sprintf("%d.rego", i), Text: text})
	}
	compiled, err := front.Compile(context.Background(), src)
	if err != nil {
		return err
	}
	_, err = compiled.Plan(context.Background(), "x = data.z")
	return err
}

// Each policy has a process of its own: what OPA would do with it unrefused ends
// the process, or does not end.
func TestAHostilePolicyIsRefusedBeforeItCosts(t *testing.T) {
	if underRace {
		t.Skip("it measures time and memory, of which the race detector takes many times as much: run it without")
	}
	for _, h := range hostiles {
		t.Run(h.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), hostileTime)
			defer cancel()
			child := exec.CommandContext(ctx, os.Args[0])
			child.Env = append(os.Environ(), hostileName+"="+h.name)
			child.Stderr = new(strings.Builder)
			out, err := child.Output()
			if err != nil {
				t.Fatalf("the child ended with %v after %v: %.2000s", err, child.ProcessState.SystemTime()+child.ProcessState.UserTime(), child.Stderr)
			}
			var v verdict
			if err := json.Unmarshal(out, &v); err != nil {
				t.Fatal(err)
			}
			t.Logf("%v, %d MB: %.300s", v.CPU, v.KB>>10, v.Error)
			if !strings.Contains(v.Error, h.why) || (v.Error == "") != (h.why == "") {
				t.Errorf("refused with %q, want %q", v.Error, h.why)
			}
			if last := fmt.Sprintf("%d.rego", len(h.files())-1); h.line != 0 && v.Line != 0 && (v.Line != h.line || v.File != last) {
				t.Errorf("refused at %s:%d, want line %d", v.File, v.Line, h.line)
			}
			if v.File != "" && v.Hint == "" {
				t.Error("it is not said what to write instead")
			}
			if v.CPU > hostileCPU {
				t.Errorf("took %v of CPU", v.CPU)
			}
		})
	}
}
