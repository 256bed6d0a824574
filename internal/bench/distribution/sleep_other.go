//go:build !linux

package main

import "time"

// sleepUntil may be a millisecond late.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
