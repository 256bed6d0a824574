package bundles

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/policy"
)

const (
	maxKeyName = 100
	maxKeyFile = 4 << 10
)

// checkKeyName bounds the names of keys to what needs no quotes in a note, in
// YAML and in a shell.
func checkKeyName(name string) error {
	ok := name != "" && len(name) <= maxKeyName && strings.IndexFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._/@", c)
	}) < 0 && name[0] != '-' && name[0] != '@'
	if !ok {
		return policy.Errorf(policy.BadRequest, "key name %.200q must be 1 to %d of A-Z a-z 0-9 - . _ / @, and begin with neither - nor @; for instance \"cart-ci\"", name, maxKeyName)
	}
	return nil
}

// GenerateKey makes an Ed25519 key pair in the form of
// golang.org/x/mod/sumdb/note. The public one is what trust.yaml lists under
// name; the private one must be kept secret, see [WriteKey].
func GenerateKey(name string) (private, public string, err error) {
	if err := checkKeyName(name); err != nil {
		return "", "", err
	}
	private, public, err = note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", "", policy.Errorf(policy.Internal, "cannot generate a key: %w", err)
	}
	return private, public, nil
}

// ParseSigner reads a private key as [GenerateKey] made it, with or without a
// line end after it. No error shows any of it.
func ParseSigner(private string) (note.Signer, error) {
	private = strings.TrimSuffix(strings.TrimSuffix(private, "\n"), "\r")
	if strings.ContainsFunc(private, func(r rune) bool { return r <= ' ' }) {
		return nil, policy.Errorf(policy.BadRequest, "a private key is one line that begins with PRIVATE+KEY+; make one with \"microwall keygen\"")
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		if strings.Count(private, "+") >= 2 && !strings.HasPrefix(private, "PRIVATE+KEY+") {
			return nil, policy.Errorf(policy.BadRequest, "this is not a private key; it may be the public one that stands in trust.yaml")
		}
		return nil, policy.Errorf(policy.BadRequest, "the private key is damaged or of an unknown kind; make one with \"microwall keygen\"")
	}
	if err := checkKeyName(signer.Name()); err != nil {
		return nil, err
	}
	return signer, nil
}

// LoadSigner reads a private key from a file. A file that anyone but its owner
// may read or write is refused, where the system has such permissions.
func LoadSigner(path string) (note.Signer, error) {
	content, err := readGuarded(path, maxKeyFile, 0o077)
	var wide *permissionError
	switch {
	case errors.As(err, &wide):
		return nil, policy.Errorf(policy.Denied, "private key %s has permissions %04o, so others can use it; run \"chmod 600 %s\", or make a new key if they already may have", path, wide.mode, path)
	case errors.Is(err, fs.ErrNotExist):
		return nil, policy.Errorf(policy.BadRequest, "private key %s does not exist; make one with \"microwall keygen\": %w", path, err)
	case err != nil:
		return nil, err
	}
	signer, err := ParseSigner(string(content))
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "%s: %w", path, err)
	}
	return signer, nil
}

// WriteKey writes a private key to a new file that only its owner may read. A
// file that exists is never touched.
func WriteKey(path, private string) (err error) {
	if _, err := ParseSigner(private); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return policy.Errorf(policy.BadRequest, "%s exists and is left as it is; choose another name for the key: %w", path, err)
	}
	if err != nil {
		return policy.Errorf(policy.BadRequest, "cannot write the private key: %w", err)
	}
	_, err = f.WriteString(strings.TrimSpace(private) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return policy.Errorf(policy.Internal, "cannot write the private key: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// publicKey is a key that trust.yaml lists.
type publicKey struct {
	verifier note.Verifier
	// public identifies the key, whatever its name.
	public string
}

// parsePublic reads a verifier in its one spelling.
func parsePublic(s string) (publicKey, error) {
	if strings.HasPrefix(s, "PRIVATE+KEY+") {
		return publicKey{}, policy.Errorf(policy.BadRequest, "this is a private key; take it out, make a new one, and list its public half")
	}
	verifier, err := note.NewVerifier(s)
	if err != nil {
		return publicKey{}, policy.Errorf(policy.BadRequest, "%.200q is not a public key as \"microwall keygen\" prints it: %w", s, err)
	}
	if err := checkKeyName(verifier.Name()); err != nil {
		return publicKey{}, err
	}
	public, err := base64.StdEncoding.DecodeString(s[len(verifier.Name())+len("+01234567+"):])
	key := publicKey{verifier, string(public)}
	if err != nil || s != key.String() {
		return publicKey{}, policy.Errorf(policy.BadRequest, "%.200q is not a public key as \"microwall keygen\" prints it: copy it again", s)
	}
	return key, nil
}

// String returns the one spelling of the key.
func (k publicKey) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.verifier.Name(), k.verifier.KeyHash(), base64.StdEncoding.EncodeToString([]byte(k.public)))
}

// permissionError is a file that more people may use than should.
type permissionError struct{ mode fs.FileMode }

func (e *permissionError) Error() string { return fmt.Sprintf("permissions are %04o", e.mode) }

// readGuarded reads a regular file of at most most bytes that has none of the
// permissions in mask. Windows has no such permissions to look at. What is
// looked at is the file that is then read.
func readGuarded(path string, most int64, mask fs.FileMode) ([]byte, error) {
	// Opening a pipe would wait for its other end.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, policy.Errorf(policy.BadRequest, "%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "cannot open: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, policy.Errorf(policy.Internal, "cannot read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, policy.Errorf(policy.BadRequest, "%s is no regular file", path)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&mask != 0 {
		return nil, &permissionError{mode}
	}
	var content bytes.Buffer
	if _, err := io.Copy(&content, io.LimitReader(f, most+1)); err != nil {
		return nil, policy.Errorf(policy.Internal, "cannot read %s: %w", path, err)
	}
	if int64(content.Len()) > most {
		return nil, policy.Errorf(policy.Exhausted, "%s is larger than %d bytes", path, most)
	}
	return content.Bytes(), nil
}
