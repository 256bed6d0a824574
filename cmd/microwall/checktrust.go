package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
)

func newCheckTrust(w world) *cobra.Command {
	var f clientFlags
	var out output
	cmd := &cobra.Command{
		Use:     "check-trust OLD NEW",
		GroupID: groupTrust,
		Short:   "Say what changes when one trust file takes the place of another",
		Long: `Say what changes when the trust file NEW takes the place of OLD: what would not
be taken at all, which guardrails are lost, who may sign what. With --server it
also asks what is released, and says which namespaces would stop deciding because
their heads stand on keys that go, and to which releases there is no rolling back.
The server may keep quiet about some; it cannot make any up. Which version is in
force there is its word.

It is a PROBLEM, and the exit code is 1, if
  - no process takes the file: its domain is another, its version is not higher, or
    lower than what the server has in force, or its epoch is lower;
  - something stops deciding: a head does not open, nobody may sign a namespace any
    more, a guardrail has no release, or no beacon key stays;
  - something is guarded less: a guardrail is none any more, fewer keys must sign a
    namespace, max-staleness is longer or gone, when-stale: deny is gone, no key
    signs beacons any more, fewer roots must sign, or there are no roots any more.

Who may sign is a note, since keys change in peace, and so are what is guarded
more and to what there is no rolling back. Read the notes, too: a signer or a root
that nobody knows is a stranger who signs. Exit code 0 if there are only notes.`,
		Example: `  microwall check-trust trust.yaml new.yaml --server pdp.example:7070 --ca ca.crt
  git show main:trust.yaml > old.yaml && microwall check-trust old.yaml trust.yaml --format json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return policy.Errorf(policy.BadRequest, "name two trust files: microwall check-trust OLD NEW")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			before, err := bundles.LoadTrust(args[0])
			if err != nil {
				return err
			}
			after, err := bundles.LoadTrust(args[1])
			if err != nil {
				return err
			}
			all := pap.CompareTrust(before, after)
			if f.named(cmd, w) && before.Domain() == after.Domain() {
				more, err := f.checkReleases(cmd.Context(), before, after)
				if err != nil {
					return err
				}
				all = append(all, more...)
			}
			return printFindings(w, out, all)
		},
	}
	f.add(cmd, w)
	out.flag(cmd, formatJSON)
	return cmd
}

// checkReleases asks what is released.
func (f *clientFlags) checkReleases(ctx context.Context, before, after *bundles.Trust) (found []pap.Finding, err error) {
	err = f.talk(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		found, err = pap.New(conn, f.dial.Server, before).CheckTrust(ctx, after)
		return err
	})
	return found, err
}

func printFindings(w world, out output, all []pap.Finding) error {
	slices.SortStableFunc(all, func(a, b pap.Finding) int { return strings.Compare(string(a.Namespace), string(b.Namespace)) })
	bad := slices.ContainsFunc(all, func(f pap.Finding) bool { return f.Problem })
	if out.format == formatJSON {
		if all == nil {
			all = []pap.Finding{}
		}
		if err := writeJSON(w.stdout, struct {
			OK       bool          `json:"ok"`
			Findings []pap.Finding `json:"findings"`
		}{!bad, all}); err != nil {
			return err
		}
	} else if _, err := io.WriteString(w.stdout, findingsText(all)); err != nil {
		return err
	}
	if bad {
		return errNo
	}
	return nil
}

func findingsText(all []pap.Finding) string {
	var b strings.Builder
	for _, f := range all {
		mark := "note   "
		if f.Problem {
			mark = "PROBLEM"
		}
		if f.Namespace != "" {
			fmt.Fprintf(&b, "%s  %s: %s\n", mark, f.Namespace, f.Text)
		} else {
			fmt.Fprintf(&b, "%s  %s\n", mark, f.Text)
		}
	}
	return b.String()
}
