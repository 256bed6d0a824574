package bundles

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/microwall/microwall/policy"
)

// Read makes a bundle of a folder as authors have it, for instance
// os.DirFS("policies/cart"): .manifest, *.rego and data.json, the last two at
// any depth. Every data.json lands in the data document at the path of its
// folder; objects are merged, and two files that give a value to one path are
// an error. The same content gives the same bundle, whatever the order and the
// times of the files.
//
// Other files are ignored, and so is everything hidden but the manifest. What
// OPA would take as part of the policy and Microwall does not (patch.json,
// *.wasm, plan.json, YAML data), links, and names in another case are refused,
// as BadRequest errors that name the file; more than 512 MiB is Exhausted.
func Read(fsys fs.FS) (*Bundle, error) {
	f := folder{
		fsys:     fsys,
		left:     Limits{}.WithDefaults().Unpacked,
		manifest: newManifest(),
		modules:  map[string][]byte{},
	}
	if err := fs.WalkDir(fsys, ".", f.visit); err != nil {
		return nil, err
	}
	if len(f.modules) == 0 {
		return nil, policy.Errorf(policy.BadRequest, "the folder has no *.rego file; put a policy (package authz) into it")
	}
	data := []byte("{}")
	if f.data != nil {
		data = f.data.append(nil)
	}
	files := []file{{manifestName, f.manifest.encode()}, {dataName, data}}
	for _, p := range slices.Sorted(maps.Keys(f.modules)) {
		files = append(files, file{p, f.modules[p]})
	}
	tar, err := encodeTar(files)
	if err != nil {
		return nil, err
	}
	if most := (Limits{}).WithDefaults().Unpacked; int64(len(tar)) > most {
		return nil, tooLarge(most)
	}
	// What is built is what will be accepted, by the same rules.
	return Parse(tar)
}

// folder is a bundle in the making.
type folder struct {
	fsys     fs.FS
	left     int64 // bytes that may still be read
	manifest *manifest
	data     *node // nil before the first data.json
	modules  map[string][]byte
}

// role is what a file is to a bundle, going by its name.
type role int

const (
	ignored role = iota
	manifestFile
	dataFile
	moduleFile
)

// refused are the files that OPA would make part of the policy.
var refused = map[string]string{
	"patch.json":   "a bundle is whole, not a patch; put the data into data.json",
	"plan.json":    "plans are made where they run; keep the *.rego files",
	"plan.pb":      "plans are made where they run; keep the *.rego files",
	".manifest.pb": "write the manifest as JSON, in .manifest",
	"data.yaml":    "put it into data.json",
	"data.yml":     "put it into data.json",
}

// roleOf says what a file is by its path, or why it cannot be in a bundle.
func roleOf(p string) (role, error) {
	name := path.Base(p)
	lower := strings.ToLower(name)
	if why, ok := refused[lower]; ok {
		return ignored, policy.Errorf(policy.BadRequest, "%s is refused: %s", p, why)
	}
	r, spelling := ignored, name
	switch {
	case lower == manifestName:
		if p != name {
			return ignored, policy.Errorf(policy.BadRequest, "%s: a bundle has one manifest, in its root; is %s a bundle of its own?", p, path.Dir(p))
		}
		r, spelling = manifestFile, manifestName
	case strings.HasPrefix(name, "."):
		return ignored, nil
	case strings.HasSuffix(lower, ".wasm"):
		return ignored, policy.Errorf(policy.BadRequest, "%s is refused: a bundle's policy is its Rego; keep the *.rego files", p)
	case lower == dataName:
		r, spelling = dataFile, dataName
	case strings.HasSuffix(lower, regoSuffix):
		r, spelling = moduleFile, name[:len(name)-len(regoSuffix)]+regoSuffix
	}
	if name != spelling {
		return ignored, policy.Errorf(policy.BadRequest, "%s: rename it to %s", p, spelling)
	}
	return r, nil
}

func (f *folder) visit(p string, d fs.DirEntry, err error) error {
	switch {
	case err != nil && p == "." && errors.Is(err, fs.ErrNotExist):
		return policy.Errorf(policy.BadRequest, "the folder does not exist: %w", err)
	case err != nil:
		return policy.Errorf(policy.BadRequest, "cannot read %s: %w", p, err)
	case d.IsDir():
		if p != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return nil
	}
	r, err := roleOf(p)
	if err != nil {
		return err
	}
	if d.Type()&fs.ModeSymlink != 0 && !strings.HasPrefix(d.Name(), ".") {
		// A linked folder would be left out without a word.
		if info, err := fs.Stat(f.fsys, p); err == nil && info.IsDir() {
			return policy.Errorf(policy.BadRequest, "%s is a link to a folder; a bundle holds no links: copy the folder, or link it under a hidden name to leave it out", p)
		}
	}
	if r == ignored {
		return nil
	}
	switch {
	case d.Type()&fs.ModeSymlink != 0:
		return policy.Errorf(policy.BadRequest, "%s is a link; a bundle holds no links: copy the file", p)
	case !d.Type().IsRegular(): // opening a pipe would wait for its other end
		return notRegular(p)
	}
	content, err := f.read(p)
	if err != nil {
		return err
	}
	switch r {
	case manifestFile:
		f.manifest, err = parseManifest(content)
	case dataFile:
		err = f.addData(p, content)
	case moduleFile:
		if err = checkPath(p); err == nil {
			f.modules[p] = content
		}
	}
	return err
}

func (f *folder) read(p string) ([]byte, error) {
	open, err := f.fsys.Open(p)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "cannot read %s: %w", p, err)
	}
	defer open.Close()
	if info, err := open.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, notRegular(p)
	}
	content, err := io.ReadAll(io.LimitReader(open, f.left+1))
	if err != nil {
		return nil, policy.Errorf(policy.Internal, "cannot read %s: %w", p, err)
	}
	if f.left -= int64(len(content)); f.left < 0 {
		return nil, tooLarge(Limits{}.WithDefaults().Unpacked)
	}
	return content, nil
}

func notRegular(p string) error {
	return policy.Errorf(policy.BadRequest, "%s is no regular file; put one in its place", p)
}

func tooLarge(most int64) error {
	return policy.Errorf(policy.Exhausted, "the bundle is larger than %d bytes; move data that no policy reads out of it", most)
}

// addData puts a data.json into the document at the path of its folder.
func (f *folder) addData(p string, content []byte) error {
	doc, err := parseJSON(p, content)
	if err != nil {
		return err
	}
	if dir := path.Dir(p); dir == "." {
		if !doc.isObject() {
			return policy.Errorf(policy.BadRequest, "%s must be a JSON object; its members are what rules read as data.NAME", p)
		}
	} else {
		for _, element := range slices.Backward(strings.Split(dir, "/")) {
			doc = &node{file: p, members: map[string]*node{element: doc}}
		}
	}
	if f.data == nil {
		f.data = doc
		return nil
	}
	return f.data.merge(doc, "")
}
