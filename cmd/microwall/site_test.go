package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

const (
	neverForbidden = `deny contains "never" if input.action.name == "Forbidden"`
	allowsGet      = `allow if input.action.name == "Get"`
	allowsPut      = `allow if input.action.name == "Put"`
)

// site is a domain with a server that runs, and an author at a command line.
type site struct {
	*testkit.Domain
	*serving
	t    testing.TB
	dir  string
	conn *grpc.ClientConn
}

func newSite(t testing.TB, args ...string) *site {
	t.Helper()
	s := &site{t: t, Domain: testkit.NewDomain(t), dir: t.TempDir()}
	var err error
	s.serving, err = startServing(s.dir, append([]string{"--trust", s.TrustFile}, args...)...)
	if err == nil {
		t.Cleanup(s.kill)
		_, err = s.waitFor(`"msg":"ready"`)
	}
	s.must(err)
	s.conn = s.dial(s.GRPC)
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) dial(addr string) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	s.must(err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// run runs a command line that talks to the server, with a key in MICROWALL_KEY.
func (s *site) run(key, stdin string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	env := map[string]string{"MICROWALL_SERVER": s.GRPC, "MICROWALL_TRUST": s.TrustFile, "MICROWALL_KEY": s.Private(key)}
	var out, errs bytes.Buffer
	code = run(s.t.Context(), world{stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs, getenv: func(name string) string { return env[name] }}, args)
	return out.String(), errs.String(), code
}

// expect runs a command line that has to end with a code and to say something.
func (s *site) expect(key string, wantCode int, says string, args ...string) {
	s.t.Helper()
	stdout, stderr, code := s.run(key, "", args...)
	if code != wantCode || !strings.Contains(stdout+stderr, says) {
		s.t.Errorf("%v ends with %d, not %d with %q:\n%s%s", args, code, wantCode, says, stdout, stderr)
	}
}

// folder makes a folder with a policy of one module.
func (s *site) folder(n policy.Namespace, module string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	s.must(os.WriteFile(filepath.Join(dir, ".manifest"), fmt.Appendf(nil, `{"metadata": {"microwall": {"namespace": %q}}}`, n), 0o600))
	s.must(os.WriteFile(filepath.Join(dir, "authz.rego"), []byte("package authz\n"+module), 0o600))
	return dir
}

// push releases a policy of one module.
func (s *site) push(key string, n policy.Namespace, module, want string) {
	s.t.Helper()
	s.expect(key, exitYes, want, "push", s.folder(n, module))
}

// decides asks the server, which has to answer with a code: allowed or denied.
func (s *site) decides(action string, wantCode int) {
	s.t.Helper()
	s.expect("cart", wantCode, "by shop.cart revision ", "authorize", "--namespace", "shop.cart", "--subject", "workload:x", "--resource", "grpc:Cart", "--action", action)
}

// head is the release of a namespace that the server has for the newest.
func (s *site) head(n policy.Namespace) *bundles.Signed {
	s.t.Helper()
	answer, err := microwallv1.NewPolicyServiceClient(s.conn).GetRelease(s.t.Context(), &microwallv1.GetReleaseRequest{Namespace: string(n)})
	s.must(err)
	signed, err := s.Trust().Open(answer.GetRelease())
	s.must(err)
	return signed
}

// get fetches a page of the server.
func (s *site) get(path string) (code int, body string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.HTTP+path, nil)
	s.must(err)
	answer, err := http.DefaultClient.Do(request)
	s.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	s.must(err)
	return answer.StatusCode, string(text)
}
