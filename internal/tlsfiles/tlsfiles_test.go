package tlsfiles_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/microwall/microwall/internal/tlsfiles"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/policy"
)

// listen serves handshakes and then one byte to each client.
func listen(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			// One after the other: a test asks for one at a time. A client that is
			// refused makes the write fail.
			_, _ = tls.Server(conn, config).Write([]byte{1})
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

// connect returns what the server says of itself. In TLS 1.3 a client learns
// that it was refused from its first read.
func connect(t *testing.T, address string, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	config = config.Clone()
	config.ServerName = "127.0.0.1"
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return tls.ConnectionState{}, err
	}
	return conn.ConnectionState(), nil
}

func client(t *testing.T, c tlsfiles.ClientConfig) *tls.Config {
	t.Helper()
	config, err := tlsfiles.Client(c)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func server(t *testing.T, c tlsfiles.ServerConfig) *tls.Config {
	t.Helper()
	config, err := tlsfiles.Server(c)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestWhoComesIn(t *testing.T) {
	ours, theirs := tlstest.NewCA(t), tlstest.NewCA(t)
	cert, key := ours.Issue(t, "pdp")
	ourCert, ourKey := ours.Issue(t, "client")
	theirCert, theirKey := theirs.Issue(t, "stranger")
	anyone := tlsfiles.ServerConfig{Cert: cert, Key: key}
	ifGiven := tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: ours.File}
	required := tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: ours.File, RequireClient: true}
	for name, c := range map[string]struct {
		server   tlsfiles.ServerConfig
		client   tlsfiles.ClientConfig
		in       bool
		verified bool // the server knows the client
	}{
		"anyone is let in": {anyone, tlsfiles.ClientConfig{CA: ours.File}, true, false},
		"a certificate nobody asked for is not shown":   {anyone, tlsfiles.ClientConfig{CA: ours.File, Cert: theirCert, Key: theirKey}, true, false},
		"a server of another authority is not believed": {anyone, tlsfiles.ClientConfig{CA: theirs.File}, false, false},
		"nor by the system's authorities":               {anyone, tlsfiles.ClientConfig{}, false, false},
		"no certificate where it may be given":          {ifGiven, tlsfiles.ClientConfig{CA: ours.File}, true, false},
		"ours where it may be given":                    {ifGiven, tlsfiles.ClientConfig{CA: ours.File, Cert: ourCert, Key: ourKey}, true, true},
		"a stranger's where it may be given":            {ifGiven, tlsfiles.ClientConfig{CA: ours.File, Cert: theirCert, Key: theirKey}, false, false},
		"no certificate where it must be given":         {required, tlsfiles.ClientConfig{CA: ours.File}, false, false},
		"ours where it must be given":                   {required, tlsfiles.ClientConfig{CA: ours.File, Cert: ourCert, Key: ourKey}, true, true},
		"a stranger's where it must be given":           {required, tlsfiles.ClientConfig{CA: ours.File, Cert: theirCert, Key: theirKey}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			verified := false
			config := server(t, c.server)
			inner := config.GetConfigForClient
			config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				config, err := inner(hello)
				config = config.Clone()
				config.VerifyConnection = func(s tls.ConnectionState) error { verified = len(s.VerifiedChains) > 0; return nil }
				return config, err
			}
			show := client(t, c.client)
			if len(show.Certificates) > 0 { // shown even if its authority is not among those asked for
				own := show.Certificates[0]
				show.Certificates = nil
				show.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
			}
			_, err := connect(t, listen(t, config), show)
			if (err == nil) != c.in {
				t.Errorf("got in: %v, %v", err == nil, err)
			}
			if c.in && verified != c.verified {
				t.Errorf("the server knows the client: %v", verified)
			}
		})
	}
}

func TestNobodyComesInByAnOldProtocolOrATicket(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, "pdp")
	address := listen(t, server(t, tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: ca.File}))
	old := client(t, tlsfiles.ClientConfig{CA: ca.File})
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := connect(t, address, old); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		again := client(t, tlsfiles.ClientConfig{CA: ca.File})
		again.MaxVersion = version
		again.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		for range 3 {
			if state, err := connect(t, address, again); err != nil || state.DidResume || state.Version != version {
				t.Errorf("resumed: %v, version %x, %v", state.DidResume, state.Version, err)
			}
		}
	}
}

func TestAServerFollowsItsFilesAndKeepsTheLastGoodOnes(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	cert, key := ca.Issue(t, "first")
	clientCert, clientKey := ca.Issue(t, "client")
	var events []tlsfiles.Event // of handshakes, which come one after the other
	config := server(t, tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: ca.File, RequireClient: true, Events: func(e tlsfiles.Event) { events = append(events, e) }})
	address := listen(t, config)
	show := client(t, tlsfiles.ClientConfig{CA: ca.File, Cert: clientCert, Key: clientKey})
	ask := func(step, want string, told ...string) {
		t.Helper()
		events = nil
		for range 2 { // what is told is told once
			state, err := connect(t, address, show)
			switch {
			case want == "" && err == nil:
				t.Errorf("%s: got in", step)
			case want != "" && err != nil:
				t.Errorf("%s: %v", step, err)
			case want != "" && state.PeerCertificates[0].Subject.CommonName != want:
				t.Errorf("%s: the server is %q, want %q", step, state.PeerCertificates[0].Subject.CommonName, want)
			}
		}
		if len(events) != len(told) {
			t.Fatalf("%s: told %v, want %q", step, events, told)
		}
		for i, e := range events {
			said := "reread"
			if refused, ok := e.(tlsfiles.Refused); ok {
				said = refused.Err.Error()
				if policy.KindOf(refused.Err) != policy.BadRequest {
					t.Errorf("%s: kind %v", step, policy.KindOf(refused.Err))
				}
			}
			if !strings.Contains(said, told[i]) {
				t.Errorf("%s: told %q, want %q", step, said, told[i])
			}
		}
	}
	read := func(path string) []byte {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	ask("at first", "first")
	firstCert, firstKey := read(cert), read(key)
	ca.Renew(t, "second", cert, key)
	ask("renewed", "second", "reread")
	secondKey := read(key)
	tlstest.Replace(t, key, firstKey)
	ask("half of a pair", "second", "--tls-key")
	tlstest.Replace(t, cert, firstCert)
	ask("the other half", "first", "reread")
	tlstest.Replace(t, key, secondKey[:len(secondKey)/2])
	ask("a key that is cut off", "first", "--tls-key")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	ask("no key", "first", "--tls-key")
	tlstest.Replace(t, key, firstKey)
	ask("as it was", "first")
	authority := read(ca.File)
	tlstest.Replace(t, ca.File, nil)
	ask("no authorities", "first", "--client-ca")
	tlstest.Replace(t, ca.File, read(other.File))
	ask("other authorities", "", "reread")
	tlstest.Replace(t, ca.File, append(read(other.File), authority...))
	ask("both authorities", "first", "reread")
}

func TestFilesThatCannotBeUsedAreRefusedAtStart(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, "pdp")
	_, otherKey := ca.Issue(t, "other")
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing := filepath.Join(dir, "missing.pem")
	empty, junk := write("empty.pem", ""), write("junk.pem", "not PEM")
	damaged := write("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	raw, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	half := write("half.pem", string(raw)+"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for name, c := range map[string]struct {
		config tlsfiles.ServerConfig
		says   []string
	}{
		"nothing":                          {tlsfiles.ServerConfig{}, []string{"--tls-cert"}},
		"no key":                           {tlsfiles.ServerConfig{Cert: cert}, []string{"--tls-key", cert}},
		"no certificate":                   {tlsfiles.ServerConfig{Key: key}, []string{"--tls-cert"}},
		"client certificates without a CA": {tlsfiles.ServerConfig{Cert: cert, Key: key, RequireClient: true}, []string{"--client-ca"}},
		"a missing certificate":            {tlsfiles.ServerConfig{Cert: missing, Key: key}, []string{"--tls-cert", missing}},
		"a missing key":                    {tlsfiles.ServerConfig{Cert: cert, Key: missing}, []string{"--tls-key", missing}},
		"a directory":                      {tlsfiles.ServerConfig{Cert: cert, Key: dir}, []string{"--tls-key", dir}},
		"another key":                      {tlsfiles.ServerConfig{Cert: cert, Key: otherKey}, []string{"--tls-cert", "--tls-key", "match"}},
		"the two mixed up":                 {tlsfiles.ServerConfig{Cert: key, Key: cert}, []string{"--tls-cert", "--tls-key"}},
		"an empty certificate":             {tlsfiles.ServerConfig{Cert: empty, Key: key}, []string{"--tls-cert", empty}},
		"a missing CA":                     {tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: missing}, []string{"--client-ca", missing}},
		"an empty CA":                      {tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: empty}, []string{"--client-ca", "no certificate"}},
		"a CA that is not PEM":             {tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: junk}, []string{"--client-ca", "no certificate"}},
		"a damaged CA":                     {tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: damaged}, []string{"--client-ca", "damaged"}},
		"a CA of which half is damaged":    {tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: half}, []string{"--client-ca", "certificate 2", "damaged"}},
		"a key for a CA":                   {tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: key}, []string{"--client-ca", "PRIVATE KEY"}},
	} {
		t.Run("server: "+name, func(t *testing.T) {
			config, err := tlsfiles.Server(c.config)
			refused(t, config, err, c.says)
		})
	}
	for name, c := range map[string]struct {
		config tlsfiles.ClientConfig
		says   []string
	}{
		"no key":                {tlsfiles.ClientConfig{Cert: cert}, []string{"--cert-key"}},
		"no certificate":        {tlsfiles.ClientConfig{Key: key}, []string{"--cert "}},
		"a missing certificate": {tlsfiles.ClientConfig{Cert: missing, Key: key}, []string{"--cert:", missing}},
		"a missing key":         {tlsfiles.ClientConfig{Cert: cert, Key: missing}, []string{"--cert-key", missing}},
		"another key":           {tlsfiles.ClientConfig{Cert: cert, Key: otherKey}, []string{"--cert ", "--cert-key", "match"}},
		"a missing CA":          {tlsfiles.ClientConfig{CA: missing}, []string{"--ca", missing}},
		"a damaged CA":          {tlsfiles.ClientConfig{CA: half}, []string{"--ca", "certificate 2"}},
		"a key for a CA":        {tlsfiles.ClientConfig{CA: key}, []string{"--ca", "PRIVATE KEY"}},
	} {
		t.Run("client: "+name, func(t *testing.T) {
			config, err := tlsfiles.Client(c.config)
			refused(t, config, err, c.says)
		})
	}
}

func refused(t *testing.T, config *tls.Config, err error, says []string) {
	t.Helper()
	var known *policy.Error
	if config != nil || !errors.As(err, &known) || known.Kind != policy.BadRequest {
		t.Fatalf("%v, %v", config, err)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not name %q", err, text)
		}
	}
}
