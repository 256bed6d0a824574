package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What stands between backquotes in the text of a flag is shown as the type of
// its value.
func TestTheHelpShowsNothingButATypeAsTheTypeOfAFlag(t *testing.T) {
	flags := 0
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			flags++
			if name, _ := pflag.UnquoteUsage(f); strings.ContainsAny(name, " -") || strings.Contains(f.Usage, "`") {
				t.Errorf("%s shows --%s %s", cmd.CommandPath(), f.Name, name)
			}
		})
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(newRoot(world{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}))
	if flags < 100 {
		t.Errorf("there are only %d flags", flags)
	}
}
