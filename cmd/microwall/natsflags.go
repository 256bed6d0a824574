package main

import (
	"crypto/tls"

	"github.com/spf13/pflag"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/tlsfiles"
)

// natsFlags are those of every command that connects to NATS.
type natsFlags struct{ creds, ca, cert, certKey string }

// natsFlagNames are their names.
var natsFlagNames = []string{"nats-creds", "nats-ca", "nats-cert", "nats-cert-key"}

func (f *natsFlags) add(fs *pflag.FlagSet, when string) {
	fs.StringVar(&f.creds, "nats-creds", "", when+"credentials, a FILE.nkey that 'microwall nats-config' has made")
	fs.StringVar(&f.ca, "nats-ca", "", when+"CA certificates that the servers' certificates are checked with (default those of the system)")
	fs.StringVar(&f.cert, "nats-cert", "", when+"client certificate, where the servers ask for one")
	fs.StringVar(&f.certKey, "nats-cert-key", "", when+"key of the client certificate")
}

// credentials are nobody's if there is no flag for them.
func (f *natsFlags) credentials() (jetstream.Credentials, error) {
	if f.creds == "" {
		return jetstream.Credentials{}, nil
	}
	return jetstream.LoadCredentials(f.creds)
}

// tls is nil if the flags ask for nothing in particular.
func (f *natsFlags) tls() (*tls.Config, error) {
	if f.ca == "" && f.cert == "" && f.certKey == "" {
		return nil, nil
	}
	return tlsfiles.Client(tlsfiles.ClientConfig{CA: f.ca, Cert: f.cert, Key: f.certKey, Flags: "nats-"})
}
