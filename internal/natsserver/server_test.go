package natsserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/policy"
)

// TestMain lets the test binary be a server process of its own, which can be
// killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("MICROWALL_TEST_STORE"); dir != "" {
		if _, err := natsserver.Start(context.Background(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: dir}); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("ready")
		select {}
	}
	os.Exit(m.Run())
}

func start(t *testing.T, c natsserver.Config) *natsserver.Server {
	t.Helper()
	if c.Port == 0 {
		c.Port = natsserver.AnyPort
	}
	s, err := natsserver.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestWhatWasStoredIsThereAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	s := start(t, natsserver.Config{StoreDir: dir})
	js := connect(t, s.URL())
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	s.Shutdown()
	s.Shutdown() // once more is harmless

	s = start(t, natsserver.Config{StoreDir: dir, MaxBytes: 1})
	stream, err := connect(t, s.URL()).Stream(t.Context(), "S")
	if err != nil {
		t.Fatal("a lower bound lost the stream:", err)
	}
	m, err := stream.GetLastMsgForSubject(t.Context(), "s")
	if err != nil || string(m.Data) != "kept" {
		t.Fatalf("got %v, %v", m, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the store is readable by others: %v, %v", info.Mode(), err)
	}
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	running := t.TempDir()
	start(t, natsserver.Config{StoreDir: running})
	ended, cancel := context.WithCancel(t.Context())
	cancel()

	for _, tt := range []struct {
		name string
		ctx  context.Context
		c    natsserver.Config
		kind policy.Kind
		says []string
	}{
		{"port in use", t.Context(), natsserver.Config{Port: taken.Addr().(*net.TCPAddr).Port, StoreDir: t.TempDir()}, policy.Unavailable, []string{taken.Addr().String(), "in use", "free the port"}},
		{"directory below a file", t.Context(), natsserver.Config{StoreDir: filepath.Join(file, "store")}, policy.Internal, []string{file, "choose a directory"}},
		{"directory of another server", t.Context(), natsserver.Config{StoreDir: running}, policy.Unavailable, []string{running, "in use by another", "stop that one"}},
		{"no directory", t.Context(), natsserver.Config{}, policy.BadRequest, []string{"no directory"}},
		{"negative bound", t.Context(), natsserver.Config{StoreDir: t.TempDir(), MaxBytes: -1}, policy.BadRequest, []string{"positive bound"}},
		{"no time", ended, natsserver.Config{StoreDir: t.TempDir()}, policy.Unavailable, []string{"not ready in time", "more time"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.c.Port == 0 {
				tt.c.Port = natsserver.AnyPort
			}
			s, err := natsserver.Start(tt.ctx, tt.c)
			if err == nil {
				s.Shutdown()
				t.Fatal("started")
			}
			if kind := policy.KindOf(err); kind != tt.kind {
				t.Errorf("kind is %v, want %v", kind, tt.kind)
			}
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestARefusedStartLeavesNothingBehind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	if _, err := natsserver.Start(t.Context(), natsserver.Config{Port: taken.Addr().(*net.TCPAddr).Port, StoreDir: dir}); err == nil {
		t.Fatal("started on a port in use")
	}
	start(t, natsserver.Config{StoreDir: dir})
}

func TestAnotherProcessCannotOpenTheStoreUntilTheFirstIsDead(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "MICROWALL_TEST_STORE="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("child says %q, %v", line, err)
	}
	if _, err := natsserver.Start(t.Context(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: dir}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatalf("the store of a running process opened: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	start(t, natsserver.Config{StoreDir: dir})
}

func TestTheStoreDoesNotGrowBeyondItsBound(t *testing.T) {
	s := start(t, natsserver.Config{StoreDir: t.TempDir(), MaxBytes: 1 << 20})
	if s.MaxBytes() != 1<<20 {
		t.Errorf("bound is %d", s.MaxBytes())
	}
	js := connect(t, s.URL())
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 512<<10)
	for range 10 {
		if _, err := js.Publish(t.Context(), "s", chunk); err != nil {
			if _, refused := errors.AsType[*jetstream.APIError](err); !refused {
				t.Fatal("not refused but", err)
			}
			return
		}
	}
	t.Fatal("5 MiB went into a store of 1 MiB")
}

func TestTheDefaultBoundIsWellUnderTheFreeDisk(t *testing.T) {
	dir := t.TempDir()
	s := start(t, natsserver.Config{StoreDir: dir})
	first := s.MaxBytes()
	if first < 1<<20 {
		t.Fatalf("bound is %d", first)
	}
	js := connect(t, s.URL())
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxBytes: first}); err != nil {
		t.Errorf("the whole bound cannot be reserved: %v", err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "T", Subjects: []string{"t"}, MaxBytes: first}); err == nil {
		t.Error("twice the bound can be reserved")
	}
}

func TestLogLinesGoToTheCallback(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	s := start(t, natsserver.Config{StoreDir: t.TempDir(), Log: func(level slog.Level, text string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, level.String()+" "+text)
	}})
	s.Shutdown()
	mu.Lock()
	defer mu.Unlock()
	all := strings.Join(lines, "\n")
	for _, want := range []string{"INFO Listening for client connections on 127.0.0.1:", "INFO Initiating Shutdown..."} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
}
