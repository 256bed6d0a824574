package natsserver_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/policy"
)

func TestOtherSettingsCutOffOnlyThoseWhoAreNotKnownAnyMore(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, "first")
	secure := fmt.Sprintf("tls {cert_file: %q, key_file: %q}\n", cert, key)
	with := func(clients string) []byte {
		return []byte(secure + `
accounts {
  STORE {jetstream: enabled, users: [{user: pdp, password: one}], exports: [{service: "$JS.API.DIRECT.GET.S.s", accounts: [shop]}]}
  shop  {users: [` + clients + `], imports: [{service: {account: STORE, subject: "$JS.API.DIRECT.GET.S.s"}}]}
}`)
	}
	first := with("{user: client, password: two}, {user: thief, password: three}")
	if got := natsserver.Files(first); !slices.Equal(got, []string{cert, key}) {
		t.Errorf("the settings name %v", got)
	}
	s := start(t, natsserver.Config{StoreDir: t.TempDir(), Settings: first})
	type user struct {
		*nats.Conn
		gone chan struct{}
	}
	as := func(name, password string) (user, error) {
		u := user{gone: make(chan struct{}, 10)}
		var err error
		u.Conn, err = nats.Connect(s.URL(), nats.UserInfo(name, password), nats.RootCAs(ca.File), nats.DisconnectErrHandler(func(*nats.Conn, error) { u.gone <- struct{}{} }))
		if err == nil {
			t.Cleanup(u.Close)
		}
		return u, err
	}
	must := func(u user, err error) user {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	pdp, client, thief := must(as("pdp", "one")), must(as("client", "two")), must(as("thief", "three"))
	js, err := jetstream.New(pdp.Conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	reads := func(u user) {
		t.Helper()
		if m, err := u.Request("$JS.API.DIRECT.GET.S.s", nil, time.Minute); err != nil || string(m.Data) != "kept" {
			t.Errorf("reads %v, %v", m, err)
		}
	}
	reads(client)
	reads(thief)

	ca.Renew(t, "second", cert, key)
	if err := s.Reload(with("{user: client, password: two}, {user: new, password: four}")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-thief.gone:
	case <-time.After(time.Minute):
		t.Fatal("who was taken out stayed connected")
	}
	if _, err := as("thief", "three"); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("who was taken out comes in: %v", err)
	}
	reads(client)
	reads(must(as("new", "four")))
	if _, err := js.Publish(t.Context(), "s", []byte("kept")); err != nil {
		t.Error(err)
	}
	if len(client.gone)+len(pdp.gone) > 0 {
		t.Error("who is still known was disconnected")
	}
	fresh := must(as("client", "two"))
	state, err := fresh.TLSConnectionState()
	if err != nil {
		t.Fatal(err)
	}
	if name := commonName(state.PeerCertificates); name != "second" {
		t.Errorf("the certificate is of %q", name)
	}

	// What may not be started may not be reloaded either.
	for settings, says := range map[string]string{
		"accounts {":                    "cannot be used",
		secure + "http: 127.0.0.1:8222": "http",
		strings.ReplaceAll(string(first), cert, "nowhere"): "nowhere",
	} {
		if err := s.Reload([]byte(settings)); policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", settings, err)
		}
	}
	reads(must(as("new", "four")))
}

func commonName(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return ""
	}
	return chain[0].Subject.CommonName
}
