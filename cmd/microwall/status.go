package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
)

// statusPoll is how often --wait looks again.
const statusPoll = 500 * time.Millisecond

// instanceStatus is one line of a status.
type instanceStatus struct {
	Namespace policy.Namespace `json:"namespace"`
	Principal string           `json:"principal"`
	Instance  string           `json:"instance"`
	Role      string           `json:"role"`
	Software  string           `json:"software,omitempty"`
	Trust     uint64           `json:"trust"`
	Epoch     uint64           `json:"epoch,omitempty"`
	Revision  uint64           `json:"revision,omitempty"`
	Head      uint64           `json:"head"`
	// State is "head", "behind", "refused" or "stale".
	State   string    `json:"state"`
	Refused string    `json:"refused,omitempty"`
	Proven  time.Time `json:"proven,omitzero"`
	Heard   time.Time `json:"heard"`
}

// The states of an instance. One that is behind and refused the head is refused.
const (
	stateHead    = "head"
	stateBehind  = "behind"
	stateRefused = "refused"
	stateStale   = "stale"
)

func newStatus(w world) *cobra.Command {
	var f clientFlags
	var out output
	var trustFile string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "status [NAMESPACE]",
		GroupID: groupAuthor,
		Short:   "Show who decides by which release, and who is behind",
		Long: `Show which release each PDP and each embedded client decides by, and who is
behind the newest one or has refused it. It is what they say themselves, at
most a minute ago: it shows whether a push has arrived, and proves nothing of
one who lies. Clients without NATS say nothing.

With --wait the command ends as soon as everybody who reports has the newest
release, and with exit code 1 if that takes longer.`,
		Example: `  microwall status
  microwall status boutique.cart --wait 10s`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			var n policy.Namespace
			if len(args) > 0 {
				var err error
				if n, err = policy.ParseNamespace(args[0]); err != nil {
					return err
				}
			}
			trust, err := bundles.LoadTrust(trustFile)
			if err != nil {
				return err
			}
			conn, err := f.connect()
			if err != nil {
				return err
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout+wait)
			defer cancel()
			if trust, _, err = pap.FollowTrust(ctx, conn, f.dial.Server, trust); err != nil {
				return err
			}
			all, err := awaitHeads(ctx, pap.New(conn, f.dial.Server, trust), n, wait)
			if err != nil {
				return err
			}
			if err := printStatuses(w, out, all); err != nil {
				return err
			}
			switch late := behind(all); {
			case wait > 0 && len(all) == 0:
				return policy.Errorf(policy.Unavailable, "nobody who decides has said anything after %s; see that a PDP or an embedded client is connected to NATS", wait)
			case wait > 0 && late > 0:
				return policy.Errorf(policy.Unavailable, "%d of %d do not decide by the newest release after %s; look at their logs", late, len(all), wait)
			}
			return nil
		},
	}
	f.add(cmd, w)
	out.flag(cmd, formatJSON)
	trustFlag(cmd, w, &trustFile)
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait this long for everybody to have the newest release")
	return cmd
}

func behind(all []instanceStatus) (n int) {
	for _, s := range all {
		if s.State != stateHead {
			n++
		}
	}
	return n
}

// awaitHeads returns the statuses once somebody reports and nobody is behind, or
// after a while.
func awaitHeads(ctx context.Context, c *pap.Client, n policy.Namespace, wait time.Duration) ([]instanceStatus, error) {
	for end := time.Now().Add(wait); ; {
		all, err := statuses(ctx, c, n)
		if err != nil || len(all) > 0 && behind(all) == 0 || time.Until(end) < 0 {
			return all, err
		}
		select {
		case <-time.After(statusPoll):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// statuses compares what everybody says with the heads, which are verified. Who
// says something may make up namespaces without end, so only those are asked for
// that have a release; in another nobody is behind.
func statuses(ctx context.Context, c *pap.Client, n policy.Namespace) ([]instanceStatus, error) {
	said, err := c.Statuses(ctx, n)
	if err != nil || len(said) == 0 {
		return nil, err
	}
	released, err := c.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(released)
	heads := map[policy.Namespace]*bundles.Signed{}
	all := make([]instanceStatus, len(said))
	for i, s := range said {
		head, asked := heads[s.Namespace]
		if _, has := slices.BinarySearch(released, s.Namespace); has && !asked {
			if head, err = c.Head(ctx, s.Namespace); err != nil {
				return nil, err
			}
			heads[s.Namespace] = head
		}
		all[i] = instanceStatus{
			Namespace: s.Namespace, Principal: s.Principal, Instance: s.Instance, Role: s.Role, Software: s.Software, Trust: s.Trust,
			Epoch: s.Epoch, Revision: s.Revision, Refused: s.Refused, Proven: s.Proven, Heard: s.Received, State: stateHead,
		}
		if head != nil {
			all[i].Head = head.Release().Revision
		}
		switch {
		case head != nil && s.Digest != head.Digest() && s.Refused != "":
			all[i].State = stateRefused
		case head != nil && s.Digest != head.Digest():
			all[i].State = stateBehind
		case s.Stale:
			all[i].State = stateStale
		}
	}
	return all, nil
}

func printStatuses(w world, out output, all []instanceStatus) error {
	if out.format == formatJSON {
		return writeJSON(w.stdout, all)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(w.stdout, "nobody has said anything yet; PDPs and embedded clients report once a minute, and when something changes")
		return err
	}
	t := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAMESPACE\tROLE\tPRINCIPAL\tINSTANCE\tRUNS\tHEAD\tPROVEN\tHEARD\tSTATE")
	for _, s := range all {
		runs := "-"
		if s.Revision > 0 {
			runs = fmt.Sprint(s.Revision)
		}
		state := s.State
		if s.Refused != "" {
			state += ": " + s.Refused
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", s.Namespace, s.Role, s.Principal, s.Instance, runs, s.Head, ago(s.Proven), ago(s.Heard), state)
	}
	return t.Flush()
}

// ago says how long ago something was.
func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return strings.TrimSuffix(max(0, time.Since(t)).Truncate(time.Second).String(), "m0s") + " ago"
}
