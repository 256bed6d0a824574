package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/policy"
)

// brokerOptions are how the flags say that this PDP connects to NATS.
func (f *serveFlags) brokerOptions(o *observer) (jetstream.ConnectOptions, error) {
	options := jetstream.ConnectOptions{Name: "microwall-pdp", Plaintext: f.allowPlaintext, Events: o.nats}
	var err error
	if options.Credentials, err = f.broker.credentials(); err != nil {
		return options, fmt.Errorf("--nats-creds: %w", err)
	}
	options.TLS, err = f.broker.tls()
	return options, err
}

// startNATS runs the NATS server inside this process, and says how this PDP
// connects to it: in this process, by its own key if no file says who may come.
func startNATS(ctx context.Context, f serveFlags, domain string, connect *jetstream.ConnectOptions, o *observer) (*natsserver.Server, error) {
	config := natsserver.Config{StoreDir: filepath.Join(f.dataDir, "nats"), MaxBytes: f.store, Log: o.natsServer}
	var err error
	if f.natsConfig == "" {
		f.natsAddr = orDefault(f.natsAddr, defaultNATS)
		config.Settings, connect.Credentials, err = ownAccounts(domain)
	} else if config.Settings, err = os.ReadFile(f.natsConfig); err != nil {
		err = policy.Errorf(policy.BadRequest, "--nats-config: %w; `microwall nats-config` writes such a file", err)
	}
	if err != nil {
		return nil, err
	}
	if f.natsAddr != "" {
		host, portText, err := net.SplitHostPort(f.natsAddr)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil {
			return nil, err
		}
		config.Host, config.Port = host, int(port)
		if port == 0 {
			config.Port = natsserver.AnyPort
		}
	}
	ctx, cancel := context.WithTimeout(ctx, natsStart)
	defer cancel()
	server, err := natsserver.Start(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("--nats-addr %s, --data-dir %s: %w", f.natsAddr, f.dataDir, err)
	}
	connect.InProcess = server
	return server, nil
}

// ownAccounts are those of a NATS server that only this machine reaches: this
// PDP has a key that is known to nobody else and gone when it ends, and everybody
// else may read.
func ownAccounts(domain string) (settings []byte, own jetstream.Credentials, err error) {
	const name = "pdp"
	if own, err = jetstream.NewCredentials(name); err != nil {
		return nil, own, err
	}
	nobody, err := jetstream.NewCredentials("nobody")
	if err != nil {
		return nil, own, err
	}
	settings, err = jetstream.Accounts{
		Domain: domain, Anonymous: nobody.Key(),
		Users: []jetstream.User{{Principal: jetstream.Principal{Name: name, Kind: jetstream.PDP}, Key: own.Key()}},
	}.Config()
	return settings, own, err
}
