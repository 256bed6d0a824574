package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/dial"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
)

// clientFlags are those of every command that talks to a PDP. Each has an
// environment variable, which the flag overrides.
type clientFlags struct {
	dial    dial.Config
	timeout time.Duration
}

func (f *clientFlags) add(cmd *cobra.Command, w world) {
	fs := cmd.Flags()
	fs.StringVar(&f.dial.Server, "server", orDefault(w.getenv("MICROWALL_SERVER"), defaultGRPC), "address of the PDP (MICROWALL_SERVER)")
	fs.StringVar(&f.dial.CA, "ca", w.getenv("MICROWALL_CA"), "CA certificates that the PDP's certificate is checked with (MICROWALL_CA)")
	fs.StringVar(&f.dial.Cert, "cert", w.getenv("MICROWALL_CERT"), "client certificate (MICROWALL_CERT)")
	fs.StringVar(&f.dial.CertKey, "cert-key", w.getenv("MICROWALL_CERT_KEY"), "key of the client certificate (MICROWALL_CERT_KEY)")
	fs.BoolVar(&f.dial.Plaintext, "plaintext", w.getenv("MICROWALL_PLAINTEXT") == "true", "speak to a PDP beyond this machine without TLS, in a mesh that encrypts (MICROWALL_PLAINTEXT=true)")
	fs.DurationVar(&f.timeout, "timeout", time.Minute, "time for the whole command")
}

func (f *clientFlags) connect() (*grpc.ClientConn, error) { return dial.Dial(f.dial) }

// talk connects, and lets do talk to the PDP, within the command's time.
func (f *clientFlags) talk(ctx context.Context, do func(context.Context, *grpc.ClientConn) error) error {
	conn, err := f.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	return do(ctx, conn)
}

// named reports whether a server was named.
func (f *clientFlags) named(cmd *cobra.Command, w world) bool {
	return cmd.Flags().Changed("server") || w.getenv("MICROWALL_SERVER") != ""
}

// trustFlag is where an author's or a client's trust file is.
func trustFlag(cmd *cobra.Command, w world, to *string) {
	path := orDefault(w.getenv("MICROWALL_TRUST"), filepath.Join(defaultDataDir, live.TrustFile))
	cmd.Flags().StringVar(to, "trust", path, "trust file (MICROWALL_TRUST)")
}

// completeValues and completeFolders tell the shell what a flag may be.
func completeValues(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
}

func completeFolders(cmd *cobra.Command, flags ...string) {
	for _, flag := range flags {
		_ = cmd.MarkFlagDirname(flag) // fails only for a flag that is not there
	}
}

// one wants one argument, and says how the command is written if it is not that.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		usage := cmd.Parent().CommandPath() + " " + cmd.Use
		switch len(args) {
		case 0:
			return policy.Errorf(policy.BadRequest, "name the %s: %s", what, usage)
		case 1:
			return nil
		}
		return policy.Errorf(policy.BadRequest, "name one %s, not %d: %s", what, len(args), usage)
	}
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// releaseFlags are those of every command that makes a release.
type releaseFlags struct {
	clientFlags
	output
	keyFlag
	trust          string
	author, source string
	signOnly       bool
	out            string
}

func (f *releaseFlags) add(cmd *cobra.Command, w world) {
	f.clientFlags.add(cmd, w)
	f.flag(cmd, formatJSON)
	trustFlag(cmd, w, &f.trust)
	fs := cmd.Flags()
	f.keyFlag.add(fs)
	fs.StringVar(&f.author, "author", "", "who releases (default: the user of this machine)")
	fs.StringVar(&f.source, "source", "", "where this comes from, for instance a git commit")
	fs.BoolVar(&f.signOnly, "sign-only", false, "sign, and release nothing: others have to sign, too (microwall cosign)")
	fs.StringVarP(&f.out, "out", "o", "", "with --sign-only: new file for the signed release and its bundle")
}

// keyFlag says where the private key is.
type keyFlag struct{ key string }

func (f *keyFlag) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.key, "key", "", "file of the private key, or - for stdin (default: the key itself in MICROWALL_KEY)")
}

// given reports whether there is a key to sign with.
func (f *keyFlag) given(w world) bool { return f.key != "" || w.getenv("MICROWALL_KEY") != "" }

// signer returns the key to sign with.
func (f *keyFlag) signer(w world) (note.Signer, error) {
	switch {
	case f.key == "-":
		raw, err := io.ReadAll(io.LimitReader(w.stdin, 4096))
		if err != nil {
			return nil, fmt.Errorf("read the key from stdin: %w", err)
		}
		return parseSigner("--key -", string(raw))
	case f.key != "":
		return bundles.LoadSigner(f.key)
	case w.getenv("MICROWALL_KEY") != "":
		return parseSigner("MICROWALL_KEY", w.getenv("MICROWALL_KEY"))
	}
	return nil, policy.Errorf(policy.BadRequest, "no key to sign with: pass --key FILE, or put the key into MICROWALL_KEY; `microwall keygen NAME` makes one")
}

// parseSigner parses a key that came from where from says.
func parseSigner(from, text string) (note.Signer, error) {
	signer, err := bundles.ParseSigner(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return signer, nil
}

// draft returns what is the same in every release of this command.
func (f *releaseFlags) draft(w world, n policy.Namespace) (pap.Draft, error) {
	signer, err := f.signer(w)
	if err != nil {
		return pap.Draft{}, err
	}
	author := f.author
	if author == "" {
		if u, err := user.Current(); err == nil {
			author = u.Username
		}
	}
	return pap.Draft{Namespace: n, Signers: []note.Signer{signer}, Created: time.Now(), Author: author, Source: f.source}, nil
}

// online connects, follows what was pushed of the trust file, and lets do talk to
// the PDP.
func (f *releaseFlags) online(ctx context.Context, do func(context.Context, *pap.Client) error) error {
	trust, err := bundles.LoadTrust(f.trust)
	if err != nil {
		return err
	}
	return f.talk(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		newest, _, err := pap.FollowTrust(ctx, conn, f.dial.Server, trust)
		if err != nil {
			return err
		}
		return do(ctx, pap.New(conn, f.dial.Server, newest))
	})
}

// release completes a draft, releases or only signs it, and prints what came of
// it.
func (f *releaseFlags) release(ctx context.Context, w world, n policy.Namespace, complete func(context.Context, *pap.Client, pap.Draft) (pap.Draft, error)) error {
	if f.signOnly != (f.out != "") {
		return policy.Errorf(policy.BadRequest, "--sign-only and -o FILE go together: what is signed and not released goes to a file")
	}
	d, err := f.draft(w, n)
	if err != nil {
		return err
	}
	return f.online(ctx, func(ctx context.Context, c *pap.Client) error {
		if d, err = complete(ctx, c, d); err != nil {
			return err
		}
		if f.signOnly {
			return f.signTo(ctx, w, c, d)
		}
		result, err := c.Push(ctx, d)
		if err != nil {
			return err
		}
		return f.print(w, result)
	})
}

// signTo writes a signed release and its bundle to a file.
func (f *releaseFlags) signTo(ctx context.Context, w world, c *pap.Client, d pap.Draft) error {
	head, p, sealed, err := c.Sign(ctx, d)
	if err != nil {
		return err
	}
	if p == nil {
		return f.print(w, pap.Result{Release: head, Unchanged: true})
	}
	if err := writeNew(f.out, sealed.Append(nil)); err != nil {
		return err
	}
	return proposalOf(f.out, p).print(w, f.output)
}

// released is what is printed of a release.
type released struct {
	Namespace policy.Namespace `json:"namespace"`
	Epoch     uint64           `json:"epoch"`
	Revision  uint64           `json:"revision"`
	Digest    policy.Digest    `json:"digest"`
	Bundle    policy.Digest    `json:"bundle"`
	Unchanged bool             `json:"unchanged"`
	Token     policy.Token     `json:"token"`
	Warnings  []string         `json:"warnings,omitempty"`
}

func (f *releaseFlags) print(w world, result pap.Result) error {
	r := result.Release.Release()
	if f.format == formatJSON {
		return writeJSON(w.stdout, released{r.Namespace, r.Epoch, r.Revision, result.Release.Digest(), r.Bundle, result.Unchanged, result.Release.Version().Token(), result.Warnings})
	}
	verb := "released"
	switch {
	case result.Unchanged:
		verb = "unchanged at"
	case r.Retired():
		verb = "retired by"
	}
	_, err := fmt.Fprintf(w.stdout, "%s: %s revision %d (epoch %d)\nrelease %s\nbundle  %s\ntoken   %s\n", r.Namespace, verb, r.Revision, r.Epoch, result.Release.Digest(), r.Bundle, result.Release.Version().Token())
	for _, text := range result.Warnings {
		// Not among what a script reads of the release.
		_, warnErr := fmt.Fprintf(w.stderr, "microwall: warning: %s\n", visible(text))
		err = errors.Join(err, warnErr)
	}
	return err
}
