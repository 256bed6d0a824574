package remote

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/internal/dial"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// Config of a [Client]. Its zero value asks the PDP on this machine.
type Config struct {
	// Server is HOST:PORT of the PDP; "" is 127.0.0.1:7070.
	Server string
	// CA is a PEM file with the certificates of the authorities that the PDP's
	// certificate is checked with. With "" a PDP on loopback is asked in
	// plaintext, any other by TLS with the system's authorities.
	CA string
	// Cert and CertKey are PEM files with the certificate that is shown to the
	// PDP and its key; both "" shows none. All three files are read again for
	// each connection.
	Cert, CertKey string
	// Plaintext allows plaintext to a PDP beyond loopback: for a network that
	// encrypts on its own, such as a mesh.
	Plaintext bool
	// Timeout of a call whose context has no deadline. Zero is five seconds.
	Timeout time.Duration
	// Limits on requests, checked before the PDP is asked. The PDP has its own.
	Limits policy.Limits
}

// Client asks a PDP. It is safe for concurrent use.
type Client struct {
	server  string // HOST:PORT
	timeout time.Duration
	limits  policy.Limits
	conn    *grpc.ClientConn
	pdp     microwallv1.AuthorizationServiceClient

	asked, failed atomic.Uint64
}

var _ policy.Authorizer = (*Client)(nil)

// New returns a client. It begins to connect and does not wait for that: a PDP
// that is not there yet is found when it comes. The error is about config, or
// ctx's if that has ended.
func New(ctx context.Context, config Config) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if config.Server == "" {
		config.Server = dial.DefaultServer
	}
	if config.Timeout == 0 {
		config.Timeout = 5 * time.Second
	}
	conn, err := dial.Dial(dial.Config{
		Server: config.Server, CA: config.CA, Cert: config.Cert, CertKey: config.CertKey, Plaintext: config.Plaintext,
	}, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage(config.Limits))))
	if err != nil {
		return nil, err
	}
	conn.Connect()
	return &Client{
		server: config.Server, timeout: config.Timeout, limits: config.Limits,
		conn: conn, pdp: microwallv1.NewAuthorizationServiceClient(conn),
	}, nil
}

// Close ends the calls that are under way, with errors of kind
// policy.Unavailable, and closes the connection. It may be called twice.
func (c *Client) Close() error {
	if err := c.conn.Close(); err != nil && status.Code(err) != codes.Canceled { // closed before
		return err
	}
	return nil
}

// Authorize asks the PDP for one decision.
//
// What the PDP would refuse as a bad request is refused here, as far as that
// can be seen. An error that the PDP gave has the kind that it had there.
// policy.Unavailable means that it could not be reached, or did not answer
// within Config.Timeout. If ctx ended first the error is that of ctx, for
// errors.Is to find.
func (c *Client) Authorize(ctx context.Context, r policy.Request) (policy.Decision, error) {
	if err := c.limits.Check(&r); err != nil {
		return policy.Decision{}, err
	}
	m, err := wire.RequestProto(&r)
	if err != nil {
		return policy.Decision{}, err
	}
	c.asked.Add(1)
	d, err := c.authorize(ctx, r.Namespace, m)
	if err != nil {
		c.failed.Add(1)
		return policy.Decision{}, err
	}
	return d, nil
}

func (c *Client) authorize(ctx context.Context, n policy.Namespace, m *microwallv1.AuthorizeRequest) (policy.Decision, error) {
	call, cancel := c.bounded(ctx)
	defer cancel()
	answer, err := c.pdp.Authorize(call, m)
	if err != nil {
		return policy.Decision{}, c.failure(ctx, err)
	}
	d, err := readAnswer(n, answer)
	if err != nil {
		return policy.Decision{}, c.senseless(err)
	}
	return d, nil
}

// AuthorizeBatch asks the PDP for many decisions in one call, so that they are
// made by one snapshot and one time stamp. A request that cannot be sent has
// its error in its result, and the others are asked for. Errors are as with
// [Client.Authorize].
func (c *Client) AuthorizeBatch(ctx context.Context, rs []policy.Request) ([]policy.Result, error) {
	if err := c.limits.CheckBatch(len(rs)); err != nil {
		return nil, err
	}
	results := make([]policy.Result, len(rs))
	var items []*microwallv1.AuthorizeRequest
	var sent []int // the index in rs of each item
	for i := range rs {
		if err := c.limits.Check(&rs[i]); err != nil {
			results[i].Err = err
			continue
		}
		m, err := wire.RequestProto(&rs[i])
		if err != nil {
			results[i].Err = err
			continue
		}
		items, sent = append(items, m), append(sent, i)
	}
	if len(items) == 0 {
		return results, nil
	}
	m := wire.BatchProto(items)
	if size, most := proto.Size(m), wire.MaxMessage(c.limits); size > most {
		return nil, policy.Errorf(policy.Exhausted, "batch is %d bytes on its way, the limit is %d; split it", size, most)
	}
	c.asked.Add(uint64(len(items)))
	answers, err := c.authorizeBatch(ctx, rs, sent, m)
	if err != nil {
		c.failed.Add(uint64(len(items)))
		return nil, err
	}
	for j, i := range sent {
		if answers[j].Err != nil {
			c.failed.Add(1)
		}
		results[i] = answers[j]
	}
	return results, nil
}

func (c *Client) authorizeBatch(ctx context.Context, rs []policy.Request, sent []int, m *microwallv1.AuthorizeBatchRequest) ([]policy.Result, error) {
	call, cancel := c.bounded(ctx)
	defer cancel()
	answer, err := c.pdp.AuthorizeBatch(call, m)
	if err != nil {
		return nil, c.failure(ctx, err)
	}
	if got := len(answer.GetResults()); got != len(sent) {
		return nil, c.senseless(fmt.Errorf("it has %d results for %d requests", got, len(sent)))
	}
	versions, err := wire.Versions(answer.GetVersions())
	if err != nil {
		return nil, c.senseless(err)
	}
	results := make([]policy.Result, len(sent))
	for j, result := range answer.GetResults() {
		if e := result.GetError(); e != nil {
			results[j].Err = c.itemFailure(ctx, e)
			continue
		}
		d, err := readResult(rs[sent[j]].Namespace, result, versions)
		if err != nil {
			results[j].Err = c.senseless(err)
			continue
		}
		results[j].Decision = d
	}
	return results, nil
}

// peer is how messages call the PDP.
func (c *Client) peer() string { return "PDP at " + c.server }

// bounded gives a call a deadline if its caller has set none.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// failure reads the error of a call that ctx's owner made.
func (c *Client) failure(ctx context.Context, err error) error {
	_, own := ctx.Deadline()
	switch code := status.Code(err); {
	case ctx.Err() != nil:
		return fmt.Errorf("%s was asked: %w", c.peer(), ctx.Err())
	case code == codes.DeadlineExceeded && own: // the PDP's clock was faster
		return fmt.Errorf("%s was asked: %w", c.peer(), context.DeadlineExceeded)
	case code == codes.DeadlineExceeded:
		return policy.Errorf(policy.Unavailable, "%s did not answer within %s; ask again, or give the call a longer deadline", c.peer(), c.timeout)
	case code == codes.Canceled && c.conn.GetState() == connectivity.Shutdown:
		return policy.Errorf(policy.Unavailable, "client of the %s is closed; make a new one", c.peer())
	case code == codes.Canceled:
		return policy.Errorf(policy.Unavailable, "%s cancelled the call; ask again", c.peer())
	}
	return wire.Error(c.peer(), err)
}

// itemFailure reads the error of one item. The end of the call may be told as
// that of the item that was decided then.
func (c *Client) itemFailure(ctx context.Context, e *microwallv1.BatchError) error {
	//nolint:gosec // a negative code is as unknown as a large one
	if code := codes.Code(e.GetCode()); code == codes.DeadlineExceeded || code == codes.Canceled {
		return c.failure(ctx, status.Error(code, e.GetMessage()))
	}
	return wire.BatchError(c.peer(), e)
}

// senseless is the error for an answer that is none.
func (c *Client) senseless(err error) error {
	return policy.Errorf(policy.Internal, "%s sent no answer that makes sense: %w; see that it is a PDP, of a version that this client knows", c.peer(), err)
}
