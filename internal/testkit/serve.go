package testkit

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"

	"google.golang.org/grpc"
)

// Listen returns a listener on loopback, which whoever serves on it closes.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Serve has a server serve on a listener until the test ends, or until stop is called,
// which waits for it. It may be called twice.
func Serve(t testing.TB, l net.Listener, server interface{ Serve(net.Listener) error }, end func()) (stop func()) {
	t.Helper()
	var work sync.WaitGroup
	work.Go(func() {
		if err := server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	stop = func() {
		end()
		work.Wait()
	}
	t.Cleanup(stop)
	return stop
}
