package jetstream_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

func TestCredentialsAreWrittenOnceForTheirOwnerOnly(t *testing.T) {
	made, err := jetstream.NewCredentials("cart-1")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cart-1.nkey")
	if err := made.Write(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("permissions are %v, %v", info.Mode(), err)
	}
	read, err := jetstream.LoadCredentials(path)
	if err != nil || read.Key() != made.Key() || read.Principal() != "cart-1" {
		t.Errorf("read %v, %v; wrote %v", read, err, made)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, made.Write(path), policy.BadRequest, "exists", "left as it is")
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file was changed: %v", err)
	}
	seed := strings.Split(string(before), "\n")[1]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if printed := fmt.Sprintf(verb, made); strings.Contains(printed, seed) || strings.Contains(printed, fmt.Sprintf("%x", seed)) {
			t.Errorf("%s prints the key: %s", verb, printed)
		}
	}
	wantKind(t, jetstream.Credentials{}.Write(filepath.Join(t.TempDir(), "none")), policy.BadRequest, "nobody")
}

func TestWhatIsNoCredentialsIsRefused(t *testing.T) {
	made, err := jetstream.NewCredentials("cart-1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := made.Write(good); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	header, seed, _ := strings.Cut(string(raw), "\n")
	seed = strings.TrimSpace(seed)
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		path string
		says []string
	}{
		{filepath.Join(dir, "nowhere"), []string{"nowhere", "nats-config"}},
		{dir, []string{"no regular file"}},
		{write("others", string(raw), 0o640), []string{"0640", "chmod 600"}},
		{write("empty", "", 0o600), []string{"names no principal"}},
		{write("seed only", seed+"\n", 0o600), []string{"names no principal"}},
		{write("no seed", header+"\n", 0o600), []string{"no seed"}},
		{write("public", header+"\n"+made.Key()+"\n", 0o600), []string{"no seed"}},
		{write("damaged", header+"\n"+seed[:20]+"\n", 0o600), []string{"no seed"}},
		{write("account", header+"\nSAAEXFSYMLINXLKR2TG5FLHCJHLU62B3SK3ESZLGP4B4XGLUNXICW3LGAY\n", 0o600), []string{"no seed", "user"}},
		{write("another name", strings.Replace(string(raw), "cart-1", "*", 1), 0o600), []string{"no name of a principal"}},
		{write("more", string(raw)+"more\n", 0o600), []string{"more than two lines"}},
		{write("large", string(raw)+strings.Repeat("\n", 2000), 0o600), []string{"larger than 1024"}},
	} {
		t.Run(filepath.Base(tt.path), func(t *testing.T) {
			c, err := jetstream.LoadCredentials(tt.path)
			if err == nil || policy.KindOf(err) != policy.BadRequest && policy.KindOf(err) != policy.Denied {
				t.Fatalf("%v, %v", c, err)
			}
			found := false
			for _, s := range tt.says {
				found = found || strings.Contains(err.Error(), s)
			}
			if !found || strings.Contains(err.Error(), seed) {
				t.Errorf("%q does not say %q, or tells the key", err, tt.says)
			}
		})
	}
}

func FuzzParseCredentials(f *testing.F) {
	made, err := jetstream.NewCredentials("cart-1")
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "c")
	if err := made.Write(path); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("# NATS credentials of microwall principal a\nSU"))
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := jetstream.ParseCredentials(file)
		if err != nil {
			return
		}
		// What is read is written as it was, but for the end of the last line.
		again := filepath.Join(t.TempDir(), "again")
		if err := c.Write(again); err != nil {
			t.Fatal(err)
		}
		written, err := os.ReadFile(again)
		if err != nil || strings.TrimSuffix(string(file), "\n") != strings.TrimSuffix(string(written), "\n") {
			t.Errorf("read %q, wrote %q, %v", file, written, err)
		}
	})
}
