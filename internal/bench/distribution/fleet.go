package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/bench/child"
	"github.com/microwall/microwall/policy"
)

// fleetArg as the first argument makes this program one of the processes that a
// fleet consists of.
const fleetArg = "fleet"

// crew is what one process of a fleet is to do; it is told so on its standard
// input, and ends when that does.
type crew struct {
	// Size is how many clients it has.
	Size int
	// Bare ones have a connection each, and nothing else. Subscribers have a
	// subscription to the pushes of one namespace besides. Otherwise a client is
	// an embedded one.
	Bare, Subscribers bool
	NATS, Trust       string
	// Credentials is the file that embedded clients show; "" shows none.
	Credentials string
	Namespace   policy.Namespace
}

// reached is what a crew says on its standard output: all of its clients have
// the release with that revision (0: are ready), the last of them at that time.
type reached struct {
	Revision uint64
	At       time.Time
}

// fleet is many clients in a few processes.
type fleet struct {
	crews []*child.Process
}

// startFleet starts processes that share c.Size clients, and returns when all
// clients are ready.
func startFleet(ctx context.Context, c crew, processes int) (_ *fleet, err error) {
	f := &fleet{}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	for i := range processes {
		share := c
		share.Size = c.Size*(i+1)/processes - c.Size*i/processes
		m, err := child.Start(ctx, fleetArg, share)
		if err != nil {
			return nil, err
		}
		f.crews = append(f.crews, m)
	}
	_, err = f.wait(ctx, 0)
	return f, err
}

// wait returns when the last client of all got to a revision.
func (f *fleet) wait(ctx context.Context, revision uint64) (last time.Time, err error) {
	// What does not come ends the processes, and with them what is read here.
	late := time.AfterFunc(tooLate, f.end)
	defer late.Stop()
	defer context.AfterFunc(ctx, f.end)()
	for _, m := range f.crews {
		for {
			var r reached
			if err := m.Hear(&r); err != nil {
				m.End()
				return last, fmt.Errorf("a process of the fleet ended: %w: %s", err, m.Wait())
			}
			if r.Revision < revision {
				continue
			}
			if r.At.After(last) {
				last = r.At
			}
			break
		}
	}
	return last, nil
}

// end has all processes end.
func (f *fleet) end() {
	for _, m := range f.crews {
		m.End()
	}
}

// close ends all processes and waits for them.
func (f *fleet) close() {
	f.end()
	for _, m := range f.crews {
		m.Wait()
	}
}

// runCrew is a process of a fleet.
func runCrew(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var c crew
	input, err := child.Told(in, &c)
	if err != nil {
		return err
	}
	t := &tally{size: c.Size, out: json.NewEncoder(out), counts: map[uint64]int{}}
	start := startEmbedded
	if c.Bare || c.Subscribers {
		start = startSubscriber
	}
	closers := make([]func(), c.Size)
	errs := make([]error, c.Size)
	var starting sync.WaitGroup
	free := make(chan struct{}, 32)
	for i := range c.Size {
		free <- struct{}{}
		starting.Go(func() {
			defer func() { <-free }()
			closers[i], errs[i] = start(ctx, c, t)
		})
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	t.say(0)
	err = child.Ended(input)
	var ending sync.WaitGroup
	for _, end := range closers {
		ending.Go(end)
	}
	ending.Wait()
	return err
}

func startEmbedded(ctx context.Context, c crew, t *tally) (func(), error) {
	client, err := embedded.New(ctx, embedded.Config{
		NATS: c.NATS, Credentials: c.Credentials, TrustFile: c.Trust, Namespaces: []policy.Namespace{c.Namespace},
		OnRelease: func(e live.Event) {
			if a, ok := e.(live.Activated); ok && a.Version.Namespace == c.Namespace {
				t.add(a.Version.Revision)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return client.Close, nil
}

func startSubscriber(ctx context.Context, c crew, t *tally) (func(), error) {
	conn, err := jetstream.Connect(ctx, c.NATS, jetstream.ConnectOptions{})
	if err != nil {
		return nil, err
	}
	var revision uint64 // its messages come one after the other
	subject := "hear." + strings.ReplaceAll(string(c.Namespace), ".", "_") + ".head"
	if !c.Bare {
		_, err = conn.Subscribe(subject, func(*nats.Msg) {
			revision++
			t.add(revision)
		})
	}
	if err == nil {
		err = conn.FlushTimeout(tooLate)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn.Close, nil
}

// tally counts which client has got how far.
type tally struct {
	size   int
	mu     sync.Mutex
	counts map[uint64]int
	out    *json.Encoder
}

func (t *tally) add(revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[revision]++; t.counts[revision] == t.size {
		t.tell(revision)
	}
}

func (t *tally) say(revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell(revision)
}

func (t *tally) tell(revision uint64) {
	_ = t.out.Encode(reached{Revision: revision, At: time.Now()}) // nobody listens any more: the process is ended
}
