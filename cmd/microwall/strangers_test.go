package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestAnErrorDoesNothingToATerminal(t *testing.T) {
	var out, errs bytes.Buffer
	w := world{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
	if code := run(t.Context(), w, []string{"check", t.TempDir() + "/\x1b[2Jnowhere"}); code != exitError {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(errs.String(), "nowhere") || strings.ContainsRune(errs.String(), '\x1b') {
		t.Errorf("%q", errs.String())
	}
}
