package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
)

// patience bounds every wait of a test for what must come.
const patience = 30 * time.Second

// serving is a `microwall serve` that runs on loopback, as its users run it,
// with ports that the system picks. Its log is JSON.
type serving struct {
	// GRPC, HTTP and NATS are where it listens, as it says itself.
	GRPC, HTTP, NATS string

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has
	err   error         // of the process, once it has ended

	mu    sync.Mutex
	log   []string      // whole lines
	rest  []byte        // of a line that is not whole yet
	more  chan struct{} // closed when log grows, and made again
	taken int           // lines that waitFor has gone by
}

// startServing starts a server in dir and returns when it listens, which it
// does before it is ready. More arguments override the ports that are picked.
func startServing(dir string, args ...string) (*serving, error) {
	p := &serving{ended: make(chan struct{}), more: make(chan struct{})}
	always := []string{"serve", "--log-format", "json", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"}
	if !slices.Contains(args, "--dir") && !slices.Contains(args, "--nats") {
		always = append(always, "--nats-addr", "127.0.0.1:0")
	}
	p.cmd = exec.Command("microwall", append(always, args...)...)
	p.cmd.Dir, p.cmd.Stderr = dir, p
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	line, err := p.waitFor(`"msg":"listening"`)
	if err == nil {
		err = json.Unmarshal([]byte(line), p)
	}
	if err != nil {
		p.kill()
		return nil, err
	}
	p.taken = 0
	return p, nil
}

// Write takes what the process writes to its log.
func (p *serving) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, b...)
	for {
		line, rest, whole := bytes.Cut(p.rest, []byte("\n"))
		if !whole {
			break
		}
		p.log, p.rest = append(p.log, string(line)), rest
	}
	close(p.more)
	p.more = make(chan struct{})
	return len(b), nil
}

// waitFor waits for a line of the log that matches, behind the one that it
// returned last.
func (p *serving) waitFor(pattern string) (string, error) {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return "", err
	}
	timeout := time.After(patience)
	for last := false; ; {
		p.mu.Lock()
		for from := p.taken; from < len(p.log); from++ {
			if line := p.log[from]; match.MatchString(line) {
				p.taken = from + 1
				p.mu.Unlock()
				return line, nil
			}
		}
		more := p.more
		p.mu.Unlock()
		if last {
			return "", fmt.Errorf("no line of the log matches %s:\n%s", pattern, p.text())
		}
		select {
		case <-more:
		case <-p.ended: // all that it wrote is here
			last = true
		case <-timeout:
			last = true
		}
	}
}

// logged reports whether any line of the log matches.
func (p *serving) logged(pattern string) bool {
	match := regexp.MustCompile(pattern)
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.log, match.MatchString)
}

// text is the whole log.
func (p *serving) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// end asks the process to end, which it has to do without an error.
func (p *serving) end() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.wait()
}

// wait waits until the process has ended, and returns how.
func (p *serving) wait() error {
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("the server did not end:\n%s", p.text())
	}
	if p.err != nil {
		return fmt.Errorf("%w:\n%s", p.err, p.text())
	}
	return nil
}

// kill ends the process at once, as a crash does.
func (p *serving) kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return // it is not ours to kill
	}
	<-p.ended
}

// insider returns arguments by which a server takes, besides everybody on this
// machine who reads, one who has a PDP's credentials: an attacker who stole them,
// or a test that looks into the store.
func insider(t testing.TB) (args []string, creds jetstream.Credentials) {
	t.Helper()
	dir := t.TempDir()
	made := func(name string) jetstream.Credentials {
		c, err := jetstream.NewCredentials(name)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	own, nobody := made("pdp-1"), made("nobody")
	creds = made("insider")
	config, err := jetstream.Accounts{Domain: "shop", Anonymous: nobody.Key(), Users: []jetstream.User{
		{Principal: jetstream.Principal{Name: "pdp-1", Kind: jetstream.PDP}, Key: own.Key()},
		{Principal: jetstream.Principal{Name: "insider", Kind: jetstream.PDP}, Key: creds.Key()},
	}}.Config()
	conf, nkey := filepath.Join(dir, "nats.conf"), filepath.Join(dir, "pdp-1.nkey")
	if err = errors.Join(err, own.Write(nkey), os.WriteFile(conf, config, 0o600)); err != nil {
		t.Fatal(err)
	}
	return []string{"--nats-config", conf, "--nats-creds", nkey}, creds
}
