package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/credentials"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/tlsfiles"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// serveFlags are the flags of `microwall serve`.
type serveFlags struct {
	grpcAddr, httpAddr        string
	natsAddr, natsURL         string
	natsConfig                string
	natsReplicas              int
	natsConnections           int
	broker                    natsFlags
	dataDir, trust            string
	instance                  string
	beaconKey                 string
	dir                       string
	watch                     bool
	allowPlaintext            bool
	tlsCert, tlsKey, clientCA string
	logFormat                 string
	limits                    policy.Limits
	bundles                   bundles.Limits
	policy                    rego.Options
	queue                     int
	store                     int64
	keep                      int
}

const (
	defaultGRPC    = "127.0.0.1:7070"
	defaultHTTP    = "127.0.0.1:7071"
	defaultNATS    = "127.0.0.1:4222"
	defaultDataDir = ".microwall"

	// shutdownGrace is how long calls that were taken may still run.
	shutdownGrace = 10 * time.Second
)

func newServe(w world) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:     "serve",
		GroupID: groupServe,
		Short:   "Run the Policy Decision Point",
		Long: `Run the Policy Decision Point (PDP): decide over gRPC, take releases, and hand
them to every client over NATS.

By default a NATS server runs inside this process and keeps releases under
--data-dir; --nats URL uses servers that run elsewhere instead. Nothing is
accepted without a trust file, which says whose signatures are believed.

With --dir it decides by a folder with one folder of policies a namespace,
without NATS, keys or signatures: for development only.`,
		Example: `  microwall serve
  microwall serve --dir policies --watch
  microwall serve --nats-config nats.conf --nats-creds pdp-1.nkey
  microwall serve --nats tls://n1:4222,tls://n2:4222,tls://n3:4222 --nats-creds pdp-1.nkey
  microwall serve --grpc-addr 0.0.0.0:7070 --tls-cert tls.crt --tls-key tls.key --client-ca ca.crt`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd.Flags().Changed); err != nil {
				return err
			}
			return serve(cmd.Context(), w, f)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.grpcAddr, "grpc-addr", defaultGRPC, "address of the gRPC API")
	fs.StringVar(&f.httpAddr, "http-addr", defaultHTTP, "address of /healthz, /readyz and /metrics")
	fs.StringVar(&f.natsAddr, "nats-addr", "", "address of the NATS server inside this process (default that of --nats-config, or "+defaultNATS+")")
	fs.StringVar(&f.natsURL, "nats", "", "URL of NATS servers that run elsewhere, instead of one inside this process; a comma separates those of a cluster")
	fs.StringVar(&f.natsConfig, "nats-config", "", "who may connect to the NATS server inside this process, and how: a file that 'microwall nats-config' has made (default: whoever is on this machine may read)")
	fs.IntVar(&f.natsConnections, "max-nats-connections", 0, fmt.Sprintf("connections that clients may hold to the NATS server inside this process, all together, where there is no --nats-config; each may take %d MiB of memory at worst (default %d)", maxPending>>20, localConnections))
	f.broker.add(fs, "with --nats or --nats-config: ")
	fs.IntVar(&f.natsReplicas, "nats-replicas", 0, "with --nats: how many servers of a cluster hold each release, 1, 3 or 5; raises what is there, never lowers it (default 3 if --nats names three servers or more, else 1)")
	fs.StringVar(&f.dataDir, "data-dir", defaultDataDir, "folder of releases and of the NATS server's streams")
	fs.StringVar(&f.trust, "trust", "", "trust file (default trust.yaml in --data-dir)")
	fs.StringVar(&f.instance, "instance", instanceName(), "name of this PDP in microwall status")
	fs.StringVar(&f.beaconKey, "beacon-key", "", "sign beacons by this key, which the trust file lists under beacons: so clients know that they are not behind")
	fs.StringVar(&f.dir, "dir", "", "development: decide by this folder, one folder a namespace, unsigned")
	fs.BoolVar(&f.watch, "watch", false, "with --dir: take changes over as they are saved")
	fs.BoolVar(&f.allowPlaintext, "allow-plaintext", false, "let gRPC, and the connection to NATS, leave loopback without TLS, for a mesh that encrypts")
	fs.StringVar(&f.tlsCert, "tls-cert", "", "certificate of the gRPC API, read again when it changes")
	fs.StringVar(&f.tlsKey, "tls-key", "", "key of the certificate")
	fs.StringVar(&f.clientCA, "client-ca", "", "ask clients for a certificate that one of these CAs has signed")
	fs.StringVar(&f.logFormat, "log-format", formatText, "text or json")
	fs.IntVar(&f.limits.RequestBytes, "max-request-bytes", 0, "size of a request at most (default 1 MiB)")
	fs.IntVar(&f.limits.BatchItems, "max-batch", 0, "requests in a batch at most (default 1000)")
	fs.IntVar(&f.limits.CallPath, "max-call-path", 0, "elements of context.call_path at most (default 32)")
	fs.Int64Var(&f.bundles.Packed, "max-bundle-packed", 0, "size of a packed bundle at most (default 128 MiB)")
	fs.Int64Var(&f.bundles.Unpacked, "max-bundle-unpacked", 0, "size of an unpacked bundle at most (default 512 MiB)")
	fs.Int64Var(&f.store, "max-store", 0, "bytes that all releases may take in NATS; raises what is there, never lowers it (default 4 GiB, or half of a smaller volume)")
	fs.IntVar(&f.keep, "keep", 0, "releases of a namespace that are kept, 2 to 100, for all PDPs on this NATS; fewer than before removes the oldest at once (default 100, or what was given before)")
	fs.DurationVar(&f.policy.Budget, "decision-budget", 0, "time that one policy may take for one request (default 1s)")
	fs.Int64Var(&f.policy.Steps, "decision-steps", 0, "statements and elements that one policy may look at for one request (default 20 million)")
	fs.Int64Var(&f.policy.Bytes, "decision-bytes", 0, "bytes that one policy may build for one request (default 256 MiB)")
	fs.IntVar(&f.queue, "max-queue", 0, "requests that may wait for their turn (default 4096)")
	completeFolders(cmd, "data-dir", "dir")
	completeValues(cmd, "log-format", formatText, formatJSON)
	return cmd
}

// check refuses flags that contradict each other or the rules of safety. given
// tells which are on the command line: one that would do nothing is refused, as
// whoever gave it believes that it does something.
func (f *serveFlags) check(given func(flag string) bool) error {
	for _, a := range []struct{ flag, addr string }{{"--grpc-addr", f.grpcAddr}, {"--http-addr", f.httpAddr}, {"--nats-addr", orDefault(f.natsAddr, defaultNATS)}} {
		if err := checkAddr(a.flag, a.addr); err != nil {
			return err
		}
	}
	for _, flag := range []string{"nats", "nats-addr", "nats-config", "nats-creds", "nats-ca", "nats-cert", "nats-cert-key", "nats-replicas", "max-nats-connections", "trust", "data-dir", "beacon-key", "max-bundle-packed", "max-bundle-unpacked", "max-store", "keep"} {
		if f.dir != "" && given(flag) {
			return policy.Errorf(policy.BadRequest, "--dir decides by unsigned folders, without NATS, trust and releases; drop one of --dir and --%s", flag)
		}
	}
	switch {
	case f.watch && f.dir == "":
		return policy.Errorf(policy.BadRequest, "--watch goes with --dir: without it releases come by push")
	case given("nats") && given("nats-config"):
		return policy.Errorf(policy.BadRequest, "--nats uses servers that run elsewhere, --nats-config is for one inside this process; drop one of them, and run nats-server by that file elsewhere")
	case f.dir == "" && jetstream.CheckInstance(f.instance) != nil:
		return policy.Errorf(policy.BadRequest, "--instance: %w", jetstream.CheckInstance(f.instance))
	case f.natsConfig != "" && f.broker.creds == "":
		return policy.Errorf(policy.BadRequest, "--nats-config lets in nobody without credentials; pass those of a principal of kind pdp with --nats-creds")
	case f.broker.creds != "" && f.natsConfig == "" && f.natsURL == "":
		return policy.Errorf(policy.BadRequest, "--nats-creds goes with --nats or --nats-config; without them this process has the only key of the NATS server inside it")
	case f.natsURL == "" && (f.broker.ca != "" || f.broker.cert != "" || f.broker.certKey != ""):
		return policy.Errorf(policy.BadRequest, "--nats-ca, --nats-cert and --nats-cert-key go with --nats: the NATS server inside this process is not reached over a network")
	case given("nats") && given("nats-addr"):
		return policy.Errorf(policy.BadRequest, "--nats uses servers that run elsewhere, --nats-addr is for one inside this process; drop one of them")
	case given("max-nats-connections") && (f.natsURL != "" || f.natsConfig != ""):
		return policy.Errorf(policy.BadRequest, "--max-nats-connections is for the NATS server inside this process that only this machine reaches; drop it, and say it with `microwall nats-config --max-connections`")
	case given("keep") && (f.keep < jetstream.MinKeep || f.keep > jetstream.MaxKeep):
		return policy.Errorf(policy.BadRequest, "--keep is %d; it is %d to %d", f.keep, jetstream.MinKeep, jetstream.MaxKeep)
	case given("nats-replicas") && f.natsURL == "":
		return policy.Errorf(policy.BadRequest, "--nats-replicas goes with --nats: the NATS server inside this process is one alone")
	case given("nats-replicas") && f.natsReplicas != 1 && f.natsReplicas != 3 && f.natsReplicas != 5:
		return policy.Errorf(policy.BadRequest, "--nats-replicas is %d; it is 1, 3 or 5: an even number survives no more than the odd one below it", f.natsReplicas)
	case (f.tlsCert == "") != (f.tlsKey == ""):
		return policy.Errorf(policy.BadRequest, "--tls-cert and --tls-key go together")
	case f.clientCA != "" && f.tlsCert == "":
		return policy.Errorf(policy.BadRequest, "--client-ca needs --tls-cert and --tls-key: client certificates exist only in TLS")
	case f.logFormat != formatText && f.logFormat != formatJSON:
		return policy.Errorf(policy.BadRequest, "--log-format is %q; it is text or json", f.logFormat)
	case !isLoopback(f.grpcAddr) && f.tlsCert == "" && !f.allowPlaintext:
		return policy.Errorf(policy.BadRequest, "--grpc-addr %s leaves this machine without TLS: anybody on the way could change decisions; pass --tls-cert and --tls-key, or --allow-plaintext behind a mesh that encrypts", f.grpcAddr)
	case f.natsAddr != "" && !isLoopback(f.natsAddr) && f.natsConfig == "":
		return policy.Errorf(policy.BadRequest, "--nats-addr %s leaves this machine; the NATS server inside this process then needs TLS, and must know who connects: `microwall nats-config` makes both, pass it with --nats-config", f.natsAddr)
	}
	for flag, value := range map[string]int64{
		"--max-request-bytes": int64(f.limits.RequestBytes), "--max-batch": int64(f.limits.BatchItems), "--max-call-path": int64(f.limits.CallPath),
		"--max-bundle-packed": f.bundles.Packed, "--max-bundle-unpacked": f.bundles.Unpacked, "--decision-budget": int64(f.policy.Budget), "--decision-steps": f.policy.Steps, "--decision-bytes": f.policy.Bytes, "--max-queue": int64(f.queue), "--max-store": f.store, "--max-nats-connections": int64(f.natsConnections),
	} {
		if value < 0 {
			return policy.Errorf(policy.BadRequest, "%s is negative; 0 is the default", flag)
		}
	}
	return nil
}

// replicas is how many servers hold the streams: a cluster of three survives
// the loss of one.
func (f *serveFlags) replicas() int {
	switch {
	case f.natsReplicas != 0:
		return f.natsReplicas
	case strings.Count(f.natsURL, ",") >= 2:
		return 3
	}
	return 1
}

// checkAddr refuses what is no address to listen on.
func checkAddr(flag, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return policy.Errorf(policy.BadRequest, "%s %q is not HOST:PORT with a port from 0, which picks one, to 65535: %w", flag, addr, err)
	}
	return nil
}

// isLoopback reports whether an address to listen on is reached from this
// machine alone. Names other than localhost are not looked up.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// serve runs until ctx ends, and then finishes what it has taken.
func serve(ctx context.Context, w world, f serveFlags) (err error) {
	if f.trust == "" {
		f.trust = filepath.Join(f.dataDir, live.TrustFile)
	}
	o := newObserver(newLogger(w.stderr, f.logFormat))
	creds, err := f.credentials(o)
	if err != nil {
		return err
	}
	grpcListener, err := listen("--grpc-addr", f.grpcAddr)
	if err != nil {
		return err
	}
	defer grpcListener.Close()
	httpListener, err := listen("--http-addr", f.httpAddr)
	if err != nil {
		return err
	}
	defer httpListener.Close()

	// What runs beside the servers outlives ctx: calls that were taken are
	// finished by it.
	background, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	n := &node{}
	defer func() {
		stop(nil)
		work.Wait()
		n.close()
	}()
	start := startNode
	if f.dir != "" {
		start = startFolder
	}
	started, err := start(background, f, o, func(run func(context.Context) error) {
		work.Go(func() {
			if err := run(background); err != nil && background.Err() == nil {
				stop(err)
			}
		})
	})
	if err != nil {
		return err
	}
	n = started

	decide := pdp.New(pdp.Config{Source: n.source, Confirm: n.head(), Limits: f.limits, Queue: f.queue, Events: o.pdp})
	config := grpcapi.Config{
		Decide: decide, Watch: decide, Confirm: n.confirm,
		Releases: n.releases, Limits: f.limits, Bundles: f.bundles,
		Credentials:        creds,
		ClientCertificates: !isLoopback(f.grpcAddr),
		Events:             o.call,
	}
	server := grpcapi.New(config)
	ready := &readiness{ready: n.ready, cutOff: n.cutOff}
	web := &http.Server{Handler: newHTTP(ready, o), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}

	failed := make(chan error, 2)
	work.Go(func() { failed <- server.Serve(grpcListener) })
	work.Go(func() {
		if err := web.Serve(httpListener); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	})
	addresses := []any{"grpc", grpcListener.Addr().String(), "http", httpListener.Addr().String(), "nats", n.nats, "tls", creds != nil}
	o.log.Info("listening", addresses...)
	work.Go(func() {
		select {
		case <-n.ready:
			o.log.Info("ready", addresses...)
		case <-background.Done():
		}
	})
	select {
	case <-ctx.Done():
	case err = <-failed:
	case <-background.Done():
		err = context.Cause(background)
	}
	ready.stopping.Store(true)
	o.log.Info("stopping: finishing the calls that were taken")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	server.Shutdown(grace)
	return errors.Join(err, web.Shutdown(grace))
}

// credentials are those of the gRPC API, nil for plaintext.
func (f *serveFlags) credentials(o *observer) (credentials.TransportCredentials, error) {
	if f.tlsCert == "" {
		return nil, nil
	}
	config, err := tlsfiles.Server(tlsfiles.ServerConfig{Cert: f.tlsCert, Key: f.tlsKey, ClientCA: f.clientCA, RequireClient: f.clientCA != "", Events: o.tls})
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(config), nil
}

// listen opens a port.
func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "%s %s cannot be listened on: %w; choose another with %s, or end what uses it", flag, addr, err, flag)
	}
	return l, nil
}

func newLogger(w interface{ Write([]byte) (int, error) }, format string) *slog.Logger {
	if format == formatJSON {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// instanceName is what this machine is called, as far as that is a label.
func instanceName() string {
	host, err := os.Hostname()
	label, _, _ := strings.Cut(strings.ToLower(host), ".")
	if n, parseErr := policy.ParseNamespace(label); err == nil && parseErr == nil {
		return string(n)
	}
	return "pdp"
}
