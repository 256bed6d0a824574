package lint_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/microwall/microwall/internal/lint"
)

func TestNoTestSleeps(t *testing.T) {
	found, err := lint.Sleeps(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, sentence := range found {
		t.Error(sentence)
	}
}

func TestASleepIsFound(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		want             []string
	}{
		{"a call", "a/a_test.go", `package a; import "time"; func f() { time.Sleep(1) }`, []string{"a/a_test.go:1:38: time.Sleep in a test"}},
		{"a value", "a/a_test.go", `package a; import "time"; var wait = time.Sleep`, []string{"time.Sleep in a test"}},
		{"another name", "a/a_test.go", `package a; import clock "time"; func f() { clock.Sleep(1) }`, []string{"time.Sleep in a test"}},
		{"no name", "a/a_test.go", `package a; import . "time"; func f() { Sleep(1) }`, []string{"imports time by a dot"}},
		{"an injected clock", "a/a_test.go", `package a; import "time"; func f(c interface{ Sleep(time.Duration) }) { c.Sleep(time.Second) }`, nil},
		{"what tests share", "a/a.go", `package a; import ("testing"; "time"); func f(*testing.T) { time.Sleep(1) }`, []string{"time.Sleep in a test"}},
		{"no test", "a/a.go", `package a; import "time"; func f() { time.Sleep(1) }`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := lint.Sleeps(tree(map[string]string{c.file: c.text}))
			if err != nil {
				t.Fatal(err)
			}
			wantEach(t, found, c.want)
		})
	}
}

func TestEveryoneCanInstallThisModule(t *testing.T) {
	for _, name := range modfiles(t) {
		found, err := lint.Directives(name, read(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, sentence := range found {
			t.Error(sentence)
		}
	}
}

func TestReplacingAndExcludingIsFound(t *testing.T) {
	found, err := lint.Directives("go.mod", []byte(`module example.com/m

go 1.26.0

require example.org/a v1.0.0

replace example.org/a => ../a

exclude example.org/b v1.2.3
`))
	if err != nil {
		t.Fatal(err)
	}
	wantEach(t, found, []string{"go.mod:7: replaces example.org/a", "go.mod:9: excludes example.org/b@v1.2.3"})

	if found, err := lint.Directives("go.mod", []byte("modul example.com/m\n")); err == nil {
		t.Errorf("found %q, no error, in a go.mod that is none", found)
	}
}

// The generated Go is written for the protobuf library of the same version.
func TestTheGeneratorMatchesTheLibrary(t *testing.T) {
	const protobuf = "google.golang.org/protobuf"
	var versions []string
	for _, name := range []string{"../../go.mod", "../../tools/protoc-gen-go.mod", "../../tools/protoc-gen-go-grpc.mod"} {
		v, err := lint.Version(name, read(t, name), protobuf)
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, v)
	}
	if versions[0] != versions[1] || versions[0] != versions[2] {
		t.Errorf("%s is %s in go.mod, %s for protoc-gen-go, %s for protoc-gen-go-grpc: see tools/README.md for how to move one", protobuf, versions[0], versions[1], versions[2])
	}
	if v, err := lint.Version("go.mod", []byte("module example.com/m\n"), protobuf); err == nil {
		t.Errorf("version %q, no error, where none is required", v)
	}
}

// modfiles returns the module's own go.mod and those of the tools.
func modfiles(t *testing.T) []string {
	t.Helper()
	tools, err := filepath.Glob("../../tools/*.mod")
	if err != nil {
		t.Fatal(err)
	}
	if len(tools) == 0 {
		t.Fatal("no modfile in tools")
	}
	return append(tools, "../../go.mod")
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
