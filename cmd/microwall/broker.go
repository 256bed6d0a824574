package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
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
		config.Settings, connect.Credentials, err = ownAccounts(domain, f.natsConnections)
	} else {
		config.Settings, err = readNATSConfig(f.natsConfig)
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
		if f.natsAddr == "" {
			return nil, fmt.Errorf("--nats-config %s, --data-dir %s: %w (if it is a nats-server by the same file: use that one, with --nats URL and without --nats-config)", f.natsConfig, f.dataDir, err)
		}
		return nil, fmt.Errorf("--nats-addr %s, --data-dir %s: %w", f.natsAddr, f.dataDir, err)
	}
	connect.InProcess = server
	return server, nil
}

// maxNATSConfig is how large the file may be, in bytes: as it is with a hundred
// thousand principals.
const maxNATSConfig = 256 << 20

// readNATSConfig reads a --nats-config. Whoever may write it says who does
// everything on NATS, so a file that others than its owner may write is refused. One
// that includes another is by [natsserver.Start].
func readNATSConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "--nats-config: %w; `microwall nats-config` writes such a file", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, policy.Errorf(policy.BadRequest, "--nats-config: %w", err)
	case !info.Mode().IsRegular():
		return nil, policy.Errorf(policy.BadRequest, "--nats-config: %s is no regular file; `microwall nats-config` writes one", path)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0:
		return nil, policy.Errorf(policy.BadRequest, "--nats-config: others may write to %s (permissions are %04o), and so say who may do what on NATS; look through it, then say: chmod go-w %s", path, info.Mode().Perm(), path)
	case info.Size() > maxNATSConfig:
		return nil, policy.Errorf(policy.Exhausted, "--nats-config: %s is larger than %d bytes", path, maxNATSConfig)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxNATSConfig))
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "--nats-config: cannot read: %w", err)
	}
	return raw, nil
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
		settings, err := readNATSConfig(path)
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

const (
	// localConnections is how many connections clients on this machine may hold
	// together unless configured. What one asked for and does not read waits in the
	// memory of this process, up to maxPending for each; nobody there shows
	// credentials.
	localConnections = 1000
	// maxPending is how many bytes wait for one connection before it is cut: no more
	// than a PDP needs room for itself.
	maxPending = 16 << 20
)

// ownAccounts are those of a NATS server that only this machine reaches: this
// PDP has a key that is known to nobody else and gone when it ends, and everybody
// else may read.
func ownAccounts(domain string, connections int) (settings []byte, own jetstream.Credentials, err error) {
	const name = "pdp"
	if own, err = jetstream.NewCredentials(name); err != nil {
		return nil, own, err
	}
	nobody, err := jetstream.NewCredentials("nobody")
	if err != nil {
		return nil, own, err
	}
	settings, err = jetstream.Accounts{
		Domain: domain, Anonymous: nobody.Key(), MaxConnections: cmp.Or(connections, localConnections),
		Users: []jetstream.User{{Principal: jetstream.Principal{Name: name, Kind: jetstream.PDP}, Key: own.Key()}},
	}.Config()
	return fmt.Appendf(nil, "max_pending: %d\n%s", maxPending, settings), own, err
}
