package docs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/microwall/microwall/internal/decisions"
)

const aboutPolicies = "docs/policy.md"

// The files of the page are saved, its commands typed.
func TestThePageOnPoliciesIsRight(t *testing.T) {
	dir := t.TempDir()
	typed := 0
	for _, b := range readBlocks(t, aboutPolicies) {
		switch {
		case b.lang == "text":
			typed++
			cmd := exec.Command(microwall(t), strings.Fields(b.info)[1:]...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != b.text {
				t.Errorf("%s: %s ends with %v and says\n%sbut the page says\n%s", b, b.info, err, out, b.text)
			}
		case b.info != "input":
			write(t, filepath.Join(dir, filepath.FromSlash(b.info)), b.text)
		}
	}
	if typed == 0 {
		t.Error("no command was typed; does this test still read the page?")
	}
}

// The input of the page is all that rules see, of the request that is in it.
func TestTheInputOnThePageIsWhatRulesSee(t *testing.T) {
	input := onlyText(t, readBlocks(t, aboutPolicies), "json", "input")
	var request map[string]any
	if err := json.Unmarshal([]byte(input), &request); err != nil {
		t.Fatal(err)
	}
	delete(request, "time")
	asked, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "authz.rego"), "package authz\nallow if input == wanted\nwanted := "+input)
	cmd := exec.Command(microwall(t), "explain", dir, "--namespace", "boutique.payment", "--time", decisions.DefaultTime().Format("2006-01-02T15:04:05Z07:00"))
	cmd.Stdin = strings.NewReader(string(asked))
	cmd.Env = os.Environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
