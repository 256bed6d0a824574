package natsserver_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/internal/natsserver"
)

// patience bounds every wait for what must come.
const patience = 30 * time.Second

// small mounts a volume of a few megabytes, which takes root on Linux; elsewhere
// the test is skipped.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a small volume cannot be mounted here, which takes root on Linux: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

func TestAServerWhoseVolumeWasFullGoesOnOnceThereIsRoom(t *testing.T) {
	volume := small(t)
	lines := make(chan string, 1000)
	s := start(t, natsserver.Config{StoreDir: filepath.Join(volume, "store"), Log: func(_ slog.Level, text string) {
		if strings.HasPrefix(text, "the store in ") {
			lines <- text
		}
	}})
	url := s.URL()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	said := func(want string) {
		t.Helper()
		select {
		case line := <-lines:
			if !strings.Contains(line, want) {
				t.Fatalf("it says %q, want %q", line, want)
			}
		case <-time.After(patience):
			t.Fatalf("it did not say %q within %s", want, patience)
		}
	}
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(text string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "s", []byte(text), jetstream.WithRetryAttempts(0))
		return err
	}

	for round := range 2 {
		kept := fmt.Sprintf("kept in round %d", round)
		if err := publish(kept); err != nil {
			t.Fatal(err)
		}
		full := filepath.Join(volume, "full")
		// dd ends with an error when there is no more room, which is the aim.
		_ = exec.CommandContext(t.Context(), "dd", "if=/dev/zero", "of="+full, "bs=1k").Run()
		for publish(strings.Repeat("x", 1000)) == nil {
			// What is left of the last page.
		}
		said("takes nothing more")
		if m, err := stream.GetLastMsgForSubject(t.Context(), "s"); err != nil {
			t.Errorf("what is stored cannot be read: %v, %v", m, err)
		}
		again := conn.StatusChanged(nats.CONNECTED)
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		said("started again")
		select {
		case <-again:
		case <-time.After(patience):
			t.Fatal("the connection did not come back")
		}
		if s.URL() != url || conn.ConnectedUrl() != url {
			t.Errorf("it came back at %s, connected at %s; want %s", s.URL(), conn.ConnectedUrl(), url)
		}
		if err := publish("after"); err != nil {
			t.Error(err)
		}
		found := false
		for seq := uint64(1); ; seq++ {
			m, err := stream.GetMsg(t.Context(), seq)
			if err != nil {
				break
			}
			found = found || string(m.Data) == kept
		}
		if !found {
			t.Errorf("%q was acknowledged and is missing", kept)
		}
	}
}
