package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
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
	// Unverified says why a release does not verify; then all of the above is
	// left out, and Says is what it says of itself, if it does. Nobody vouches for
	// that.
	Unverified string        `json:"unverified,omitempty"`
	Says       *claimRelease `json:"says,omitempty"`
}

// claimRelease is what a release says of itself that does not verify.
type claimRelease struct {
	Epoch    uint64        `json:"epoch"`
	Revision uint64        `json:"revision"`
	Created  time.Time     `json:"created"`
	Author   string        `json:"author,omitempty"`
	Source   string        `json:"source,omitempty"`
	Bundle   policy.Digest `json:"bundle,omitzero"`
	Retired  bool          `json:"retired,omitempty"`

	why string
}

func newHistory(w world) *cobra.Command {
	var f clientFlags
	var out output
	var trustFile string
	cmd := &cobra.Command{
		Use:     "history NAMESPACE",
		GroupID: groupAuthor,
		Short:   "List who released what and when, newest first",
		Long: `List who released what and when, newest first, of the releases that are kept.

What was signed by a key that the trust file no longer lists does not verify any
more. It is listed with "not trusted" in the place of who signed it, and what
stands there is only what it says of itself.`,
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
				client := pap.New(conn, f.dial.Server, newest)
				entries, err := client.History(ctx, n)
				if err != nil {
					return err
				}
				if slices.ContainsFunc(entries, func(e pap.Entry) bool { return e.Err != nil }) {
					if theirs := client.TrustInForce(ctx); theirs > newest.Version() {
						fmt.Fprintf(w.stderr, "microwall: %s\n", visible(pap.Outdated(newest.Version(), f.dial.Server, theirs)))
					}
				}
				return printHistory(w, out, n, newest, entries)
			})
		},
	}
	f.add(cmd, w)
	out.flag(cmd, formatJSON)
	trustFlag(cmd, w, &trustFile)
	return cmd
}

func printHistory(w world, out output, n policy.Namespace, trust *bundles.Trust, entries []pap.Entry) error {
	past := make([]pastRelease, len(entries))
	for i, e := range entries {
		if e.Signed == nil {
			past[i] = unverified(n, e)
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
		signed := strings.Join(p.Signers, ",")
		if p.Says != nil {
			signed = "not trusted"
			p.Epoch, p.Revision, p.Created, p.Author, p.Source, p.Bundle, p.Retired = p.Says.Epoch, p.Says.Revision, p.Says.Created, p.Says.Author, p.Says.Source, p.Says.Bundle, p.Says.Retired
		} else if p.Unverified != "" {
			fmt.Fprintf(t, "?\t?\t-\t-\t-\t-\tdoes not verify: %s\n", visible(p.Unverified))
			continue
		}
		bundle := p.Bundle.String()
		if p.Retired {
			bundle = "retired"
		}
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\t%s\t%.19s\n", p.Epoch, p.Revision, p.Created.UTC().Format(time.RFC3339), orDash(p.Author), orDash(p.Source), signed, bundle)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return explainUnverified(w, trust, past)
}

// unverified is the line of a release that does not verify.
func unverified(n policy.Namespace, e pap.Entry) pastRelease {
	p := pastRelease{Unverified: e.Err.Error()}
	why, ok := errors.AsType[*bundles.UnverifiedError](e.Err)
	if r, says := e.Says(n); ok && says {
		p.Says = &claimRelease{Epoch: r.Epoch, Revision: r.Revision, Created: r.Created, Author: r.Author, Source: r.Source, Bundle: r.Bundle, Retired: r.Retired(), why: why.Reason}
	}
	return p
}

// explainUnverified says what the lines mean that are not trusted.
func explainUnverified(w world, trust *bundles.Trust, past []pastRelease) error {
	reasons := map[string][]string{}
	for _, p := range past {
		if p.Says != nil {
			reasons[p.Says.why] = append(reasons[p.Says.why], revision(p.Says.Epoch, p.Says.Revision))
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nnot trusted: only what the release says of itself; it does not open by version %d of the trust file, as when the key that signed it was taken out\n", trust.Version())
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(&b, "  %s: %s\n", strings.Join(reasons[why], ", "), visible(why))
	}
	_, err := io.WriteString(w.stdout, b.String())
	return err
}
