package bundles

import (
	"maps"
	"slices"
	"strings"

	"github.com/microwall/microwall/policy"
)

// maxManifest bounds a manifest. It is small by nature.
const maxManifest = 1 << 20

// manifest is what is left of OPA's manifest when it says only what a
// namespace's bundle may say.
type manifest struct {
	revision  string
	roots     []string
	metadata  []byte // in its one spelling; nil if there is none
	namespace policy.Namespace
}

// newManifest returns the manifest of a folder that has none.
func newManifest() *manifest { return &manifest{roots: []string{""}} }

var (
	manifestFields  = []string{"file_rego_versions", "metadata", "rego_version", "revision", "roots", "wasm"}
	microwallFields = []string{"namespace"}
)

// parseManifest reads a manifest as authors write it.
func parseManifest(src []byte) (*manifest, error) {
	if len(src) > maxManifest {
		return nil, policy.Errorf(policy.Exhausted, ".manifest is %d bytes, the limit is %d; put data into data.json", len(src), maxManifest)
	}
	doc, err := parseJSON(manifestName, src)
	if err != nil {
		return nil, err
	}
	if !doc.split() {
		return nil, badManifest("is not a JSON object")
	}
	if err := checkNames(doc, "", manifestFields); err != nil {
		return nil, err
	}
	m := newManifest()
	if n, ok := doc.members["revision"]; ok {
		if m.revision, ok = n.string(); !ok {
			return nil, badManifest("revision is not a string")
		}
	}
	if n, ok := doc.members["roots"]; ok {
		if m.roots, err = parseRoots(n); err != nil {
			return nil, err
		}
	}
	if _, ok := doc.members["wasm"]; ok {
		return nil, badManifest("wasm is refused: a bundle's policy is its Rego; remove it and keep the *.rego files")
	}
	if n, ok := doc.members["rego_version"]; ok {
		if err := checkRegoVersion("rego_version", n); err != nil {
			return nil, err
		}
	}
	if n, ok := doc.members["file_rego_versions"]; ok {
		if !n.split() {
			return nil, badManifest("file_rego_versions is not an object")
		}
		for _, file := range slices.Sorted(maps.Keys(n.members)) {
			if err := checkRegoVersion("file_rego_versions of "+file, n.members[file]); err != nil {
				return nil, err
			}
		}
	}
	if n, ok := doc.members["metadata"]; ok {
		if err := m.setMetadata(n); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func badManifest(format string, args ...any) error {
	return policy.Errorf(policy.BadRequest, ".manifest: "+format, args...)
}

// checkNames refuses members that have none of the known names.
func checkNames(n *node, path string, known []string) error {
	for _, name := range slices.Sorted(maps.Keys(n.members)) {
		if slices.Contains(known, name) {
			continue
		}
		for _, k := range known {
			if strings.EqualFold(k, name) {
				return badManifest("unknown field %q; it is written %q", path+name, path+k)
			}
		}
		return badManifest("unknown field %q; known are %s; what is your own belongs under metadata", path+name, strings.Join(known, ", "))
	}
	return nil
}

func checkRegoVersion(field string, n *node) error {
	switch string(n.text) {
	case "1":
		return nil
	case "0":
		return badManifest("%s is 0: v0 is refused; rewrite the policy with \"opa fmt --v0-v1\" and say 1", field)
	}
	return badManifest("%s must be 1; a module that is written in a later version says so itself, for instance \"import rego.v2\"", field)
}

// parseRoots reads the paths that a bundle owns in OPA. Microwall gives every
// bundle the whole of its data, so they are carried for OPA's tools, which
// refuse roots that overlap.
func parseRoots(n *node) ([]string, error) {
	if n.text[0] != '[' || len(n.parts()) == 0 {
		return nil, badManifest("roots must be a list of paths; leave it away for the default, [\"\"]")
	}
	var roots []string
	for _, item := range n.parts() {
		root, ok := item.string()
		if !ok {
			return nil, badManifest("roots must be a list of paths, each a string")
		}
		roots = append(roots, strings.Trim(root, "/"))
	}
	// Where every root is compared with the one before, path element by path
	// element, an ancestor stands right before what it contains.
	slices.SortFunc(roots, func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
	for i := range roots[1:] {
		if a, b := roots[i], roots[i+1]; a == "" || a == b || strings.HasPrefix(b, a+"/") {
			return nil, badManifest("roots %q and %q overlap; keep the first", a, b)
		}
	}
	return roots, nil
}

func (m *manifest) setMetadata(n *node) error {
	m.metadata = n.text
	if !n.split() {
		return badManifest("metadata is not an object")
	}
	if len(n.members) == 0 {
		m.metadata = nil
	}
	own, ok := n.members["microwall"]
	if !ok {
		for name := range n.members {
			if strings.EqualFold(name, "microwall") {
				return badManifest("unknown field %q; it is written \"metadata.microwall\"", "metadata."+name)
			}
		}
		return nil
	}
	if !own.split() {
		return badManifest("metadata.microwall is not an object")
	}
	if err := checkNames(own, "metadata.microwall.", microwallFields); err != nil {
		return err
	}
	named, ok := own.members["namespace"]
	if !ok {
		return nil
	}
	s, ok := named.string()
	if !ok {
		return badManifest("metadata.microwall.namespace is not a string")
	}
	ns, err := policy.ParseNamespace(s)
	if err != nil {
		return badManifest("metadata.microwall.namespace: %w", err)
	}
	m.namespace = ns
	return nil
}

// encode returns the manifest in its one spelling.
func (m *manifest) encode() []byte {
	text := []byte("{")
	if m.metadata != nil {
		text = append(append(text, `"metadata":`...), m.metadata...)
		text = append(text, ',')
	}
	text = append(text, `"rego_version":1,"revision":`...)
	text = appendString(text, m.revision)
	text = append(text, `,"roots":[`...)
	for i, root := range m.roots {
		if i > 0 {
			text = append(text, ',')
		}
		text = appendString(text, root)
	}
	return append(text, "]}"...)
}
