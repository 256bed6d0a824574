package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
)

// pushFlags are those of the push command.
type pushFlags struct {
	releaseFlags
	namespaceName string
	guardrails    []string
	maxStaleness  time.Duration
	whenStale     string
}

func newPush(w world) *cobra.Command {
	var f pushFlags
	cmd := &cobra.Command{
		Use:     "push DIR",
		GroupID: groupAuthor,
		Short:   "Check, test, build, sign and release a policy",
		Long: `Check and test the policy in a folder, build its bundle, sign the next release
of its namespace, and hand both to the PDP. From there every PDP and every client
has it within a second.

The head that the release follows is read from the PDP and verified here. A
policy that is the head already makes no release. If somebody else releases at
the same time, one wins and the other is told to look again.

Exit code 1 if the policy does not compile or a test fails, 2 if it could not be
released.`,
		Example: `  microwall push policies/cart --key cart-ci.key --source "$(git rev-parse HEAD)"
  MICROWALL_KEY="$CART_KEY" microwall push policies/cart --server pdp.example:7070 --ca ca.crt --cert ci.crt --cert-key ci.key`,
		Args:              one("folder"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return f.push(cmd.Context(), w, args[0]) },
	}
	f.add(cmd, w)
	fs := cmd.Flags()
	fs.StringVar(&f.namespaceName, "namespace", "", "namespace of the policy (default: as its .manifest says)")
	fs.StringArrayVar(&f.guardrails, "guardrail", nil, "folder with guardrails that bind the policy in its decisions.yaml; may be repeated")
	fs.DurationVar(&f.maxStaleness, "max-staleness", bundles.DefaultMaxStaleness, "how long the release is believed without proof that it is still the newest")
	fs.StringVar(&f.whenStale, "when-stale", bundles.Serve.String(), "what then happens: serve or deny")
	completeFolders(cmd, "guardrail")
	completeValues(cmd, "when-stale", bundles.Serve.String(), bundles.Deny.String())
	return cmd
}

func (f *pushFlags) push(ctx context.Context, w world, dir string) error {
	if err := f.check(); err != nil {
		return err
	}
	whenStale, err := bundles.ParseWhenStale(f.whenStale)
	if err != nil {
		return policy.Errorf(policy.BadRequest, "--when-stale: %w", err)
	}
	folder, err := openPolicy(ctx, dir)
	if err != nil {
		return err
	}
	tests := testFlags{guardrails: f.guardrails, namespace: f.namespaceName, output: output{format: formatText, formats: []string{formatText}}}
	report, err := tests.testFolder(ctx, folder)
	if err != nil {
		return err
	}
	if !report.Passed {
		if err := report.text(w.stderr, false); err != nil {
			return err
		}
		return errNo
	}
	n, err := namespaceOf(folder.bundle, f.namespaceName)
	if err != nil {
		return err
	}
	if n == "" {
		return policy.Errorf(policy.BadRequest, "nothing says which namespace %s is; write metadata.microwall.namespace into its .manifest, or give --namespace", dir)
	}
	return f.release(ctx, w, n, func(ctx context.Context, c *pap.Client, d pap.Draft) (pap.Result, error) {
		d.Bundle, d.MaxStaleness, d.WhenStale = folder.bundle, f.maxStaleness, whenStale
		return c.Push(ctx, d)
	})
}
