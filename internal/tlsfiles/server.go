package tlsfiles

import (
	"bytes"
	"crypto/tls"
	"sync"

	"github.com/microwall/microwall/policy"
)

// ServerConfig names the files of a server.
type ServerConfig struct {
	// Cert and Key are the server's certificate chain and its key. Required.
	Cert, Key string
	// ClientCA has the certificates of the authorities that client certificates
	// are checked with; "" asks clients for none.
	ClientCA string
	// RequireClient refuses a client that shows no certificate. Otherwise one
	// that shows none comes in, and one whose certificate ClientCA has not
	// signed does not. It needs a ClientCA.
	RequireClient bool
	// Events is told what became of files that changed; nil tells nobody. It
	// must not block.
	Events func(Event)
}

// Event is what became of files that changed: [Reread] or [Refused].
type Event interface{ event() }

// Reread says that handshakes use the changed files from now on.
type Reread struct{}

// Refused says that the files cannot be used as they are now. Handshakes go on
// with what was last good; it is told once until the reason changes.
type Refused struct{ Err error }

func (Reread) event()  {}
func (Refused) event() {}

// Server returns a configuration that follows its files: every handshake uses
// what they hold then, or what they last held that was good. The files must be
// good to begin with; errors are of kind policy.BadRequest and name the flag.
func Server(c ServerConfig) (*tls.Config, error) {
	switch {
	case c.Cert == "":
		return nil, policy.Errorf(policy.BadRequest, "--tls-cert is not set; name the server's certificate")
	case c.Key == "":
		return nil, policy.Errorf(policy.BadRequest, "--tls-key is not set; name the key of --tls-cert %s", c.Cert)
	case c.RequireClient && c.ClientCA == "":
		return nil, policy.Errorf(policy.BadRequest, "--client-ca is not set; without it no client certificate can be checked")
	}
	if c.Events == nil {
		c.Events = func(Event) {}
	}
	s := &server{config: c}
	raw, err := s.read()
	if err != nil {
		return nil, err
	}
	if s.good, err = s.parse(raw); err != nil {
		return nil, err
	}
	s.raw = raw
	return &tls.Config{
		MinVersion:             minVersion,
		SessionTicketsDisabled: true,
		GetConfigForClient:     func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current(), nil },
	}, nil
}

type server struct {
	config ServerConfig

	mu      sync.Mutex
	raw     contents    // of the files when they were last good
	good    *tls.Config // made of raw
	refused string      // why the files are not used as they are, "" if they are
}

// contents of the certificate, the key and the client CA.
type contents [3][]byte

func (c contents) equal(d contents) bool {
	return bytes.Equal(c[0], d[0]) && bytes.Equal(c[1], d[1]) && bytes.Equal(c[2], d[2])
}

func (s *server) files() (cert, key, ca file) {
	return file{"--tls-cert", s.config.Cert}, file{"--tls-key", s.config.Key}, file{"--client-ca", s.config.ClientCA}
}

// read reads the files. They are compared by what they hold: times of files are
// too coarse, and say nothing where a link is turned to another directory.
func (s *server) read() (raw contents, err error) {
	cert, key, ca := s.files()
	if raw[0], err = cert.read(); err != nil {
		return contents{}, err
	}
	if raw[1], err = key.read(); err != nil {
		return contents{}, err
	}
	if s.config.ClientCA != "" {
		if raw[2], err = ca.read(); err != nil {
			return contents{}, err
		}
	}
	return raw, nil
}

func (s *server) parse(raw contents) (*tls.Config, error) {
	cert, key, ca := s.files()
	own, err := pair(cert, key, raw[0], raw[1])
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: minVersion, SessionTicketsDisabled: true, Certificates: []tls.Certificate{own}}
	if s.config.ClientCA == "" {
		return config, nil
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	if s.config.RequireClient {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if config.ClientCAs, err = ca.roots(raw[2]); err != nil {
		return nil, err
	}
	return config, nil
}

// current returns the configuration for a handshake.
func (s *server) current() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, err := s.read()
	if err == nil && raw.equal(s.raw) {
		s.refused = ""
		return s.good
	}
	var next *tls.Config
	if err == nil {
		next, err = s.parse(raw)
	}
	if err != nil {
		if s.refused != err.Error() {
			s.refused = err.Error()
			s.config.Events(Refused{err})
		}
		return s.good
	}
	s.raw, s.good, s.refused = raw, next, ""
	s.config.Events(Reread{})
	return s.good
}
