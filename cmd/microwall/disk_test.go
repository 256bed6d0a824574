//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/testkit"
)

func TestADiskThatIsFullUnderLoadLosesNothingAndTakesNobodyBack(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs a PDP and a client for a while")
	}
	volume := t.TempDir()
	t.Cleanup(mountSmall(t, volume, "48m"))
	l := newLoad(t, testkit.NewDomain(t))
	args, thief := insider(t)
	p := l.pdp("pdp", filepath.Join(volume, "data"), args...)
	l.begin()
	l.client("client", p.server.NATS)
	l.run()
	l.attack(p.server.NATS, thief)
	l.converge(t, "from the start on", time.Now())

	for range 2 {
		full := filepath.Join(volume, "full")
		// It ends with an error when there is no more room, which is the aim.
		_ = exec.CommandContext(t.Context(), "dd", "if=/dev/zero", "of="+full, "bs=4k").Run()
		_, err := p.server.waitFor(`"level":"ERROR","msg":"NATS server: the store in .* takes nothing more`)
		must(t, err)
		must(t, os.Remove(full))
		room := time.Now()
		_, err = p.server.waitFor(`"msg":"NATS server: the store in .* was started again`)
		must(t, err)
		l.converge(t, "once there is room", room)
		l.check(t)
	}
}
