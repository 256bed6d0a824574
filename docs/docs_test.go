// Package docs_test holds the documentation against the program: what a reader
// is told to type is typed, what the documentation says comes out comes out,
// and what it names exists.
//
// It reads Markdown. The info string of a fenced block begins with the block's
// language, which is all that a reader ever sees of it; the rest is for the
// tests: the name of the file that the block is the content of, or how a
// command ends ("exit=1").
package docs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// root is the repository, seen from this package's folder.
const root = ".."

// block is a fenced block of a Markdown file.
type block struct {
	file string
	line int // where its content begins, from 1
	// section is the heading that it stands under.
	section string
	// lang is the first word of its info string, info the rest.
	lang, info string
	text       string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

// readBlocks returns the fenced blocks of a file of the repository. It fails
// the test if one is not closed, or is indented, which these tests do not read.
func readBlocks(t testing.TB, file string) []block {
	t.Helper()
	var all []block
	var open *block
	section := ""
	for i, line := range strings.Split(read(t, file), "\n") {
		switch {
		case strings.HasPrefix(line, "```") && open == nil:
			lang, info, _ := strings.Cut(strings.TrimPrefix(line, "```"), " ")
			open = &block{file: file, line: i + 2, section: section, lang: lang, info: info}
		case line == "```":
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			t.Fatalf("%s:%d: a fenced block is indented; begin it at the left", file, i+1)
		case strings.HasPrefix(line, "#"):
			section = strings.TrimLeft(line, "# ")
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: a fenced block is not closed", file, open.line)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no fenced blocks", file)
	}
	return all
}

func read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	// By a rename, so that whoever watches the file never reads half of it.
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// temp is a folder for what is built once for all tests.
var temp string

func TestMain(m *testing.M) {
	var err error
	if temp, err = os.MkdirTemp("", "microwall-docs-"); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := os.RemoveAll(temp); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// microwall returns the path of the command, which is built once.
func microwall(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(temp, "microwall")
	return path, build(path, "./cmd/microwall")
})

// build builds a program inside this module: a package, or a file that may lie
// elsewhere.
func build(to, what string) error {
	cmd := exec.Command("go", "build", "-o", to, what)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// The documents that show commands.
var documents = []string{"README.md", "ARCHITECTURE.md", "docs/from-opa.md", aboutPolicies, "examples/boutique/README.md"}

// Every command that a document shows, in a fenced block or in a line of text,
// is one that there is, with flags that it has.
func TestEveryCommandThatIsShownExists(t *testing.T) {
	path := microwall(t)
	help := map[string]string{}
	shown := 0
	for _, file := range documents {
		for _, line := range shownCommands(t, file) {
			sub, flags, ok := parseCommand(line)
			if !ok {
				continue
			}
			shown++
			if _, ok := help[sub]; !ok {
				out, err := exec.Command(path, append(strings.Fields(sub), "--help")...).CombinedOutput()
				if err != nil {
					t.Errorf("%s shows %q: %v\n%s", file, line, err, out)
				}
				help[sub] = string(out)
			}
			// cobra answers --help of an unknown command with the root's.
			if sub != "" && !strings.Contains(help[sub], "microwall "+sub) {
				t.Errorf("%s shows %q, but there is no command %s", file, line, sub)
			}
			for _, flag := range flags {
				if !regexp.MustCompile(`(?m)^\s+(-\w, )?` + flag + `\b|^\s+` + flag + `, `).MatchString(help[sub]) {
					t.Errorf("%s shows %q, but microwall %s has no flag %s", file, line, sub, flag)
				}
			}
		}
	}
	if shown < 20 {
		t.Errorf("only %d commands were found in %v; does this test still read them?", shown, documents)
	}
}

var codeSpan = regexp.MustCompile("`([^`\n]+)`")

// shownCommands returns the lines of a document that could be commands.
func shownCommands(t testing.TB, file string) []string {
	t.Helper()
	var lines []string
	fenced := false
	for line := range strings.Lines(strings.ReplaceAll(read(t, file), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case fenced:
			lines = append(lines, strings.TrimPrefix(line, "- run: "))
		default:
			for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
				lines = append(lines, m[1])
			}
		}
	}
	return lines
}

// parseCommand takes a line apart: which command of microwall it is, and the
// flags that it passes.
func parseCommand(line string) (sub string, flags []string, ok bool) {
	words := strings.Fields(line)
	switch {
	case len(words) > 0 && words[0] == "microwall":
		words = words[1:]
	case len(words) > 2 && words[0] == "go" && words[1] == "run" && words[2] == "./cmd/microwall":
		words = words[3:]
	default:
		return "", nil, false
	}
	for i, word := range words {
		if strings.HasPrefix(word, "#") {
			words = words[:i]
			break
		}
	}
	// A command of a group has two words.
	name := regexp.MustCompile(`^[a-z][a-z-]*$`)
	for len(words) > 0 && name.MatchString(words[0]) && (sub == "" || sub == "trust") {
		sub, words = strings.TrimSpace(sub+" "+words[0]), words[1:]
	}
	for _, word := range words {
		name, _, _ := strings.Cut(word, "=")
		if regexp.MustCompile(`^--?[a-z]`).MatchString(name) {
			flags = append(flags, name)
		}
	}
	return sub, flags, true
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

func TestEveryLinkInsideTheRepositoryLeadsSomewhere(t *testing.T) {
	for _, file := range documents {
		for _, m := range link.FindAllStringSubmatch(read(t, file), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", file, m[1], err)
			}
		}
	}
}

// varying are the parts of an output that differ from run to run. The digest of
// a bundle does not: it is that of the files.
var varying = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`"engine":"[^"]*","inputTime":"\d+"`), `"engine":"ENGINE","inputTime":"SECONDS"`},
	{regexp.MustCompile(`(release |revision [1-9]\d* \(epoch \d+\) |"digest":")sha256:[0-9a-f]{64}`), "${1}sha256:DIGEST"},
	{regexp.MustCompile(`mw1\.[A-Za-z0-9_-]{40,}`), "TOKEN"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "TIME"},
	{regexp.MustCompile(`\+[0-9a-f]{8}\+[A-Za-z0-9+/]{40,}=*`), "+KEY"},
}

func normal(text string) string {
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.instead)
	}
	return strings.TrimSpace(text)
}

// sameJSON reports whether two texts are the same JSON but for what varies.
func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, _ := json.Marshal(x) // what was JSON is JSON
	q, _ := json.Marshal(y)
	return bytes.Equal([]byte(normal(string(p))), []byte(normal(string(q))))
}

// onlyText returns the text of the one block with this info string.
func onlyText(t testing.TB, blocks []block, lang, info string) string {
	t.Helper()
	i := slices.IndexFunc(blocks, func(b block) bool { return b.lang == lang && b.info == info })
	if i < 0 {
		t.Fatalf("there is no block ```%s %s", lang, info)
	}
	return blocks[i].text
}
