// Package natsserver runs a NATS server with JetStream inside this process, so
// that one binary is enough. It is the only package that imports nats-server.
//
// What it promises:
//
//   - What JetStream has acknowledged is on disk: every write is synced before
//     it is acknowledged (sync_interval: always). Start fails rather than run
//     without that.
//   - One server per directory: a second one, in this process or in another, is
//     refused. The lock is the operating system's and ends with the process,
//     however that ends.
//   - The store is bounded well below the free space of its volume, because a
//     full disk does not make JetStream refuse: it stops answering until it is
//     started again. See [Config.MaxBytes].
//   - If the volume gets full all the same, or a write fails otherwise, it is
//     started again once there is room, at the same address. See [Server.Run].
//   - It handles no signals, writes no log and never ends the process: log
//     lines go to a callback, failures are returned.
//
// It is given the accounts, users, limits and TLS that nats-server's own
// configuration file has, in the same words, so that one file serves both; see
// [Config.Settings]. They may change while it runs ([Server.Reload]). Other
// machines reach it only if it speaks TLS and knows everybody who connects:
// Start refuses any other server that would listen beyond loopback. It takes
// clients and nothing else, neither other servers nor HTTP.
//
// Without settings it lets everybody do everything. That is for tests, and costs
// availability, never a wrong decision, because nothing that it delivers is
// believed without a signature.
package natsserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/microwall/microwall/internal/loglimit"
	"github.com/microwall/microwall/policy"
)

// DefaultPort is the port that NATS clients expect.
const DefaultPort = server.DEFAULT_PORT

// AnyPort as [Config.Port] lets the operating system pick one.
const AnyPort = server.RANDOM_PORT

// maxMemory bounds JetStream's memory streams. They hold one small message per
// namespace or client.
const maxMemory = 256 << 20

// Config says how a server runs. Only StoreDir is required.
type Config struct {
	// Host is the address to listen on. Empty is that of Settings, or 127.0.0.1.
	Host string
	// Port to listen on. Zero is that of Settings, or [DefaultPort]; [AnyPort]
	// picks a free one.
	Port int
	// Settings are a configuration file of nats-server, or a part of one: the
	// address to listen on, accounts, users, TLS and limits. What it says of
	// storing streams is not used: StoreDir and MaxBytes are, and every write is
	// synced. What makes more of the server than one for clients is refused, and
	// what includes another file, which nobody would look at.
	// Empty lets everybody do everything.
	Settings []byte
	// StoreDir is the directory that holds the streams. It is made, readable
	// by its owner only, if it does not exist.
	StoreDir string
	// MaxBytes bounds the streams on disk, all of them together. Zero is half
	// of what the volume could give them at the moment of the start: its free
	// space and what is in StoreDir already. A restart with a lower bound loses
	// nothing; only new writes are refused while the store is above it.
	MaxBytes int64
	// Log, if not nil, receives the server's log lines, thinned out where there are
	// many: whoever connects can cause them. It is called from many goroutines and
	// must not block.
	Log func(level slog.Level, text string)
}

// Server is a running server. It must be shut down.
type Server struct {
	config   Config
	lock     *os.File
	url      string
	shutdown sync.Once

	// lines of nats-server's log.
	lines loglimit.Limiter

	// mu is held while nats-server is started again, or reads other settings.
	mu sync.Mutex
	// What [Server.Run] replaces.
	nats    *server.Server
	started chan struct{} // closed when its Start has returned
	down    error         // why it could not be started again
	ailing  string        // what it complained of when it had started
	// newest is nats, for those who connect meanwhile.
	newest atomic.Pointer[server.Server]
}

// Start runs a server and returns once it accepts connections and JetStream has
// recovered what is in the directory. It returns an error if the port is in
// use, if the directory cannot be used or is used by another server, and if ctx
// ends first.
func Start(ctx context.Context, c Config) (*Server, error) {
	if c.StoreDir == "" {
		return nil, policy.Errorf(policy.BadRequest, "the NATS server has no directory to store streams in; name one")
	}
	settings, err := parse(c.Settings)
	if err != nil {
		return nil, err
	}
	if c.Host == "" {
		c.Host = cmp.Or(settings.Host, "127.0.0.1")
	}
	if c.Port == 0 {
		c.Port = cmp.Or(settings.Port, DefaultPort)
	}
	if _, err := c.options(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, notReady(ctx, c)
	}
	// The lock first: whoever holds the directory may be in the middle of a
	// write.
	lock, err := lockDir(c.StoreDir)
	if err != nil {
		return nil, err
	}
	return start(ctx, c, lock)
}

// start owns the lock: it is released when start fails, and else with the
// server.
func start(ctx context.Context, c Config, lock *os.File) (_ *Server, err error) {
	release := true
	defer func() {
		if release {
			unlock(lock)
		}
	}()

	if c.MaxBytes == 0 {
		if c.MaxBytes, err = defaultMaxBytes(c.StoreDir); err != nil {
			return nil, err
		}
	}
	if c.MaxBytes < 0 {
		return nil, policy.Errorf(policy.BadRequest, "the NATS store is bounded to %d bytes; give it a positive bound, or 0 for half of the free disk", c.MaxBytes)
	}
	if err := checkPort(c.Host, c.Port); err != nil {
		return nil, err
	}

	s := &Server{config: c, lock: lock}
	if err := s.launch(ctx); err != nil {
		if s.nats == nil {
			return nil, err
		}
		release = false
		select {
		case <-s.started:
			s.Shutdown()
		default: // it is abandoned, and cleans up after itself
			go s.Shutdown()
		}
		return nil, err
	}
	release = false
	s.url = s.nats.ClientURL()
	if addr, ok := s.nats.Addr().(*net.TCPAddr); ok {
		s.config.Port = addr.Port // which it comes back at
	}
	return s, nil
}

// launch starts nats-server. What it has begun by the time of an error is to be
// halted all the same.
func (s *Server) launch(ctx context.Context) error {
	c := s.config
	settings, err := c.options()
	if err != nil {
		return err
	}
	log := &logger{emit: c.Log, fatal: make(chan string, 1), limit: &s.lines}
	ns, err := server.NewServer(settings)
	if err != nil {
		return policy.Errorf(policy.Internal, "the NATS server refuses its configuration: %w", err)
	}
	ns.SetLoggerV2(log, false, false, false)
	s.nats, s.started = ns, make(chan struct{})
	s.newest.Store(ns)
	// Start returns when the store is recovered and the port is open. It takes
	// no context; halt waits for it.
	go func(started chan<- struct{}) {
		defer close(started)
		ns.Start()
	}(s.started)
	select {
	case <-s.started:
	case <-ctx.Done():
		return notReady(ctx, c)
	}
	if err := s.healthy(log, c); err != nil {
		return err
	}
	s.ailing = s.complaint()
	return nil
}

func notReady(ctx context.Context, c Config) error {
	return policy.Errorf(policy.Unavailable, "the NATS server was not ready in time (%w) with its store in %s; a large store takes longer to recover, allow it more time", context.Cause(ctx), c.StoreDir)
}

// healthy checks what Start of nats-server only logs.
func (s *Server) healthy(log *logger, c Config) error {
	select {
	case text := <-log.fatal:
		return policy.Errorf(policy.Unavailable, "the NATS server did not start on %s with its store in %s: %s", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), c.StoreDir, text)
	default:
	}
	js := s.nats.JetStreamConfig()
	switch {
	case s.nats.Addr() == nil:
		return policy.Errorf(policy.Internal, "the NATS server started without listening on %s", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	case js == nil:
		return policy.Errorf(policy.Internal, "the NATS server started without JetStream; its store is in %s", c.StoreDir)
	case !js.SyncAlways:
		return policy.Errorf(policy.Internal, "the NATS server would acknowledge writes before they are on disk")
	}
	return nil
}

// InProcessConn connects to the server without the network, and without TLS. It
// makes a Server what nats.InProcessServer takes, and may be called at any time.
func (s *Server) InProcessConn() (net.Conn, error) { return s.newest.Load().InProcessConn() }

// URL is where clients connect.
func (s *Server) URL() string { return s.url }

// MaxBytes is the bound of the streams on disk, all of them together.
func (s *Server) MaxBytes() int64 { return s.config.MaxBytes }

// Shutdown closes all connections and the store, and returns when that is done.
// [Server.Run] must have returned. It may be called more than once.
func (s *Server) Shutdown() {
	s.shutdown.Do(func() {
		s.halt()
		unlock(s.lock)
	})
}

// halt ends nats-server and keeps the directory locked.
func (s *Server) halt() {
	<-s.started
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// lockDir makes the directory if need be and takes its lock.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, policy.Errorf(policy.Internal, "the NATS store cannot be made in %s: %w; choose a directory that can be written", dir, err)
	}
	path := filepath.Join(dir, "microwall.lock")
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, policy.Errorf(policy.Internal, "the NATS store in %s cannot be written: %w; choose a directory that can be", dir, err)
	}
	if err := tryLock(lock); err != nil {
		unlock(lock)
		return nil, policy.Errorf(policy.Unavailable, "the NATS store in %s is in use by another process (%w); stop that one, or choose another directory", dir, err)
	}
	return lock, nil
}

// unlock closes the lock file, which releases the lock. Nothing was written to
// it, so that closing it cannot lose anything.
func unlock(lock *os.File) { _ = lock.Close() }

// checkPort finds out whether the port is free, for the sake of a clear error:
// nats-server itself only logs it.
func checkPort(host string, port int) error {
	if port == AnyPort {
		port = 0
	}
	address := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := net.Listen("tcp", address)
	if err != nil {
		return policy.Errorf(policy.Unavailable, "the NATS server cannot listen on %s: %w; free the port, or choose another address", address, err)
	}
	return l.Close()
}

// defaultMaxBytes is half of what the volume of dir has free or has given to
// dir already, so that a restart computes the same bound.
func defaultMaxBytes(dir string) (int64, error) {
	free, err := freeBytes(dir)
	if err != nil {
		return 0, policy.Errorf(policy.Internal, "the free space of %s cannot be determined: %w; set a bound for the store", dir, err)
	}
	var used int64
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		used += info.Size()
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, policy.Errorf(policy.Internal, "the NATS store in %s cannot be read: %w", dir, err)
	}
	if bound := (free + used) / 2; bound > 0 {
		return bound, nil
	}
	return 0, policy.Errorf(policy.Exhausted, "the volume of %s is full; free some space", dir)
}

// logger hands nats-server's log on. Its Fatalf does not end the process: what
// it says is what Start returns.
type logger struct {
	emit  func(slog.Level, string)
	fatal chan string
	limit *loglimit.Limiter
}

// maxLine is how long a line may be, in bytes: a subject that somebody tries to use
// may have 4 KB.
const maxLine = 1000

var _ server.Logger = (*logger)(nil)

func (l *logger) log(level slog.Level, format string, args []any) {
	if l.emit == nil {
		return
	}
	ok, unsaid := l.limit.Allow(time.Now())
	if !ok {
		return
	}
	text := fmt.Sprintf(format, args...)
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "") + "..."
	}
	if unsaid > 0 {
		text += fmt.Sprintf(" (%d lines before were left out)", unsaid)
	}
	l.emit(level, text)
}

// Noticef implements [server.Logger].
func (l *logger) Noticef(format string, args ...any) { l.log(slog.LevelInfo, format, args) }

// Warnf implements [server.Logger].
func (l *logger) Warnf(format string, args ...any) { l.log(slog.LevelWarn, format, args) }

// Errorf implements [server.Logger].
func (l *logger) Errorf(format string, args ...any) { l.log(slog.LevelError, format, args) }

// Debugf implements [server.Logger].
func (l *logger) Debugf(format string, args ...any) { l.log(slog.LevelDebug, format, args) }

// Tracef implements [server.Logger].
func (l *logger) Tracef(format string, args ...any) { l.log(slog.LevelDebug-4, format, args) }

// Fatalf implements [server.Logger]: the first one is kept for Start.
func (l *logger) Fatalf(format string, args ...any) {
	l.log(slog.LevelError, format, args)
	select {
	case l.fatal <- fmt.Sprintf(format, args...):
	default:
	}
}
