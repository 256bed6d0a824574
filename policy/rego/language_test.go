package rego

import (
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/version"
)

// The list is OPA's language less what has a hint, and nothing else: a new OPA
// must be looked at, built-in by built-in, before its language is taken over.
func TestTheLanguageIsTheList(t *testing.T) {
	if "v"+version.Version != opaVersion {
		t.Fatalf("linked OPA is v%s, the language is that of %s: look through what is new, then change both", version.Version, opaVersion)
	}
	caps, err := ast.LoadCapabilitiesVersion(opaVersion)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, b := range caps.Builtins {
		if b.Nondeterministic && hints[b.Name] == "" {
			t.Errorf("%s is nondeterministic and has no hint", b.Name)
		}
		if hints[b.Name] == "" {
			want = append(want, b.Name)
		}
	}
	slices.Sort(want)
	if got := strings.Fields(languageList); !slices.Equal(got, want) {
		t.Errorf("language.txt differs from OPA's built-ins without those that have a hint:\n got %q\nwant %q", got, want)
	}
}

func TestWhatTheHostRegistersAddsNothing(t *testing.T) {
	ast.RegisterBuiltin(&ast.Builtin{Name: "host.secret", Decl: ast.BuiltinMap["upper"].Decl})
	_, err := compile(t.Context(), Source{Modules: []Module{{Path: "a.rego", Source: []byte("package authz\nallow if host.secret(\"x\") == \"x\"")}}}, false)
	if err == nil || !strings.Contains(err.Error(), "undefined function host.secret") {
		t.Errorf("got %v", err)
	}
}
