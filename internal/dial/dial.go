// Package dial is how a process reaches a PDP over gRPC, the same for every
// command and for clients/remote.
//
// A connection is TLS unless the PDP is on loopback or whoever configures it
// says that plaintext is meant. Certificates are read again for each
// connection, so that they can be renewed without a restart; files that cannot
// be used fail the connection that needs them, not those that stand. No proxy
// is used, and no configuration that DNS offers.
package dial

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/microwall/microwall/internal/tlsfiles"
	"github.com/microwall/microwall/policy"
)

// DefaultServer is where a PDP listens unless told otherwise.
const DefaultServer = "127.0.0.1:7070"

// Config says which PDP, and how it is known. Its zero value is the PDP on this
// machine, in plaintext.
type Config struct {
	// Server is HOST:PORT; "" is [DefaultServer].
	Server string
	// CA is a PEM file with the certificates of the authorities that the PDP's
	// certificate is checked with. With "" a PDP on loopback is spoken to in
	// plaintext, any other by TLS with the system's authorities.
	CA string
	// Cert and CertKey are PEM files with the certificate that is shown to the
	// PDP and its key; both "" shows none. They turn TLS on.
	Cert, CertKey string
	// Plaintext allows plaintext to a PDP beyond loopback: for a network that
	// encrypts on its own, such as a mesh. It excludes CA and Cert.
	Plaintext bool
}

// Dial returns a connection, which connects when it is first used, and again
// whenever it broke. It does not wait for the PDP. Errors are about the
// configuration, of kind policy.BadRequest, and name the flag.
func Dial(c Config, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	if c.Server == "" {
		c.Server = DefaultServer
	}
	host, err := splitServer(c.Server)
	if err != nil {
		return nil, err
	}
	creds, dialer, err := c.transport(host)
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithDisableServiceConfig(),
		// A PDP that restarts is found again within seconds.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// A peer that is gone without a word is found out within half a minute.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
	}
	conn, err := grpc.NewClient("dns:///"+c.Server, append(options, more...)...)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "--server %q: %w; write HOST:PORT", c.Server, err)
	}
	return conn, nil
}

func splitServer(server string) (host string, err error) {
	if strings.Contains(server, "/") {
		return "", policy.Errorf(policy.BadRequest, "--server %q: write HOST:PORT without a scheme or path, for instance %s", server, DefaultServer)
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return "", policy.Errorf(policy.BadRequest, "--server %q: %w; write HOST:PORT, for instance %s", server, err, DefaultServer)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return "", policy.Errorf(policy.BadRequest, "--server %q: write a host and a port from 1 to 65535, for instance %s", server, DefaultServer)
	}
	return host, nil
}

// transport says how bytes get to the host.
func (c Config) transport(host string) (credentials.TransportCredentials, *net.Dialer, error) {
	secure := c.CA != "" || c.Cert != "" || c.CertKey != ""
	switch {
	case c.Plaintext && secure:
		return nil, nil, policy.Errorf(policy.BadRequest, "plaintext is asked for together with --ca, --cert or --cert-key, which are for TLS; leave out the one or the others")
	case c.Plaintext:
		return insecure.NewCredentials(), &net.Dialer{}, nil
	case !secure && isLoopback(host):
		return insecure.NewCredentials(), &net.Dialer{Control: onlyLoopback}, nil
	}
	files := tlsfiles.ClientConfig{CA: c.CA, Cert: c.Cert, Key: c.CertKey}
	// Bad files are to be found out now, not at the first request.
	if _, err := tlsfiles.Client(files); err != nil {
		return nil, nil, err
	}
	return &reread{files: files}, &net.Dialer{}, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// onlyLoopback refuses to connect elsewhere, whatever "localhost" resolves to.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err != nil || !to.Addr().IsLoopback() {
		return policy.Errorf(policy.BadRequest, "--server is at %s, which is not loopback, and plaintext goes no further; pass --ca", address)
	}
	return nil
}

// reread are credentials of what the files hold when a connection is made.
type reread struct{ files tlsfiles.ClientConfig }

func (r *reread) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := tlsfiles.Client(r.files)
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
}

func (r *reread) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, policy.Errorf(policy.Internal, "credentials of a client cannot serve")
}

func (r *reread) Info() credentials.ProtocolInfo { return credentials.NewTLS(nil).Info() }

func (r *reread) Clone() credentials.TransportCredentials { return &reread{r.files} }

// OverrideServerName is part of the interface; the name is that of --server.
func (r *reread) OverrideServerName(string) error {
	return policy.Errorf(policy.Internal, "the name of the server is the one in --server")
}
