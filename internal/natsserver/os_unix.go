//go:build linux || darwin || freebsd

package natsserver

import (
	"os"

	"golang.org/x/sys/unix"
)

// tryLock takes the file for this process without waiting.
func tryLock(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// freeBytes is what the volume of dir has free for this user.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	//nolint:gosec,unconvert // the fields' types differ between systems; no volume has 2^63 bytes
	return int64(st.Bavail) * int64(st.Bsize), nil
}
