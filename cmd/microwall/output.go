package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/policy"
)

// The values of --format.
const (
	formatText  = "text"
	formatJSON  = "json"
	formatJUnit = "junit"
)

// output is the --format flag of a command.
type output struct {
	format  string
	formats []string
}

// flag adds --format with the formats that the command has; text is the
// default.
func (o *output) flag(cmd *cobra.Command, formats ...string) {
	o.formats = append([]string{formatText}, formats...)
	cmd.Flags().StringVar(&o.format, "format", formatText, strings.Join(o.formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(o.formats, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
}

// check refuses a format that the command does not have.
func (o *output) check() error {
	if !slices.Contains(o.formats, o.format) {
		return policy.Errorf(policy.BadRequest, "--format is %q; this command has %s", o.format, strings.Join(o.formats, ", "))
	}
	return nil
}

// writeJSON writes v as one indented JSON document.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}
