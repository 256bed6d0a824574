package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever a test is called and prints, the report is XML, and no name makes an
// element of its own.
func TestAReportIsWellFormedWhateverTestsAreCalled(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		".manifest":  `{"metadata": {"microwall": {"namespace": "shop"}}}`,
		"authz.rego": "package authz\n\nallow := false\n",
		"authz_test.rego": `package authz_test

test_x[name] if {
	some name in ["<a>&\"'", "]]>", "\u0000\u001b[31m", "\u263a", "<failure/>", "\ufffe"]
	print("]]><evil/>\u0007", name)
	name == "]]>"
}
`,
		"decisions.yaml": `decisions:
  - name: "</testcase><testcase name='x'>"
    request: {subject: {type: a, id: b}, action: {name: c}, resource: {type: d, id: "\u0001"}}
    want: {allowed: true}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, code := runCommand(t, "test", dir, "--format", "junit")
	if code != exitNo {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	elements := map[string]int{}
	for d := xml.NewDecoder(strings.NewReader(stdout)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, stdout)
		}
		if start, ok := token.(xml.StartElement); ok {
			elements[start.Name.Local]++
		}
	}
	if elements["testsuites"] != 1 || elements["testsuite"] != 2 || elements["testcase"] != 7 || elements["failure"] != 6 || elements["evil"] != 0 {
		t.Errorf("elements %v in\n%s", elements, stdout)
	}
}
