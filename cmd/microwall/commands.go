package main

import (
	"github.com/spf13/cobra"
)

// commands returns every command, one file each.
func commands(w world) []*cobra.Command {
	return []*cobra.Command{
		newVersion(w),
	}
}
