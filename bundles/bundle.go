package bundles

import (
	"bytes"
	"slices"
	"strings"

	"github.com/microwall/microwall/policy"
)

// Module is one *.rego file.
type Module struct {
	// Path inside the bundle, for instance "authz.rego" or "lib/roles.rego".
	Path string
	// Source as the author wrote it. It must not be changed.
	Source []byte
}

// Bundle is the policy and data of one namespace. It is immutable, and made by
// [Read], [Parse] and [Signed.Unpack] only. What its methods return belongs to
// it and must not be changed.
type Bundle struct {
	tar       []byte
	digest    policy.Digest
	namespace policy.Namespace
	data      []byte
	modules   []Module
	tests     []Module
}

// Namespace returns what the manifest names as metadata.microwall.namespace,
// "" if it names none. It is the author's word only: what counts is the
// namespace of the release.
func (b *Bundle) Namespace() policy.Namespace { return b.namespace }

// Modules returns the modules that decide, sorted by path. There is at least
// one.
func (b *Bundle) Modules() []Module { return slices.Clone(b.modules) }

// Tests returns the modules whose path ends with "_test.rego", sorted by path.
func (b *Bundle) Tests() []Module { return slices.Clone(b.tests) }

// Data returns the data document, a JSON object in its one spelling; "{}" if
// the author has none.
func (b *Bundle) Data() []byte { return b.data }

// Tar returns the one tar that has this content.
func (b *Bundle) Tar() []byte { return b.tar }

// Digest returns the SHA-256 sum of [Bundle.Tar]: the bundle's identity.
func (b *Bundle) Digest() policy.Digest { return b.digest }

// Parse reads a tar that [Bundle.Tar] returned. Any other tar, even one with
// the same content, is a BadRequest error, so that encoding what Parse accepts
// gives the same bytes. The bundle keeps tar, which must not be changed after.
func Parse(tar []byte) (*Bundle, error) {
	files, err := decodeTar(tar)
	if err != nil {
		return nil, err
	}
	if len(files) < 2 || files[0].path != manifestName || files[1].path != dataName {
		return nil, badTar("it does not begin with %s and %s", manifestName, dataName)
	}
	m, err := parseManifest(files[0].content)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(m.encode(), files[0].content) {
		return nil, badTar("its %s is not in its one spelling", manifestName)
	}
	b := &Bundle{tar: tar, namespace: m.namespace, data: files[1].content}
	if err := checkCanonical(dataName, b.data); err != nil {
		return nil, err
	}
	previous := ""
	for _, f := range files[2:] {
		if err := checkPath(f.path); err != nil {
			return nil, err
		}
		if f.path <= previous {
			return nil, badTar("entry %.300q is there twice or out of order", f.path)
		}
		previous = f.path
		if m := (Module{f.path, f.content}); strings.HasSuffix(f.path, testSuffix) {
			b.tests = append(b.tests, m)
		} else {
			b.modules = append(b.modules, m)
		}
	}
	if len(b.modules) == 0 {
		return nil, policy.Errorf(policy.BadRequest, "the bundle has no policy; put at least one *.rego file into it that is no test")
	}
	b.digest = policy.DigestOf(tar)
	return b, nil
}
