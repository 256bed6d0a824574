// Package child is a part of a measurement that needs a process of its own: this
// program again, which finds by its first argument what it is to be. It is told the
// rest on its standard input, tells on its standard output, a JSON value at a time,
// and ends when its input does.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Process is a child.
type Process struct {
	run    *exec.Cmd
	input  io.Closer
	output *json.Decoder
	stderr strings.Builder
}

// Start starts a child that is called by an argument, and tells it what it is to
// do. It is killed when ctx ends, and must be waited for.
func Start(ctx context.Context, arg string, what any) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{run: exec.CommandContext(ctx, self, arg)} //nolint:gosec // it is this program
	p.run.Stderr = &p.stderr
	input, err := p.run.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := p.run.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.input, p.output = input, json.NewDecoder(output)
	if err := p.run.Start(); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(input).Encode(what); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Hear reads what the child tells next.
func (p *Process) Hear(told any) error { return p.output.Decode(told) }

// End has the child end.
func (p *Process) End() {
	_ = p.input.Close() // it fails only if it is closed
}

// Wait waits until the child has ended, and returns what it wrote on its standard
// error.
func (p *Process) Wait() string {
	_ = p.run.Wait() // what it had to say was said
	return p.stderr.String()
}

// Kill kills the child and waits for it. It may be called twice.
func (p *Process) Kill() {
	_ = p.run.Process.Kill() // it may be dead
	p.Wait()
}

// Told reads, in a child, what it is to do. The reader is its input from there on.
func Told(in io.Reader, what any) (*bufio.Reader, error) {
	input := bufio.NewReader(in)
	line, err := input.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	return input, json.Unmarshal(line, what)
}

// Ended waits, in a child, until it is to end.
func Ended(input *bufio.Reader) error {
	if _, err := input.ReadByte(); err != nil && err != io.EOF {
		return err
	}
	return nil
}
