package main

import (
	"errors"
	"syscall"
	"time"
)

// sleepUntil asks the kernel directly: Go's own timers are a millisecond late
// on an idle processor, which would hide what is measured.
func sleepUntil(t time.Time) {
	for wait := time.Until(t); wait > 0; wait = time.Until(t) {
		ts := syscall.NsecToTimespec(wait.Nanoseconds())
		if err := syscall.Nanosleep(&ts, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
