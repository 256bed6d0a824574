package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/filewatch"
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

// lookAtNATSConfig returns a text that differs when the file does, or a
// certificate that it names. What is read afterwards is at least as new.
func lookAtNATSConfig(path string) string {
	names := []string{path}
	if settings, err := os.ReadFile(path); err == nil {
		names = append(names, natsserver.Files(settings)...)
	}
	return filewatch.Look(names...)
}

// watchNATSConfig puts a changed --nats-config, or a renewed certificate that it
// names, in force. What cannot be is reported; what was in force stays.
func watchNATSConfig(ctx context.Context, path, seen string, server *natsserver.Server, o *observer) error {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := lookAtNATSConfig(path)
		if now == seen {
			continue
		}
		seen = now
		settings, err := os.ReadFile(path)
		if err == nil {
			err = server.Reload(settings)
		}
		if err != nil {
			o.log.Error("the configuration of NATS was not taken over; the one before stays in force", "file", path, "error", err)
		} else {
			o.log.Info("the configuration of NATS was taken over", "file", path)
		}
	}
}

// localConnections is how many connections clients on this machine may hold: fewer
// than nats-server takes by default (65,536), so that there is room for the PDP.
const localConnections = 50_000

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
		Domain: domain, Anonymous: nobody.Key(), MaxConnections: localConnections,
		Users: []jetstream.User{{Principal: jetstream.Principal{Name: name, Kind: jetstream.PDP}, Key: own.Key()}},
	}.Config()
	// Of what clients asked for and do not read, no more than a PDP needs room for
	// itself: it waits in the memory of this process.
	return append([]byte("max_pending: 16MB\n"), settings...), own, err
}
