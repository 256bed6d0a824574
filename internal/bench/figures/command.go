package figures

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// The exit codes.
const (
	ExitOK    = 0
	ExitNotOK = 1
	ExitError = 2
)

// Command is a command that measures.
type Command struct {
	// Name is how messages call it.
	Name string
	// Usage is what -help says before the flags.
	Usage string
	// Figures are all there are.
	Figures []Figure
}

// Run measures what args ask for, and returns the exit code.
func (c Command) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	asJSON := fs.Bool("json", false, "print one JSON object on the last line")
	only := fs.String("only", "", "measure `NAME` alone, with what is called after it: one of "+strings.Join(names(c.Figures), ", "))
	fs.Usage = func() {
		fmt.Fprintf(stderr, "%s\n", c.Usage)
		fs.PrintDefaults()
	}
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return ExitOK
	case err != nil: // fs has said why
		return ExitError
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "%s: there are no arguments besides flags, but %q was given; see -help\n", c.Name, fs.Args())
		return ExitError
	}
	chosen := choose(c.Figures, *only)
	if len(chosen) == 0 {
		fmt.Fprintf(stderr, "%s: there is no figure %q; choose one of %s\n", c.Name, *only, strings.Join(names(c.Figures), ", "))
		return ExitError
	}
	fmt.Fprintln(stdout, machine())
	results := make([]result, len(chosen))
	for i, f := range chosen {
		var err error
		if results[i], err = f.result(ctx); err != nil {
			fmt.Fprintf(stderr, "%s: %s could not be measured: %v\n", c.Name, f.Name, err)
			return ExitError
		}
	}
	if err := report(stdout, chosen, results, *asJSON); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", c.Name, err)
		return ExitError
	}
	for _, r := range results {
		if !r.OK {
			return ExitNotOK
		}
	}
	return ExitOK
}

func report(w io.Writer, of []Figure, results []result, asJSON bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tVALUE\tBAR\tOK\tWHAT")
	byName := make(map[string]result)
	for i, r := range results {
		ok := "yes"
		if !r.OK {
			ok = "NO"
		}
		fmt.Fprintf(table, "%s\t%.1f %s\t%s\t%s\t%s\n", of[i].Name, r.Value, r.Unit, of[i].Bar.in(r.Unit), ok, of[i].What)
		byName[of[i].Name] = r
	}
	if err := table.Flush(); err != nil || !asJSON {
		return err
	}
	return json.NewEncoder(w).Encode(byName)
}
