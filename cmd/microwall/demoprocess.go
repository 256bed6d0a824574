package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/microwall/microwall/examples/boutique"
	"github.com/microwall/microwall/internal/authzen"
)

// demoProcess is this binary run as another process.
type demoProcess struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan []byte // of stdout, or of a server's log
	done  chan struct{}
	once  sync.Once

	mu   sync.Mutex
	last []byte // of stderr, for when it dies
}

// startDemoProcess starts this binary with other arguments.
func startDemoProcess(ctx context.Context, args ...string) (*demoProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, args...) //nolint:gosec // this program, with arguments that the demo writes
	p := &demoProcess{cmd: cmd, lines: make(chan []byte, 64), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), demoEnv+"=1")
	p.cmd.WaitDelay = 5 * time.Second
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start microwall %s: %w", args[0], err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.read(stdout, false) })
	readers.Go(func() { p.read(stderr, true) })
	go func() { // ends with the process, which end and kill wait for
		readers.Wait()
		_ = p.cmd.Wait() // how it ended is told by its last line
		close(p.lines)
		close(p.done)
	}()
	return p, nil
}

// demoEnv marks processes of the demo, for tests that run it.
const demoEnv = "MICROWALL_DEMO"

func (p *demoProcess) read(from io.Reader, isLog bool) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := append([]byte{}, lines.Bytes()...)
		if !isLog {
			p.lines <- line
			continue
		}
		p.mu.Lock()
		p.last = line
		p.mu.Unlock()
		select { // a log is only read for its first lines
		case p.lines <- line:
		default:
		}
	}
}

// demoPatience is how long a process of the demo may take to say something.
const demoPatience = 20 * time.Second

// next returns the next line.
func (p *demoProcess) next() ([]byte, error) {
	select {
	case line, ok := <-p.lines:
		if ok {
			return line, nil
		}
	case <-time.After(demoPatience):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return nil, fmt.Errorf("a process of the demo (%v) said nothing; its last words were: %s", p.cmd.Args[1:], p.last)
}

// ready waits until a server listens and returns its addresses.
func (p *demoProcess) ready() (grpc, http, nats string, err error) {
	for {
		line, err := p.next()
		if err != nil {
			return "", "", "", err
		}
		var log struct{ Msg, GRPC, HTTP, NATS string }
		if json.Unmarshal(line, &log) == nil && log.Msg == "ready" {
			return log.GRPC, log.HTTP, log.NATS, nil
		}
	}
}

// startClient starts a client and waits until it decides.
func startClient(ctx context.Context, args ...string) (*demoProcess, error) {
	p, err := startDemoProcess(ctx, append([]string{"demo-client"}, args...)...)
	if err != nil {
		return nil, err
	}
	if _, err := p.reply(); err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

func (p *demoProcess) reply() (reply, error) {
	line, err := p.next()
	if err != nil {
		return reply{}, err
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return reply{}, fmt.Errorf("a client of the demo said %q: %w", line, err)
	}
	return r, nil
}

func (p *demoProcess) put(q question) error {
	return json.NewEncoder(p.stdin).Encode(q)
}

// matrix asks for every caller and every method.
func (p *demoProcess) matrix() (string, error) {
	if err := p.put(question{Matrix: true}); err != nil {
		return "", err
	}
	r, err := p.reply()
	return r.Matrix, err
}

// age asks how old the oldest proof is of what the client decides by.
func (p *demoProcess) age() (time.Duration, error) {
	if err := p.put(question{Age: true}); err != nil {
		return 0, err
	}
	r, err := p.reply()
	return r.Age, err
}

// ask puts one request.
func (p *demoProcess) ask(c boutique.Call) (reply, error) {
	q, err := newQuestion(c)
	if err == nil {
		err = p.put(q)
	}
	if err != nil {
		return reply{}, err
	}
	return p.reply()
}

// watch lets the client ask again and again until the answer is as wanted. The
// client has begun when watch returns; wait returns when it saw that answer.
func (p *demoProcess) watch(c boutique.Call, allowed bool) (wait func() (time.Time, error), err error) {
	q, err := newQuestion(c)
	if err != nil {
		return nil, err
	}
	q.Until = &allowed
	if err := p.put(q); err != nil {
		return nil, err
	}
	if _, err := p.reply(); err != nil {
		return nil, err
	}
	return func() (time.Time, error) {
		r, err := p.reply()
		return time.Unix(0, r.At), err
	}, nil
}

// until waits for a wanted answer.
func (p *demoProcess) until(c boutique.Call, allowed bool) (time.Time, error) {
	wait, err := p.watch(c, allowed)
	if err != nil {
		return time.Time{}, err
	}
	return wait()
}

func newQuestion(c boutique.Call) (question, error) {
	r, err := demoRequest(c)
	if err != nil {
		return question{}, err
	}
	return question{Request: authzen.AppendRequest(nil, r)}, nil
}

// kill ends the process with SIGKILL, as a crash would.
func (p *demoProcess) kill() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	<-p.done
	return nil
}

// end asks the process to end, and waits for it.
func (p *demoProcess) end() {
	p.once.Do(func() {
		_ = p.stdin.Close() // a client ends with its questions
		if p.cmd.Args[1] == "serve" {
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
		}
		go func() { // what it still says is not waited for
			for range p.lines {
			}
		}()
		select {
		case <-p.done:
		case <-time.After(demoPatience):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	})
}
