package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
)

// workflow is as much of a GitHub Actions file as is run here.
type workflow struct {
	Jobs map[string]struct {
		Steps []struct {
			Run string            `yaml:"run"`
			Env map[string]string `yaml:"env"`
		} `yaml:"steps"`
	} `yaml:"jobs"`
}

var secret = regexp.MustCompile(`\$\{\{ secrets\.(\w+) \}\}`)

// The workflow in the README checks, tests and pushes, with its key and its
// certificate from secrets, to a PDP that speaks TLS only and asks everybody
// for a certificate.
func TestTheWorkflowInTheReadmePushes(t *testing.T) {
	const file = ".github/workflows/cart-policy.yaml"
	blocks := readBlocks(t, "README.md")
	var flow workflow
	if err := yaml.Unmarshal([]byte(onlyText(t, blocks, "yaml", file)), &flow); err != nil {
		t.Fatal(err)
	}
	w := newWalk(t)

	// A team's repository, and a domain that trusts the team's key.
	for _, b := range blocks {
		if strings.HasPrefix(b.info, "policies/cart/") {
			write(t, filepath.Join(w.dir, b.info), b.text)
		}
	}
	private, public, err := bundles.GenerateKey("cart-ci")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.dir, "trust.yaml"), "domain: boutique\nversion: 1\nepoch: 1\nkeys:\n  cart-ci: "+public+"\nnamespaces:\n  boutique.cart: {signers: [cart-ci]}\n")
	ca := tlstest.NewCA(t)
	serverCert, serverKey := ca.Issue(t, "pdp")
	clientCert, clientKey := ca.Issue(t, "cart-ci")
	contents := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	secrets := map[string]string{
		"CART_CI_KEY": private, "PDP_CLIENT_CERT": contents(clientCert), "PDP_CLIENT_CERT_KEY": contents(clientKey),
	}
	write(t, filepath.Join(w.dir, "ci", "pdp-ca.crt"), contents(ca.File))
	w.start(block{text: "microwall serve --trust trust.yaml --tls-cert " + serverCert + " --tls-key " + serverKey + " --client-ca " + ca.File})

	runner := []string{"GITHUB_SHA=3f2c9e1", "GITHUB_ACTOR=ann", "RUNNER_TEMP=" + t.TempDir()}
	ran := 0
	for _, job := range []string{"test", "release"} {
		for _, step := range flow.Jobs[job].Steps {
			if step.Run == "" || strings.HasPrefix(step.Run, "go install ") {
				continue
			}
			env := slices.Clone(runner)
			for name, value := range step.Env {
				value = secret.ReplaceAllStringFunc(value, func(s string) string {
					value, ok := secrets[secret.FindStringSubmatch(s)[1]]
					if !ok {
						t.Errorf("%s uses %s, which the text does not speak of", file, s)
					}
					return value
				})
				env = append(env, name+"="+value)
			}
			ran++
			if out, code := w.run(exec.CommandContext(t.Context(), "bash", "-ec", step.Run), env...); code != 0 {
				t.Fatalf("%s, job %s: exit code %d after\n%s\n%s", file, job, code, step.Run, out)
			}
		}
	}
	if ran != 3 {
		t.Errorf("%d steps of the workflow were run, there are check, test and push", ran)
	}
	w.shell(block{text: "microwall history boutique.cart --trust trust.yaml --ca ci/pdp-ca.crt --cert " + clientCert + " --cert-key " + clientKey},
		block{text: "EPOCH  REVISION  CREATED               AUTHOR  SOURCE   SIGNED BY  BUNDLE\n" +
			"1      1         2026-11-23T03:02:40Z  ann     3f2c9e1  cart-ci    sha256:1a67293cf292"})
}
