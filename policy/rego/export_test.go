package rego

import (
	"testing"
	"time"
)

// SetCompileTime lets a test have less time to compile.
func SetCompileTime(t *testing.T, d time.Duration) {
	before := compileTime
	compileTime = d
	t.Cleanup(func() { compileTime = before })
}
