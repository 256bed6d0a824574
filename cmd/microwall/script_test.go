package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/microwall/microwall/examples/boutique"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"microwall": main})
}

// TestScript runs testdata/script/*.txtar, in which the command is a process of
// its own, as for its users. Besides testscript's commands there are
//
//	exits CODE PROGRAM [ARG ...]   runs a program that must end with that exit code
//	boutique                       puts examples/boutique into the folder boutique
//	mode FILE OCTAL                wants the permissions of a file
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			// The race detector sleeps for a second before a process exits.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"boutique": putBoutique,
			"mode":     mode,
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG ...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got, err = exit.ExitCode(), nil
	}
	ts.Check(err)
	if got != want {
		ts.Fatalf("exit code is %d, want %d", got, want)
	}
}

func putBoutique(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: boutique")
	}
	ts.Check(os.CopyFS(ts.MkAbs("boutique"), boutique.FS))
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE OCTAL")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("permissions of %s are %s, want %s", args[0], got, args[1])
	}
}
