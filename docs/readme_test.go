package docs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// Sections of the README that a newcomer follows, in one folder, from its
// first line to its last.
var followed = []string{"Your first policy", "Release it", "Ask from Go", "Ask with grpcurl", "Decide inside your service", "Who may use NATS"}

// The README is a script. Its files are saved, its commands typed, its servers
// started and stopped, as it says; what it says comes out must come out.
func TestANewcomerFollowsTheReadme(t *testing.T) {
	w := newWalk(t)
	blocks := readBlocks(t, "README.md")
	for _, section := range followed {
		steps := 0
		for i, b := range blocks {
			if b.section != section {
				continue
			}
			steps++
			var answer block // what comes out, if the next block says so
			if i+1 < len(blocks) && blocks[i+1].section == section && (blocks[i+1].lang == "text" || blocks[i+1].lang == "json" && blocks[i+1].info == "") {
				answer = blocks[i+1]
			}
			w.follow(b, answer)
		}
		if steps == 0 {
			t.Fatalf("README.md has nothing to follow under %q", section)
		}
	}
}

// walk is a newcomer at work: a folder, a terminal, and at most one server.
type walk struct {
	t      *testing.T
	dir    string
	env    []string
	server *server
	went   []string // the commands so far, for messages
}

func newWalk(t *testing.T) *walk {
	if runtime.GOOS == "windows" {
		t.Skip("the README is for a POSIX shell")
	}
	path := filepath.Dir(microwall(t)) + string(filepath.ListSeparator) + os.Getenv("PATH")
	w := &walk{t: t, dir: t.TempDir(), env: append(os.Environ(), "PATH="+path)}
	t.Cleanup(w.stop)
	return w
}

// follow does what a block says.
func (w *walk) follow(b, answer block) {
	w.t.Helper()
	switch {
	case b.lang == "sh" && strings.HasPrefix(b.text, "microwall serve"):
		w.stop()
		w.start(b)
	case b.lang == "sh" && strings.HasPrefix(b.text, "grpcurl "):
		w.grpcurl(b, answer)
	case b.lang == "sh" && strings.HasPrefix(b.text, "go run "):
		w.goRun(b, answer)
	case b.lang == "sh":
		w.shell(b, answer)
	case b.info != "" && !strings.HasPrefix(b.info, "exit="):
		write(w.t, filepath.Join(w.dir, filepath.FromSlash(b.info)), b.text)
		if w.server != nil && strings.HasSuffix(b.info, ".rego") {
			w.server.await(w.t, "activated") // by --watch
		}
	}
}

// shell runs a block's commands and compares what they print.
func (w *walk) shell(b, answer block) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "sh", "-ec", w.here(b.text))
	out, code := w.run(cmd)
	w.compare(b, answer, out, code)
	// The one thing that the README leaves to the reader's editor.
	if strings.HasPrefix(b.text, "microwall keygen ") {
		lines := regexp.MustCompile(`(?s)\ndomain: .*?signers: [^\n]*\n`).FindString(out)
		if n := strings.Count(strings.TrimSpace(lines), "\n") + 1; n != 8 {
			w.t.Fatalf("%s: keygen prints %d lines for the trust file, the text speaks of eight:\n%s", b, n, lines)
		}
		write(w.t, filepath.Join(w.dir, ".microwall", "trust.yaml"), lines)
	}
}

// goRun builds a program that the README shows, with this module as it is, and
// runs it.
func (w *walk) goRun(b, answer block) {
	w.t.Helper()
	name := strings.TrimSpace(strings.TrimPrefix(b.text, "go run "))
	source, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	program := filepath.Join(w.t.TempDir(), "program")
	write(w.t, program+".go", w.here(string(source)))
	if err := build(program, program+".go"); err != nil {
		w.t.Fatalf("%s: %v", b, err)
	}
	out, code := w.run(exec.CommandContext(w.t.Context(), program))
	w.compare(b, answer, out, code)
}

var grpcurlCall = regexp.MustCompile(`(?s)^grpcurl -plaintext -d '([^']*)' (\S+) ([\w.]+)/(\w+)\n$`)

// grpcurl makes the call that the command would make: the JSON becomes the
// method's request, and its response JSON.
func (w *walk) grpcurl(b, answer block) {
	w.t.Helper()
	m := grpcurlCall.FindStringSubmatch(b.text)
	if m == nil {
		w.t.Fatalf("%s: this is not a command that this test can read: %s", b, b.text)
	}
	var request microwallv1.AuthorizeRequest
	if err := protojson.Unmarshal([]byte(m[1]), &request); err != nil {
		w.t.Fatalf("%s: %v", b, err)
	}
	conn, err := grpc.NewClient(w.here(m[2]), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	var response microwallv1.AuthorizeResponse
	if err := conn.Invoke(w.t.Context(), "/"+m[3]+"/"+m[4], &request, &response); err != nil {
		w.t.Fatalf("%s: %v", b, err)
	}
	got, err := protojson.Marshal(&response)
	if err != nil {
		w.t.Fatal(err)
	}
	if answer.lang != "json" || !sameJSON(got, []byte(answer.text)) {
		w.t.Errorf("%s: the answer is\n%s\nbut the README says\n%s", b, got, answer.text)
	}
}

// here puts the server's real addresses in the place of the default ones,
// which somebody else may use.
func (w *walk) here(text string) string {
	if w.server == nil {
		return text
	}
	return strings.NewReplacer("127.0.0.1:7070", w.server.grpc, "nats://127.0.0.1:4222", w.server.nats).Replace(text)
}

func (w *walk) run(cmd *exec.Cmd, env ...string) (out string, code int) {
	w.t.Helper()
	cmd.Dir, cmd.Env = w.dir, slices.Concat(w.env, env)
	if w.server != nil {
		cmd.Env = append(cmd.Env, "MICROWALL_SERVER="+w.server.grpc) // the last one counts
	}
	w.went = append(w.went, strings.Join(cmd.Args, " "))
	printed, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return string(printed), exit.ExitCode()
	case err != nil:
		w.t.Fatalf("%s: %v", cmd, err)
	}
	return string(printed), 0
}

func (w *walk) compare(b, answer block, out string, code int) {
	w.t.Helper()
	want := 0
	if strings.HasPrefix(answer.info, "exit=") {
		if _, err := fmt.Sscanf(answer.info, "exit=%d", &want); err != nil {
			w.t.Fatalf("%s: %v", answer, err)
		}
	}
	if code != want {
		w.t.Fatalf("%s: exit code %d, want %d, after\n%s\n%s", b, code, want, strings.Join(w.went, "\n"), out)
	}
	if got, want := normal(out), normal(answer.text); got != want {
		w.t.Errorf("%s: the commands print\n%s\nbut the README says\n%s", b, got, want)
	}
}

// server is a `microwall serve` that runs.
type server struct {
	cmd        *exec.Cmd
	lines      chan map[string]any // its log
	grpc, nats string
}

// start runs a block's server on ports that are free, and waits until it is
// ready.
func (w *walk) start(b block) {
	w.t.Helper()
	args := strings.Fields(strings.ReplaceAll(b.text, "\\\n", " "))
	args = append(args, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--log-format", "json")
	if !strings.Contains(b.text, "--dir") {
		args = append(args, "--nats-addr", "127.0.0.1:0")
	}
	s := &server{cmd: exec.Command(microwall(w.t), args[1:]...), lines: make(chan map[string]any, 1000)}
	s.cmd.Dir, s.cmd.Env = w.dir, w.env
	log, err := s.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.server = s
	go func() { // ends with the process
		defer close(s.lines)
		for d := json.NewDecoder(log); ; {
			var line map[string]any
			if d.Decode(&line) != nil {
				return
			}
			s.lines <- line
		}
	}()
	ready := s.await(w.t, "ready")
	s.grpc, _ = ready["grpc"].(string)
	s.nats, _ = ready["nats"].(string)
}

// await waits for the next line of the log with this message.
func (s *server) await(t testing.TB, message string) map[string]any {
	t.Helper()
	var seen bytes.Buffer
	deadline := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				t.Fatalf("the server ended before it said %q:\n%s", message, &seen)
			}
			fmt.Fprintln(&seen, line)
			if line["msg"] == message {
				return line
			}
		case <-deadline:
			t.Fatalf("the server never said %q:\n%s", message, &seen)
		}
	}
}

// stop ends the server as Ctrl-C does.
func (w *walk) stop() {
	if w.server == nil {
		return
	}
	s := w.server
	w.server = nil
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		w.t.Errorf("stop the server: %v", err)
	}
	for range s.lines { // Wait must not be called before the log is read
	}
	if err := s.cmd.Wait(); err != nil {
		w.t.Errorf("the server ended with %v", err)
	}
}

// The programs that the README shows are the examples of the packages, so that
// they are on pkg.go.dev, and the compiler reads them with every build.
func TestTheProgramsInTheReadmeAreThePackagesExamples(t *testing.T) {
	blocks := readBlocks(t, "README.md")
	for name, example := range map[string]string{
		"ask.go":   "clients/remote/example_test.go",
		"embed.go": "clients/embedded/example_test.go",
		"wire.go":  "clients/enforce/example_test.go",
	} {
		program := read(t, example)
		program = regexp.MustCompile(`(?m)^package \w+_test$`).ReplaceAllString(program, "package main")
		program = strings.Replace(program, "\nfunc Example() {", "\nfunc main() {", 1)
		if got := onlyText(t, blocks, "go", name); got != program {
			t.Errorf("%s in README.md is not %s; it must be\n%s", name, example, program)
		}
	}
}

func TestTheTrustFileInTheReadmeSaysWhatTheTextSays(t *testing.T) {
	trust, err := bundles.ParseTrust([]byte(onlyText(t, readBlocks(t, "README.md"), "yaml", "trust.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(trust.Guardrails("boutique.cart")); got != "[boutique]" {
		t.Errorf("guardrails of boutique.cart: %s", got)
	}
	for namespace, want := range map[policy.Namespace]string{
		"boutique.cart":   "[cart-ci]",
		"boutique.cart.x": "[cart-ci]",  // its nearest listed ancestor's
		"boutique.email":  "[platform]", // likewise
	} {
		names, threshold := trust.Signers(namespace)
		if got := fmt.Sprint(names); got != want || threshold != 1 {
			t.Errorf("%s is signed by %d of %s, want 1 of %s", namespace, threshold, got, want)
		}
	}
}
