package natsserver

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

const (
	// checkup is how often the store is asked how it is.
	checkup = 500 * time.Millisecond
	// maxPause bounds the pause between two starts of a store that fails again
	// and again; it begins with minPause, and a store that was well for longer
	// than maxPause begins anew.
	minPause, maxPause = time.Second, time.Minute
	// enoughRoom is what the volume must have free before the store is started
	// again, or a sixteenth of what the store may hold if that is less.
	enoughRoom = 64 << 20
)

// Run watches the server until ctx ends, which is no error. A store of which a
// write has failed, because its volume is full for instance, takes nothing more
// as long as it runs: what is stored can be read, but whoever publishes gets no
// answer. Run waits until the volume has room and starts the server again, at
// the same address; clients connect again by themselves, and what was
// acknowledged is there. What it does it says in the log. It may be called once,
// and must have returned before Shutdown is called.
func (s *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(checkup)
	defer ticker.Stop()
	pause, revived := minPause, time.Time{}
	seen, said := "", "" // what was wrong at the last look, and what was said of it
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		wrong := s.complaint()
		if wrong == "" || wrong == s.ailing {
			seen, said = "", ""
			continue
		}
		// Twice in a row: a stream that is just being made or removed looks like
		// one that is broken.
		if wrong != seen {
			seen = wrong
			continue
		}
		if wrong != said {
			said = wrong
			s.say(slog.LevelError, "the store in %s takes nothing more (%s): what is released decides on, but nothing can be released; make room there, and it goes on by itself", s.config.StoreDir, wrong)
		}
		if time.Since(revived) > maxPause {
			pause = minPause
		}
		if time.Since(revived) < pause || !s.hasRoom() {
			continue
		}
		pause, revived = min(2*pause, maxPause), time.Now()
		if s.down = s.relaunch(ctx); s.down != nil {
			continue
		}
		seen, said = "", ""
		s.say(slog.LevelWarn, "the store in %s was started again, and takes releases", s.config.StoreDir)
	}
}

func (s *Server) relaunch(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halt()
	return s.launch(ctx)
}

// complaint returns what is wrong with the store, "" for nothing.
func (s *Server) complaint() string {
	if s.down != nil {
		return s.down.Error()
	}
	health := s.nats.Healthz(nil)
	if health.StatusCode == http.StatusInternalServerError {
		return "" // connections are not taken at this very moment, which is not the store's
	}
	return health.Error
}

// hasRoom reports whether the volume has room for more than the next few writes.
func (s *Server) hasRoom() bool {
	free, err := freeBytes(s.config.StoreDir)
	return err == nil && free >= min(enoughRoom, s.config.MaxBytes/16)
}

func (s *Server) say(level slog.Level, format string, args ...any) {
	if s.config.Log != nil {
		s.config.Log(level, fmt.Sprintf(format, args...))
	}
}
