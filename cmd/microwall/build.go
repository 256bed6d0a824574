package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// builtBundle is what build says of a bundle.
type builtBundle struct {
	File      string           `json:"file"`
	Namespace policy.Namespace `json:"namespace,omitempty"`
	Digest    policy.Digest    `json:"digest"`
	Size      int              `json:"size"`
	Packed    int              `json:"packed"`
}

func newBuild(w world) *cobra.Command {
	var out output
	var file string
	cmd := &cobra.Command{
		Use:     "build DIR -o FILE",
		GroupID: groupAuthor,
		Short:   "Build a policy's bundle, reproducibly",
		Long: `Build the bundle of a policy that compiles: an OPA bundle (tar, gzip) that is the
same, byte for byte, for the same content, whatever the times, the order and the
owners of the files. Its digest is that of the tar, which push signs.

FILE is replaced in one step, or not at all. - is standard output.`,
		Example: `  microwall build policies/cart -o cart.tar.gz
  microwall build policies/cart -o - | sha256sum`,
		Args:              one("folder"),
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if file == "" {
				return policy.Errorf(policy.BadRequest, "say where the bundle goes: -o FILE, or -o - for standard output")
			}
			// What is said of a bundle on standard output must not be in it.
			said := w.stdout
			if file == "-" {
				said = w.stderr
			}
			f, err := openPolicy(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if len(f.problems) > 0 {
				if err := f.print(said, out); err != nil {
					return err
				}
				return errNo
			}
			return build(w, f.bundle, file, said, out)
		},
	}
	cmd.Flags().StringVarP(&file, "out", "o", "", "file for the bundle; - is standard output")
	out.flag(cmd, formatJSON)
	return cmd
}

func build(w world, b *bundles.Bundle, file string, said io.Writer, out output) error {
	packed := bundles.Pack(b.Tar())
	if most := (bundles.Limits{}).WithDefaults().Packed; int64(len(packed)) > most {
		return policy.Errorf(policy.Exhausted, "the bundle is %d bytes packed, the limit is %d; move data that no policy reads out of it", len(packed), most)
	}
	var err error
	if file == "-" {
		_, err = w.stdout.Write(packed)
	} else {
		err = writeFile(file, packed)
	}
	if err != nil {
		return err
	}
	built := builtBundle{File: file, Namespace: b.Namespace(), Digest: b.Digest(), Size: len(b.Tar()), Packed: len(packed)}
	if out.format == formatJSON {
		return writeJSON(said, built)
	}
	_, err = fmt.Fprintf(said, "%s\nnamespace %s\ndigest    %s\nsize      %d bytes, %d packed\n", built.File, orDash(string(built.Namespace)), built.Digest, built.Size, built.Packed)
	return err
}

// writeFile writes a file in one step: whoever reads it, at any time, reads the
// old content or the new one, whole. What is no regular file is left alone.
func writeFile(path string, content []byte) (err error) {
	switch info, err := os.Lstat(path); {
	case err == nil && !info.Mode().IsRegular():
		return policy.Errorf(policy.BadRequest, "%s is no regular file; name another one, or - for standard output", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return policy.Errorf(policy.BadRequest, "cannot write the file: %w", err)
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // G302: what is written here is no secret
	if err != nil {
		return policy.Errorf(policy.BadRequest, "cannot write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = policy.Errorf(policy.Internal, "cannot write %s: %w", path, errors.Join(err, os.Remove(temp)))
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// writeNew writes a file that must not be there yet: what others have signed is
// not lost to whoever signs anew.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // G302: what is written here is no secret
	switch {
	case errors.Is(err, fs.ErrExist):
		return policy.Errorf(policy.BadRequest, "%s exists and is left as it is, as it may hold what others have signed; name a new file, or remove that one", path)
	case err != nil:
		return policy.Errorf(policy.BadRequest, "cannot write %s: %w", path, err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return policy.Errorf(policy.Internal, "cannot write %s: %w", path, errors.Join(err, os.Remove(path)))
	}
	return nil
}
