package figures

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// machine says what the figures were measured on, as far as the system tells.
func machine() string {
	text := fmt.Sprintf("%s/%s, %s, %d processors", runtime.GOOS, runtime.GOARCH, runtime.Version(), runtime.GOMAXPROCS(0))
	if model := field("/proc/cpuinfo", "model name"); model != "" {
		text += " (" + model + ")"
	}
	if memory := field("/proc/meminfo", "MemTotal"); memory != "" {
		text += ", memory " + memory
	}
	// Who else is at work matters more than the model.
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		if one, _, ok := strings.Cut(string(load), " "); ok {
			text += ", load " + one
		}
	}
	return text + ", files in " + os.TempDir()
}

// field returns the value of the first "name : value" line of a file.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Progress is told how far a measurement is.
type Progress func(what string, done, of int)

// ProgressOn shows progress if f is a terminal.
func ProgressOn(f *os.File) Progress {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return func(string, int, int) {}
	}
	return func(what string, done, of int) {
		const eraseLine = "\r\x1b[K"
		text := fmt.Sprintf("%s: %d of %d", what, done, of)
		if done == of {
			text = ""
		}
		_, _ = f.WriteString(eraseLine + text) // a terminal that is gone reads nothing
	}
}
