// Command distribution measures how long releases take from their author to
// those who decide by them, and holds each figure against its bar.
//
// Everything is real and talks over sockets on loopback: a NATS server that
// syncs before it acknowledges, a PDP that is pushed to over gRPC, and embedded
// clients over NATS. Where there are a thousand of them, they are in a few other
// processes, and keep nothing on disk: it is one disk here, and would be a
// thousand elsewhere.
//
// It prints a table; with -json, one object more on the last line:
//
//	{"NAME": {"value": 12.3, "unit": "ms", "bar": 25, "ok": true}}
//
// A figure is ok if its value is not above its bar. The exit code is 0 if all
// are, 1 if one is not, 2 if something could not be measured. Figures of two
// machines, or of a busy one and an idle one, cannot be compared.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
)

// The exit codes.
const (
	exitOK    = 0
	exitNotOK = 1
	exitError = 2
)

const usage = `Usage: go run ./internal/bench/distribution [-json] [-only NAME]

Measures how long releases take from their author to those who decide by them.
Exit code 0 if every figure is within its bar, 1 if one is not, 2 on an error.

  go run ./internal/bench/distribution -json -only push16k | tail -n 1
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	if len(os.Args) == 2 && os.Args[1] == fleetArg {
		code := exitOK
		if err := runCrew(ctx, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = exitError
		}
		os.Exit(code)
	}
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, figures(progressOn(os.Stderr)))
	stop()
	os.Exit(code)
}

// run measures what is asked for.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, all []figure) int {
	fs := flag.NewFlagSet("distribution", flag.ContinueOnError)
	fs.SetOutput(stderr)
	asJSON := fs.Bool("json", false, "print one JSON object on the last line")
	only := fs.String("only", "", "measure `NAME` alone, with its percentiles: one of "+strings.Join(names(all), ", "))
	fs.Usage = func() {
		fmt.Fprintf(stderr, "%s\n", usage)
		fs.PrintDefaults()
	}
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil: // fs has said why
		return exitError
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "distribution: there are no arguments besides flags, but %q was given; see -help\n", fs.Args())
		return exitError
	}
	chosen := choose(all, *only)
	if len(chosen) == 0 {
		fmt.Fprintf(stderr, "distribution: there is no figure %q; choose one of %s\n", *only, strings.Join(names(all), ", "))
		return exitError
	}
	fmt.Fprintln(stdout, machine())
	results := make([]result, len(chosen))
	for i, f := range chosen {
		var err error
		if results[i], err = f.result(ctx); err != nil {
			fmt.Fprintf(stderr, "distribution: %s could not be measured: %v\n", f.name, err)
			return exitError
		}
	}
	if err := report(stdout, chosen, results, *asJSON); err != nil {
		fmt.Fprintf(stderr, "distribution: %v\n", err)
		return exitError
	}
	for _, r := range results {
		if !r.OK {
			return exitNotOK
		}
	}
	return exitOK
}

func report(w io.Writer, of []figure, results []result, asJSON bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tVALUE\tBAR\tOK\tWHAT")
	byName := make(map[string]result)
	for i, r := range results {
		ok := "yes"
		if !r.OK {
			ok = "NO"
		}
		bar := "-"
		if r.Bar > 0 {
			bar = fmt.Sprintf("%g %s", r.Bar, r.Unit)
		}
		fmt.Fprintf(table, "%s\t%.1f %s\t%s\t%s\t%s\n", of[i].name, r.Value, r.Unit, bar, ok, of[i].what)
		byName[of[i].name] = r
	}
	if err := table.Flush(); err != nil || !asJSON {
		return err
	}
	return json.NewEncoder(w).Encode(byName)
}
