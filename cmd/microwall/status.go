package main

import (
	"context"
	"errors"
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
	HeadEpoch uint64           `json:"head_epoch,omitempty"`
	Head      uint64           `json:"head"`
	// State is "head", "behind", "ahead", "refused", "stale", "silent" or "left".
	State   string    `json:"state"`
	Refused string    `json:"refused,omitempty"`
	Proven  time.Time `json:"proven,omitzero"`
	Heard   time.Time `json:"heard"`
}

// silentAfter is by how much what an instance said last may be older than what
// others did: each reports every 45 s at least. Clocks do not matter, as both times
// are the broker's.
const silentAfter = 50 * time.Second

// The states of an instance. One that is behind and refused the head is refused;
// one that has signed off, or says nothing any more, is that, whatever it said.
const (
	stateHead    = "head"
	stateBehind  = "behind"
	stateAhead   = "ahead"
	stateRefused = "refused"
	stateStale   = "stale"
	stateSilent  = "silent"
	stateLeft    = "left"
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

Who ends in peace, or asks only once, signs off and is shown as left for a while.
Who was killed or is cut off is silent after 50 s, and forgotten after 90.

RUNS is what decides there, and HEAD the newest release, as EPOCH/REVISION. PROVEN
is how old the proof of that (a beacon) was when this was heard, and HEARD how
long ago that was. STATE is
  head     it decides by the newest release
  behind   it decides by an older one, or by none
  ahead    it decides by one that is newer than what NATS has, or of which NATS has
           nothing: NATS was exchanged, or its streams removed. Raise the epoch in
           the trust file, and push again
  refused  it has refused the newest one, for the reason that it gives
  stale    it decides by the newest one, which nobody has proven for longer than
           it is believed
  silent   it has not said anything for longer than it should
  left     it has ended

With --wait the command ends as soon as everybody who reports and has not left
has the newest release, and with exit code 1 if that takes longer. Exit code 2 if
there is no answer, no such namespace, or if what is shown is incomplete, because
somebody reports so much that others are pushed out.`,
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
			if err != nil && len(all) == 0 {
				return err
			}
			if err := errors.Join(printStatuses(w, out, all), err); err != nil {
				return err
			}
			return waited(w, all, wait)
		},
	}
	f.add(cmd, w)
	out.flag(cmd, formatJSON)
	trustFlag(cmd, w, &trustFile)
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait this long for everybody to have the newest release")
	return cmd
}

// waited says no if somebody was waited for in vain.
func waited(w world, all []instanceStatus, wait time.Duration) error {
	here, late := counted(all)
	switch {
	case wait == 0 || here > 0 && len(late) == 0:
		return nil
	case here == 0:
		fmt.Fprintf(w.stderr, "microwall: nobody who decides has said anything after %s; see that a PDP or an embedded client is connected to NATS\n", wait)
	default:
		fmt.Fprintf(w.stderr, "microwall: %d of %d do not decide by the newest release after %s: %s; look at their logs\n", len(late), here, wait, visible(names(late)))
	}
	return errNo
}

// counted returns how many have not left, and which of those are not known to
// decide by the newest release.
func counted(all []instanceStatus) (here int, late []instanceStatus) {
	for _, s := range all {
		if s.State == stateLeft {
			continue
		}
		here++
		if s.State != stateHead {
			late = append(late, s)
		}
	}
	return here, late
}

// mostNamed is how many instances an error names.
const mostNamed = 5

// names says who some instances are, and what is with them.
func names(some []instanceStatus) string {
	var texts []string
	for _, s := range some[:min(len(some), mostNamed)] {
		state := s.State
		if state == stateSilent {
			state = "silent since " + brief(time.Since(s.Heard)) + " ago: killed, or cut off from NATS"
		}
		texts = append(texts, fmt.Sprintf("%s of %s in %s (%s)", s.Instance, s.Principal, s.Namespace, state))
	}
	if more := len(some) - mostNamed; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, ", ")
}

// awaitHeads returns the statuses once somebody reports and nobody is behind, or
// after a while.
func awaitHeads(ctx context.Context, c *pap.Client, n policy.Namespace, wait time.Duration) ([]instanceStatus, error) {
	for end := time.Now().Add(wait); ; {
		all, err := statuses(ctx, c, n)
		yet := policy.KindOf(err) == policy.NotFound && err != nil // somebody may be about to release it, or to say something
		if here, late := counted(all); err != nil && !yet || here > 0 && len(late) == 0 || time.Until(end) < 0 {
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
// that have a release; in another nobody is behind, and who decides there is ahead.
// With an error what it returns, if anything, is incomplete.
func statuses(ctx context.Context, c *pap.Client, n policy.Namespace) ([]instanceStatus, error) {
	said, incomplete := c.Statuses(ctx, n)
	if len(said) == 0 && (incomplete != nil || n == "") {
		return nil, incomplete
	}
	released, err := c.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(released)
	if len(said) == 0 && !slices.Contains(released, n) {
		return nil, policy.Errorf(policy.NotFound, "namespace %s has no release, and nobody says that it decides there; those that have one: %s; or push one: microwall push DIR --namespace %s", n, listOf(released), n)
	}
	heads := map[policy.Namespace]*bundles.Signed{}
	var newest time.Time
	for _, s := range said {
		if s.Received.After(newest) {
			newest = s.Received
		}
	}
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
			Epoch: s.Epoch, Revision: s.Revision, Refused: s.Refused, Proven: s.Proven, Heard: s.Received,
		}
		if head != nil {
			all[i].HeadEpoch, all[i].Head = head.Release().Epoch, head.Release().Revision
		}
		var newestRelease *policy.Version // nil if it is not known
		_, has := slices.BinarySearch(released, s.Namespace)
		switch {
		case head != nil:
			newestRelease = new(head.Version())
		case !has:
			newestRelease = &policy.Version{}
		}
		all[i].State = stateOf(s, newestRelease, newest)
	}
	return all, incomplete
}

// stateOf is the state of an instance by what it said last. head is of revision 0 if
// there is none, and nil if it does not verify. newest is when anybody said anything
// last.
func stateOf(s pap.Status, head *policy.Version, newest time.Time) string {
	notHead := head != nil && head.Revision > 0 && s.Digest != head.Digest
	switch {
	case s.Left:
		return stateLeft
	case newest.Sub(s.Received) > silentAfter:
		return stateSilent
	case head != nil && (policy.Version{Epoch: s.Epoch, Revision: s.Revision}).Compare(*head) > 0:
		return stateAhead
	case notHead && s.Refused != "":
		return stateRefused
	case notHead:
		return stateBehind
	case s.Stale:
		return stateStale
	}
	return stateHead
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
		state, proven := s.State, "never"
		if s.Refused != "" {
			state += ": " + s.Refused
		}
		if !s.Proven.IsZero() {
			proven = brief(s.Heard.Sub(s.Proven)) + " old"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s ago\t%s\n", s.Namespace, s.Role, s.Principal, s.Instance, revision(s.Epoch, s.Revision), revision(s.HeadEpoch, s.Head), proven, brief(time.Since(s.Heard)), state)
	}
	return t.Flush()
}

// revision says which release, "-" for none.
func revision(epoch, revision uint64) string {
	if revision == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", epoch, revision)
}

// brief says how long, by the second.
func brief(d time.Duration) string {
	text := max(0, d).Truncate(time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// listOf names some namespaces, and says if there are more.
func listOf(all []policy.Namespace) string {
	const most = 20
	var names []string
	for _, n := range all[:min(most, len(all))] {
		names = append(names, string(n))
	}
	if len(all) > most {
		names = append(names, fmt.Sprintf("and %d more", len(all)-most))
	}
	return orDash(strings.Join(names, ", "))
}
