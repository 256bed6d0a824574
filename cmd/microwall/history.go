package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
)

// pastRelease is one line of a history.
type pastRelease struct {
	Epoch    uint64        `json:"epoch,omitempty"`
	Revision uint64        `json:"revision,omitempty"`
	Created  time.Time     `json:"created,omitzero"`
	Author   string        `json:"author,omitempty"`
	Source   string        `json:"source,omitempty"`
	Signers  []string      `json:"signers,omitempty"`
	Digest   policy.Digest `json:"digest,omitzero"`
	Bundle   policy.Digest `json:"bundle,omitzero"`
	Retired  bool          `json:"retired,omitempty"`
	// Unverified says why a release does not verify; then nothing else is
	// shown of it.
	Unverified string `json:"unverified,omitempty"`
}

func newHistory(w world) *cobra.Command {
	var f clientFlags
	var out output
	var trustFile string
	cmd := &cobra.Command{
		Use:               "history NAMESPACE",
		GroupID:           groupAuthor,
		Short:             "List who released what and when, newest first",
		Example:           "  microwall history boutique.cart",
		Args:              one("namespace"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			n, err := policy.ParseNamespace(args[0])
			if err != nil {
				return err
			}
			trust, err := bundles.LoadTrust(trustFile)
			if err != nil {
				return err
			}
			return f.talk(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				newest, _, err := pap.FollowTrust(ctx, conn, f.dial.Server, trust)
				if err != nil {
					return err
				}
				entries, err := pap.New(conn, f.dial.Server, newest).History(ctx, n)
				if err != nil {
					return err
				}
				return printHistory(w, out, entries)
			})
		},
	}
	f.add(cmd, w)
	out.flag(cmd, formatJSON)
	trustFlag(cmd, w, &trustFile)
	return cmd
}

func printHistory(w world, out output, entries []pap.Entry) error {
	past := make([]pastRelease, len(entries))
	for i, e := range entries {
		if e.Signed == nil {
			past[i].Unverified = e.Err.Error()
			continue
		}
		r := e.Signed.Release()
		past[i] = pastRelease{
			Epoch: r.Epoch, Revision: r.Revision, Created: r.Created, Author: r.Author, Source: r.Source,
			Signers: e.Signed.Signers(), Digest: e.Signed.Digest(), Bundle: r.Bundle, Retired: r.Retired(),
		}
	}
	if out.format == formatJSON {
		return writeJSON(w.stdout, past)
	}
	t := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "EPOCH\tREVISION\tCREATED\tAUTHOR\tSOURCE\tSIGNED BY\tBUNDLE")
	for _, p := range past {
		switch {
		case p.Unverified != "":
			fmt.Fprintf(t, "?\t?\t-\t-\t-\t-\tdoes not verify: %s\n", visible(p.Unverified))
		default:
			bundle := p.Bundle.String()
			if p.Retired {
				bundle = "retired"
			}
			fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\t%s\t%.19s\n", p.Epoch, p.Revision, p.Created.UTC().Format(time.RFC3339), orDash(p.Author), orDash(p.Source), strings.Join(p.Signers, ","), bundle)
		}
	}
	return t.Flush()
}
