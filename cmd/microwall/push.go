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
	signed        string // --release
}

func newPush(w world) *cobra.Command {
	var f pushFlags
	cmd := &cobra.Command{
		Use:     "push DIR | --release FILE",
		GroupID: groupAuthor,
		Short:   "Check, test, build, sign and release a policy",
		Long: `Check and test the policy in a folder, build its bundle, sign the next release
of its namespace, and hand both to the PDP. From there every PDP and every client
has it within a second.

It prints the release's token. Kept beside what the release protects, it has a
decision made by that release or a newer one: authorize --at-least TOKEN, and
policy.AtLeast in Go.

The head that the release follows is read from the PDP and verified here. A
policy that is the head already makes no release. If somebody else releases at
the same time, one wins and the other is told to look again.

Where the trust file asks for several signatures, a release is made in steps:
--sign-only -o FILE signs and releases nothing; each of the others looks at FILE
and signs it, with cosign; --release FILE releases it, once, and only if nobody
released something else meanwhile.

Exit code 1 if the policy does not compile or a test fails, 2 if it could not be
released.`,
		Example: `  microwall push policies/cart --key cart-ci.key --source "$(git rev-parse HEAD)"
  MICROWALL_KEY="$CART_KEY" microwall push policies/cart --server pdp.example:7070 --ca ca.crt --cert ci.crt --cert-key ci.key
  microwall push policies/guardrails --key ann.key --sign-only -o guardrails.release
  microwall push --release guardrails.release`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.signed != "" {
				return f.checkRelease(cmd, args)
			}
			return one("folder")(cmd, args)
		},
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.signed != "" {
				return f.releaseFile(cmd, w)
			}
			return f.push(cmd.Context(), w, args[0])
		},
	}
	f.add(cmd, w)
	fs := cmd.Flags()
	fs.StringVar(&f.namespaceName, "namespace", "", "namespace of the policy (default: as its .manifest says)")
	fs.StringArrayVar(&f.guardrails, "guardrail", nil, "folder with guardrails that bind the policy in its decisions.yaml; may be repeated")
	fs.DurationVar(&f.maxStaleness, "max-staleness", bundles.DefaultMaxStaleness, "how long the release is believed without proof that it is still the newest")
	fs.StringVar(&f.whenStale, "when-stale", bundles.Serve.String(), "what then happens: serve or deny")
	fs.StringVar(&f.signed, "release", "", "release what was signed in steps, from this file, instead of a folder")
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
	return f.release(ctx, w, n, func(_ context.Context, _ *pap.Client, d pap.Draft) (pap.Draft, error) {
		d.Bundle, d.MaxStaleness, d.WhenStale = folder.bundle, f.maxStaleness, whenStale
		return d, nil
	})
}

// checkRelease refuses what would do nothing beside --release: it was all signed
// before.
func (f *pushFlags) checkRelease(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return policy.Errorf(policy.BadRequest, "--release takes what was signed from a file, and no folder; leave %s away", args[0])
	}
	for _, flag := range []string{"sign-only", "out", "key", "author", "source", "namespace", "guardrail", "max-staleness", "when-stale"} {
		if cmd.Flags().Changed(flag) {
			return policy.Errorf(policy.BadRequest, "--release releases what was signed, as it was signed; leave --%s away", flag)
		}
	}
	return nil
}

// releaseFile releases what was signed in steps.
func (f *pushFlags) releaseFile(cmd *cobra.Command, w world) error {
	if err := f.check(); err != nil {
		return err
	}
	sealed, err := readSealed(f.signed)
	if err != nil {
		return err
	}
	return f.online(cmd.Context(), func(ctx context.Context, c *pap.Client) error {
		result, err := c.Release(ctx, sealed, bundles.Limits{})
		if err != nil {
			return err
		}
		return f.print(w, result)
	})
}
