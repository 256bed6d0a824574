// Command microwall is a Policy Decision Point for microservices, and the tool
// that policy authors push to it with. `microwall --help` lists what it does.
//
// Exit codes: 0 is yes or done, 1 is no (a denial, a finding, a failed test),
// 2 is an error.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// The exit codes.
const (
	exitYes   = 0
	exitNo    = 1
	exitError = 2
)

// errNo ends a command whose answer is no. The command has printed the answer.
var errNo = errors.New("no")

// world is what a command may touch: commands take it as a parameter so that
// tests run them as their users do.
type world struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	w := world{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	code := run(ctx, w, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, w world, args []string) int {
	root := newRoot(w)
	root.SetArgs(args)
	root.SetIn(w.stdin)
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	strictHelp(root)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitYes
	case errors.Is(err, errNo):
		return exitNo
	}
	fmt.Fprintf(w.stderr, "microwall: %s\n", visible(err.Error())) // servers have a say in it
	return exitError
}
