package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
)

func newRollback(w world) *cobra.Command {
	var f releaseFlags
	var to, epoch uint64
	cmd := &cobra.Command{
		Use:     "rollback NAMESPACE --to REVISION",
		GroupID: groupAuthor,
		Short:   "Release the bundle of an older release again",
		Long: `Release the bundle of an older release again, as a new revision: revisions only
go forward. The old release and its bundle are fetched from the PDP and verified
here before anything is signed.`,
		Example:           "  microwall rollback boutique.cart --to 41 --key cart-ci.key",
		Args:              one("namespace"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := f.namespace(args[0])
			if err != nil {
				return err
			}
			if to == 0 {
				return policy.Errorf(policy.BadRequest, "--to is missing; `microwall history %s` lists the revisions", n)
			}
			return f.release(cmd.Context(), w, n, func(ctx context.Context, c *pap.Client, d pap.Draft) (pap.Draft, error) {
				return c.Restore(ctx, d, epoch, to, bundles.Limits{})
			})
		},
	}
	f.add(cmd, w)
	cmd.Flags().Uint64Var(&to, "to", 0, "revision whose bundle comes back")
	cmd.Flags().Uint64Var(&epoch, "epoch", 0, "epoch of that revision (default: the newest that has it)")
	return cmd
}

func newRetire(w world) *cobra.Command {
	var f releaseFlags
	cmd := &cobra.Command{
		Use:     "retire NAMESPACE",
		GroupID: groupAuthor,
		Short:   "Release that a namespace is no more",
		Long: `Release that a namespace is no more: requests in it are then answered with an
error that says so, never with an older policy. A push brings it back.`,
		Example:           "  microwall retire boutique.recommendation --key recommendation-ci.key",
		Args:              one("namespace"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := f.namespace(args[0])
			if err != nil {
				return err
			}
			return f.release(cmd.Context(), w, n, func(_ context.Context, c *pap.Client, d pap.Draft) (pap.Draft, error) {
				if c.Trust().IsGuardrail(n) {
					return d, policy.Errorf(policy.BadRequest, "%s is a guardrail: without it nothing below it would be decided; take `guardrail: true` out of the trust file first", n)
				}
				return d, nil
			})
		},
	}
	f.add(cmd, w)
	return cmd
}

// namespace checks the flags and parses the namespace that a command is about.
func (f *releaseFlags) namespace(arg string) (policy.Namespace, error) {
	if err := f.check(); err != nil {
		return "", err
	}
	return policy.ParseNamespace(arg)
}
