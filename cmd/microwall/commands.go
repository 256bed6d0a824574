package main

import (
	"github.com/spf13/cobra"
)

// commands returns every command, one file each.
func commands(w world) []*cobra.Command {
	return []*cobra.Command{
		newVersion(w),
		newDemo(w),
		newDemoClient(w),
		newAuthorize(w),
		newRetire(w),
		newRollback(w),
		newHistory(w),
		newStatus(w),
		newPush(w),
		newCosign(w),
		newCheckTrust(w),
		newTrust(w),
		newServe(w),
		newNATSConfig(w),
		newKeygen(w),
		newExplain(w),
		newCheck(w),
		newTest(w),
		newBuild(w),
	}
}
