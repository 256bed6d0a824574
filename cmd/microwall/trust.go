package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
)

func newTrust(w world) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "trust",
		GroupID: groupTrust,
		Short:   "Sign a trust file and push it to every process",
		Long: `Sign a trust file and push it to every process.

A trust file that lists roots can be followed by the next version without being
put into place everywhere: it is signed by as many of the roots as the one before
asks for, and as it asks for itself, and pushed. Every PDP and every client has
it within a second. The file on their disks is only where they begin.`,
		Example: `  microwall check-trust trust.yaml new.yaml --server 127.0.0.1:7070
  microwall trust sign new.yaml --trust trust.yaml --key ann.key -o new.note
  microwall cosign new.note --trust trust.yaml --key bob.key
  microwall trust push new.note`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTrustSign(w), newTrustPush(w), newTrustPull(w))
	return cmd
}

func newTrustSign(w world) *cobra.Command {
	var out output
	var keys []string
	var file, trustFile string
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a trust file with the key of a root",
		Long: `Sign a trust file with the keys of roots, of the version before or of its own, and
write it to a new file with its signatures. Others add theirs with cosign. FILE is the
version after --trust, or that very file, if it is in place already.`,
		Example: "  microwall trust sign new.yaml --trust trust.yaml --key ann.key -o new.note",
		Args:    one("trust file"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if file == "" {
				return policy.Errorf(policy.BadRequest, "-o is missing; name a file for the signed trust file")
			}
			if len(keys) == 0 {
				return policy.Errorf(policy.BadRequest, "no key to sign with: pass --key FILE with the key of a root; more than once, if you have several")
			}
			before, err := bundles.LoadTrust(trustFile)
			if err != nil {
				return err
			}
			signed, seen, err := signTrust(before, args[0], file, keys)
			if err != nil {
				return err
			}
			if err := writeNew(file, signed); err != nil {
				return err
			}
			return seen.print(w, out)
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "file of a root's private key; may be repeated")
	cmd.Flags().StringVarP(&file, "out", "o", "", "new file for the signed trust file")
	trustFlag(cmd, w, &trustFile)
	out.flag(cmd, formatJSON)
	return cmd
}

// signTrust signs the trust file at path with keys, all of which must count.
func signTrust(before *bundles.Trust, path, file string, keys []string) ([]byte, trustProposal, error) {
	trust, err := bundles.LoadTrust(path)
	if err != nil {
		return nil, trustProposal{}, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, trustProposal{}, policy.Errorf(policy.BadRequest, "cannot read the trust file: %w", err)
	}
	if policy.DigestOf(content) != trust.Digest() {
		return nil, trustProposal{}, policy.Errorf(policy.Conflict, "%s has just changed; sign it again", path)
	}
	var signers []note.Signer
	for _, key := range keys {
		signer, err := bundles.LoadSigner(key)
		if err != nil {
			return nil, trustProposal{}, err
		}
		signers = append(signers, signer)
	}
	signed, err := bundles.SignTrust(content, signers...)
	if err != nil {
		return nil, trustProposal{}, err
	}
	if trust.Digest() == before.Digest() {
		seen := trustProposal{File: file, Version: trust.Version(), Epoch: trust.Epoch(), Digest: trust.Digest(), Whole: trust.Confirm(signed) == nil}
		for _, s := range signers {
			seen.Signers = append(seen.Signers, s.Name())
		}
		seen.Note = "--trust is this very file: the roots of the version before must sign it as well, or nobody can follow it from there"
		if err := trust.Confirm(signed); err != nil {
			seen.Note += "; " + err.Error()
		}
		return signed, seen, nil
	}
	p, err := before.ProposeNext(signed)
	if err != nil {
		return nil, trustProposal{}, err
	}
	for _, s := range signers {
		if !slices.Contains(p.Signers(), s.Name()) {
			return nil, trustProposal{}, policy.Errorf(policy.Denied, "key %s is no root of version %d, nor of the file itself; sign without it", s.Name(), before.Version())
		}
	}
	return signed, trustProposalOf(file, p), nil
}

func newTrustPush(w world) *cobra.Command {
	var f clientFlags
	var out output
	var trustFile string
	cmd := &cobra.Command{
		Use:   "push NOTE",
		Short: "Push a signed trust file: every PDP and every client takes it over",
		Long: `Push a trust file that enough roots have signed. It is verified here and by the
PDP, stored once and for all, and in force everywhere within a second: releases
that it does not open stop deciding. microwall check-trust says beforehand which
those are.`,
		Example: "  microwall trust push new.note --trust trust.yaml",
		Args:    one("signed trust file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			signed, err := readSigned(args[0])
			if err != nil {
				return err
			}
			before, err := bundles.LoadTrust(trustFile)
			if err != nil {
				return err
			}
			return f.talk(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				newest, _, err := pap.FollowTrust(ctx, conn, f.dial.Server, before)
				if err != nil {
					return err
				}
				version, err := pap.New(conn, f.dial.Server, newest).PushTrust(ctx, signed)
				if err != nil {
					return err
				}
				return printTrust(w, out, "in force", version, signed)
			})
		},
	}
	f.add(cmd, w)
	out.flag(cmd, formatJSON)
	trustFlag(cmd, w, &trustFile)
	return cmd
}

func newTrustPull(w world) *cobra.Command {
	var f clientFlags
	var out output
	var trustFile, file string
	cmd := &cobra.Command{
		Use:   "pull",
		Short: "Fetch the newest trust file that was pushed, verified from the one that you have",
		Long: `Fetch the trust files that were pushed, version by version from --trust on, verify
each by the one before it, and write the newest one. A server can hold new ones
back, and nothing else. Where a version was put into place by hand and never
pushed, there is no way past it: those who have an older one get it by hand.`,
		Example: "  microwall trust pull -o .microwall/trust.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if file == "" {
				return policy.Errorf(policy.BadRequest, "-o is missing; name a file for the trust file")
			}
			before, err := bundles.LoadTrust(trustFile)
			if err != nil {
				return err
			}
			return f.talk(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				newest, content, err := pap.PullTrust(ctx, conn, f.dial.Server, before)
				if err != nil {
					return err
				}
				if content == nil {
					if content, err = os.ReadFile(trustFile); err != nil {
						return policy.Errorf(policy.BadRequest, "cannot read the trust file: %w", err)
					}
				}
				if err := writeFile(file, content); err != nil {
					return err
				}
				return printVersion(w, out, "newest", newest.Version(), newest.Digest())
			})
		},
	}
	f.add(cmd, w)
	out.flag(cmd, formatJSON)
	trustFlag(cmd, w, &trustFile)
	cmd.Flags().StringVarP(&file, "out", "o", "", "file for the trust file; it may be the one of --trust")
	return cmd
}

func printTrust(w world, out output, what string, version uint64, signed []byte) error {
	file, err := bundles.TrustFile(signed)
	if err != nil {
		return err
	}
	return printVersion(w, out, what, version, policy.DigestOf(file))
}

func printVersion(w world, out output, what string, version uint64, digest policy.Digest) error {
	if out.format == formatJSON {
		return writeJSON(w.stdout, struct {
			Version uint64        `json:"version"`
			Digest  policy.Digest `json:"digest"`
		}{version, digest})
	}
	_, err := fmt.Fprintf(w.stdout, "trust file: version %d is %s\ndigest %s\n", version, what, digest)
	return err
}
