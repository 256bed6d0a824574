package jetstream

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/microwall/microwall/policy"
)

// Credentials are the name of a principal and the key by which the broker knows
// it. The zero value is nobody's. They do not print their key.
type Credentials struct {
	principal string
	public    string
	pair      nkeys.KeyPair
}

// NewCredentials makes a key for a principal.
func NewCredentials(principal string) (Credentials, error) {
	if err := checkPrincipal(principal); err != nil {
		return Credentials{}, err
	}
	pair, err := nkeys.CreateUser()
	if err != nil {
		return Credentials{}, policy.Errorf(policy.Internal, "cannot make a key: %w", err)
	}
	return newCredentials(principal, pair)
}

func newCredentials(principal string, pair nkeys.KeyPair) (Credentials, error) {
	public, err := pair.PublicKey()
	if err != nil {
		return Credentials{}, policy.Errorf(policy.BadRequest, "the key of %s has no public half: %w", principal, err)
	}
	return Credentials{principal: principal, public: public, pair: pair}, nil
}

// Principal is whose they are: the name in the subjects that are its own. It is
// "anonymous" for who shows none.
func (c Credentials) Principal() string {
	if c.pair == nil {
		return anonymousName
	}
	return c.principal
}

// Key is the public half of the key, which the broker is told.
func (c Credentials) Key() string { return c.public }

// String names the principal and the public half of its key.
func (c Credentials) String() string { return c.principal + " " + c.public }

// GoString is String: a key is not to be printed, however it is asked for.
func (c Credentials) GoString() string { return c.String() }

// Options make a connection use them. [Connect] does so by itself.
func (c Credentials) Options() []nats.Option {
	if c.pair == nil {
		return nil
	}
	return []nats.Option{nats.Nkey(c.public, c.pair.Sign), nats.CustomInboxPrefix(InboxPrefix(c.principal))}
}

// firstLine of the file, before the name of the principal, is a comment
// to NATS' own tools, which read the seed below it.
const firstLine = "# NATS credentials of microwall principal "

// maxCredentials is how large a file of credentials may be, in bytes.
const maxCredentials = 1024

// ParseCredentials reads what [Credentials.Write] has written.
func ParseCredentials(file []byte) (Credentials, error) {
	malformed := func(what string) error {
		return policy.Errorf(policy.BadRequest, "these are no credentials: %s; `microwall nats-config` makes them", what)
	}
	first, rest, _ := strings.Cut(string(file), "\n")
	principal, ok := strings.CutPrefix(first, firstLine)
	if !ok {
		return Credentials{}, malformed("the first line names no principal")
	}
	if err := checkPrincipal(principal); err != nil {
		return Credentials{}, err
	}
	seed, rest, _ := strings.Cut(rest, "\n")
	if rest != "" {
		return Credentials{}, malformed("there are more than two lines")
	}
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return Credentials{}, malformed("the second line is no seed of a key")
	}
	if !strings.HasPrefix(seed, "SU") {
		return Credentials{}, malformed("the key is not that of a user")
	}
	return newCredentials(principal, pair)
}

// LoadCredentials reads a file of credentials. One that others than its owner
// may read is refused.
func LoadCredentials(path string) (Credentials, error) {
	f, err := os.Open(path)
	if err != nil {
		return Credentials{}, policy.Errorf(policy.BadRequest, "cannot open the NATS credentials: %w; `microwall nats-config` makes them", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return Credentials{}, policy.Errorf(policy.Internal, "cannot read the NATS credentials: %w", err)
	case !info.Mode().IsRegular():
		return Credentials{}, policy.Errorf(policy.BadRequest, "%s is no regular file; name the NATS credentials", path)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return Credentials{}, policy.Errorf(policy.BadRequest, "the NATS credentials in %s can be used by others (permissions are %04o); say: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxCredentials+1))
	if err != nil {
		return Credentials{}, policy.Errorf(policy.Internal, "cannot read the NATS credentials: %w", err)
	}
	if len(raw) > maxCredentials {
		return Credentials{}, policy.Errorf(policy.BadRequest, "%s is larger than %d bytes, and no NATS credentials", path, maxCredentials)
	}
	c, err := ParseCredentials(raw)
	if err != nil {
		return Credentials{}, policy.Errorf(policy.KindOf(err), "%s: %w", path, err)
	}
	return c, nil
}

// Write writes them to a new file that only its owner may read. A file that
// exists is never touched.
func (c Credentials) Write(path string) error {
	if c.pair == nil {
		return policy.Errorf(policy.BadRequest, "nobody's credentials cannot be written")
	}
	seed, err := c.pair.Seed()
	if err != nil {
		return policy.Errorf(policy.Internal, "the key of %s has no private half: %w", c.principal, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return policy.Errorf(policy.BadRequest, "%s exists and is left as it is; choose another name for the credentials: %w", path, err)
	}
	if err != nil {
		return policy.Errorf(policy.BadRequest, "cannot write the credentials: %w", err)
	}
	_, err = f.Write(bytes.Join([][]byte{[]byte(firstLine + c.principal), seed, nil}, []byte("\n")))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return policy.Errorf(policy.Internal, "cannot write the credentials: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// checkKey refuses what is no public key of a user.
func checkKey(principal, key string) error {
	if !nkeys.IsValidPublicUserKey(key) {
		return policy.Errorf(policy.BadRequest, "the key of %s is %.100q, which is no public NKey of a user; it has 56 letters and digits, and begins with U", principal, key)
	}
	return nil
}
