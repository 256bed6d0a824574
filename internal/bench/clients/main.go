// Command clients measures what the caches of both clients are worth, and what becomes
// of callers when a PDP dies, and holds each figure against its bar. What a single
// hit costs, BenchmarkHit in clients/cache says.
//
// Everything is real and talks over sockets on loopback (package domain): a NATS
// server with accounts, a PDP that is pushed to, PDPs in processes of their own,
// which the remote clients ask, and the clients in this one.
//
// What it prints, and its exit codes, are those of package figures.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
)

const usage = `Usage: go run ./internal/bench/clients [-json] [-only NAME]

Measures what the clients' caches are worth, and what becomes of callers when a
PDP dies. Exit code 0 if every figure is within its bar, 1 if one is not, 2 on an
error.

  go run ./internal/bench/clients -json -only zipf | tail -n 1
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	if len(os.Args) == 2 && os.Args[1] == domain.PDPArg {
		code := figures.ExitOK
		if err := domain.ServePDP(ctx, os.Stdin, os.Stdout); err != nil {
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
	return figures.Command{Name: "clients", Usage: usage, Figures: all}
}
