// Command distribution measures how long releases take from their author to
// those who decide by them, and holds each figure against its bar.
//
// Everything is real and talks over sockets on loopback (package domain): a NATS
// server that syncs before it acknowledges, a PDP that is pushed to over gRPC, and
// embedded clients over NATS. Where there are a thousand of them, they are in a few
// other processes, and keep nothing on disk: it is one disk here, and would be a
// thousand elsewhere.
//
// What it prints, and its exit codes, are those of package figures.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/microwall/microwall/internal/bench/figures"
)

const usage = `Usage: go run ./internal/bench/distribution [-json] [-only NAME]

Measures how long releases take from their author to those who decide by them.
Exit code 0 if every figure is within its bar, 1 if one is not, 2 on an error.

  go run ./internal/bench/distribution -json -only push16k | tail -n 1
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	if len(os.Args) == 2 && os.Args[1] == fleetArg {
		code := figures.ExitOK
		if err := runCrew(ctx, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = figures.ExitError
		}
		os.Exit(code)
	}
	code := command(all(figures.ProgressOn(os.Stderr))).Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func command(all []figures.Figure) figures.Command {
	return figures.Command{Name: "distribution", Usage: usage, Figures: all}
}
