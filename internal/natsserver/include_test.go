package natsserver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/policy"
)

// Who may write a file that the settings include says who does everything on NATS.
func TestSettingsIncludeNoOtherFile(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"users.conf": "users: [{user: thief, password: one}]\n", "empty.conf": ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	absolute, err := filepath.Abs("users.conf")
	if err != nil {
		t.Fatal(err)
	}
	refused := []string{
		"include users.conf", "include 'users.conf'", "include \"users.conf\"", "include\tusers.conf", "  include   users.conf",
		"accounts {STORE { include users.conf }}", "accounts {STORE {jetstream: enabled, include users.conf\n}}",
		"accounts {STORE {jetstream: enabled; include users.conf}}", "accounts {S {users: [{ include users.conf }]}}",
		"max_connections: 5; include users.conf", "{include users.conf\n}",
		"include users.conf # include", "# include nothing\nmax_connections: 5\ninclude users.conf",
		"include\u00a0users.conf", "include\u2028users.conf", "include\vusers.conf", "include\u0085users.conf",
		"include empty.conf", "include nowhere.conf", "include " + absolute, "include ../" + filepath.Base(filepath.Dir(absolute)) + "/users.conf",
		"include x\u00a0/../users.conf", "include\u00a0/../users.conf",
		"an_include {include users.conf}", "an_include users.conf\ninclude users.conf",
	}
	// The word in every spelling that there is.
	for at, letter := range "include" {
		for r := rune(1); r <= unicode.MaxRune; r++ {
			if r != letter && unicode.ToLower(r) == letter {
				refused = append(refused, fmt.Sprintf("%s%c%s users.conf", "include"[:at], r, "include"[at+1:]))
			}
		}
	}
	refused = append(refused, "INCLUDE users.conf", "accounts {STORE {InClUdE users.conf}}")
	for _, settings := range refused {
		s, err := natsserver.Start(t.Context(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: t.TempDir(), Settings: []byte(settings)})
		if err == nil {
			s.Shutdown()
		}
		if policy.KindOf(err) != policy.BadRequest || err == nil {
			t.Errorf("%q: %v", settings, err)
		}
		if files := natsserver.Files([]byte("tls {cert_file: a}\n" + settings)); len(files) > 0 {
			t.Errorf("%q: names %q", settings, files)
		}
	}
	_, err = natsserver.Start(t.Context(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: t.TempDir(), Settings: []byte("# include this\n\naccounts {STORE {\n INCLUDE users.conf}}")})
	if err == nil || !strings.Contains(err.Error(), "line 4 of the settings of the NATS server includes another file") {
		t.Error(err)
	}
}

// What only looks like it is a comment, a text or a name.
func TestSettingsMaySpeakOfIncluding(t *testing.T) {
	for _, settings := range []string{
		"# include users.conf\n" + users,
		"// INCLUDE users.conf\n" + users,
		"accounts {\"include\" {users: [{user: \"include me\", password: 'please include \"this\"'}]}}",
		"accounts {S {users: [ # include them all\n {user: a, password: b}]}}",
	} {
		start(t, natsserver.Config{StoreDir: t.TempDir(), Settings: []byte(settings)})
	}
}
