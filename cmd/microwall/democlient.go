package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/examples/boutique"
	"github.com/microwall/microwall/internal/authzen"
	"github.com/microwall/microwall/policy"
)

// A client of the demo is a process of its own, as a service would be. The demo
// puts questions to it on stdin and reads answers on stdout, one JSON document
// a line each.

// question is one of: the whole matrix; how old the proof is of what decides; one
// request; and one request again and again until it is answered so.
type question struct {
	Matrix  bool            `json:"matrix,omitempty"`
	Age     bool            `json:"age,omitempty"`
	Request json.RawMessage `json:"request,omitempty"`
	Until   *bool           `json:"until,omitempty"`
}

// reply is the answer to a question.
type reply struct {
	// Matrix has one letter for each of boutique's calls: allowed, denied, or
	// an error.
	Matrix   string   `json:"matrix,omitempty"`
	Allowed  bool     `json:"allowed,omitempty"`
	Reasons  []string `json:"reasons,omitempty"`
	Duties   string   `json:"obligations,omitempty"`
	Error    string   `json:"error,omitempty"`
	Watching bool     `json:"watching,omitempty"`
	// Age of the oldest proof, in nanoseconds.
	Age time.Duration `json:"age,omitempty"`
	// At is when the wanted answer was there, in nanoseconds of Unix time.
	At int64 `json:"at,omitempty"`
}

// The letters of a matrix.
const (
	letterAllowed = 'A'
	letterDenied  = '.'
	letterError   = 'E'
)

func newDemoClient(w world) *cobra.Command {
	var nats, trust, dir, server string
	cmd := &cobra.Command{
		Use:    "demo-client",
		Short:  "A client of the demo, in a process of its own",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ask, done, err := openDemoClient(cmd.Context(), nats, trust, dir, server)
			if err != nil {
				return err
			}
			defer done()
			return answerDemo(cmd.Context(), w, ask)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&nats, "nats", "", "decide embedded, by this NATS server")
	fs.StringVar(&trust, "trust", "", "trust file")
	fs.StringVar(&dir, "data-dir", "", "folder of the last good releases")
	fs.StringVar(&server, "server", "", "ask this PDP")
	return cmd
}

func openDemoClient(ctx context.Context, nats, trust, dir, server string) (policy.Authorizer, func(), error) {
	if server != "" {
		c, err := remote.New(ctx, remote.Config{Servers: []string{server}, Cache: cache.Config{Entries: -1}})
		if err != nil {
			return nil, nil, err
		}
		return c, func() { _ = c.Close() }, nil
	}
	var namespaces []policy.Namespace
	for _, s := range boutique.Graph().Services {
		namespaces = append(namespaces, policy.Namespace(s.Namespace))
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := embedded.New(ctx, embedded.Config{NATS: nats, TrustFile: trust, Dir: dir, Namespaces: namespaces})
	if err != nil {
		return nil, nil, err
	}
	return c, c.Close, nil
}

// answerDemo answers questions until there are no more.
func answerDemo(ctx context.Context, w world, ask policy.Authorizer) error {
	out := json.NewEncoder(w.stdout)
	if err := out.Encode(reply{Watching: true}); err != nil { // the process is up
		return err
	}
	lines := bufio.NewScanner(w.stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return fmt.Errorf("question: %w", err)
		}
		if q.Until != nil {
			if err := out.Encode(reply{Watching: true}); err != nil {
				return err
			}
		}
		if err := out.Encode(answerOne(ctx, ask, q)); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func answerOne(ctx context.Context, ask policy.Authorizer, q question) reply {
	if q.Matrix {
		return reply{Matrix: askMatrix(ctx, ask)}
	}
	if q.Age {
		return reply{Age: oldest(ctx, ask)}
	}
	r, err := authzen.ParseRequest(q.Request, "")
	if err != nil {
		return reply{Error: err.Error()}
	}
	for {
		a, err := askOnce(ctx, ask, r)
		if q.Until == nil || err == nil && a.Allowed == *q.Until || ctx.Err() != nil {
			return a
		}
		time.Sleep(200 * time.Microsecond)
	}
}

func askOnce(ctx context.Context, ask policy.Authorizer, r policy.Request) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	d, err := ask.Authorize(ctx, r)
	a := reply{Allowed: d.Allowed, At: time.Now().UnixNano()}
	for _, reason := range d.Reasons {
		a.Reasons = append(a.Reasons, reason.String())
	}
	if d.Obligations.Len() > 0 {
		a.Duties = d.Obligations.String()
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a, err
}

// oldest returns the age of the oldest proof of what an embedded client decides
// by, once there is one of everything.
func oldest(ctx context.Context, ask policy.Authorizer) time.Duration {
	c, ok := ask.(*embedded.Client)
	for ok && ctx.Err() == nil {
		var age time.Duration
		for _, s := range c.Status().Namespaces {
			age = max(age, s.Age)
		}
		if age < live.Forever {
			return age
		}
		time.Sleep(10 * time.Millisecond)
	}
	return live.Forever
}

// askMatrix asks for every caller and every method.
func askMatrix(ctx context.Context, ask policy.Authorizer) string {
	var letters []byte
	for _, call := range boutique.Graph().Calls() {
		r, err := demoRequest(call)
		if err != nil {
			letters = append(letters, letterError)
			continue
		}
		switch a, err := askOnce(ctx, ask, r); {
		case err != nil:
			letters = append(letters, letterError)
		case a.Allowed:
			letters = append(letters, letterAllowed)
		default:
			letters = append(letters, letterDenied)
		}
	}
	return string(letters)
}

// demoRequest turns a call of the boutique into a request.
func demoRequest(c boutique.Call) (policy.Request, error) {
	properties, err := policy.NewProperties(c.Properties)
	if err != nil {
		return policy.Request{}, err
	}
	callContext, err := policy.NewProperties(c.Context)
	if err != nil {
		return policy.Request{}, err
	}
	return policy.Request{
		Namespace: policy.Namespace(c.Namespace),
		Subject:   policy.Entity{Type: "workload", ID: c.Subject},
		Action:    policy.Action{Name: c.Action},
		Resource:  policy.Entity{Type: c.ResourceType, ID: c.ResourceID, Properties: properties},
		Context:   callContext,
	}, nil
}
