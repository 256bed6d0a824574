package tlsfiles

import (
	"crypto/tls"

	"github.com/microwall/microwall/policy"
)

// ClientConfig names the files of a client.
type ClientConfig struct {
	// CA has the certificates of the authorities that the server's certificate
	// is checked with; "" takes the system's.
	CA string
	// Cert and Key are the client's own certificate and its key; both "" shows
	// none.
	Cert, Key string
	// Flags begins the names of the flags in errors: "nats-" makes --nats-ca of
	// --ca.
	Flags string
}

// Client returns a configuration of what the files hold now. Whoever connects
// sets its ServerName. Errors are of kind policy.BadRequest and name the flag.
func Client(c ClientConfig) (*tls.Config, error) {
	config := &tls.Config{MinVersion: minVersion}
	caFlag, certFlag, keyFlag := "--"+c.Flags+"ca", "--"+c.Flags+"cert", "--"+c.Flags+"cert-key"
	if c.CA != "" {
		ca := file{caFlag, c.CA}
		raw, err := ca.read()
		if err != nil {
			return nil, err
		}
		if config.RootCAs, err = ca.roots(raw); err != nil {
			return nil, err
		}
	}
	switch {
	case c.Cert == "" && c.Key == "":
		return config, nil
	case c.Cert == "":
		return nil, policy.Errorf(policy.BadRequest, "%s is set but %s is not; a client certificate needs both", keyFlag, certFlag)
	case c.Key == "":
		return nil, policy.Errorf(policy.BadRequest, "%s is set but %s is not; a client certificate needs both", certFlag, keyFlag)
	}
	cert, key := file{certFlag, c.Cert}, file{keyFlag, c.Key}
	rawCert, err := cert.read()
	if err != nil {
		return nil, err
	}
	rawKey, err := key.read()
	if err != nil {
		return nil, err
	}
	own, err := pair(cert, key, rawCert, rawKey)
	if err != nil {
		return nil, err
	}
	config.Certificates = []tls.Certificate{own}
	return config, nil
}
