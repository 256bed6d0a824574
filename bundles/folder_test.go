package bundles_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

func TestRefusedFolders(t *testing.T) {
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for _, c := range []struct {
		attack string
		files  []string
		says   []string
	}{
		{"no policy", []string{"README.md", ""}, []string{"no *.rego file"}},
		{"tests only", []string{"authz_test.rego", rego}, []string{"no test"}},
		{"delta bundle", []string{"patch.json", "{}"}, []string{"patch.json", "data.json"}},
		{"delta bundle in another case", []string{"Patch.JSON", "{}"}, []string{"Patch.JSON"}},
		{"compiled policy", []string{"lib/policy.wasm", ""}, []string{"lib/policy.wasm", "*.rego"}},
		{"compiled policy in another case", []string{"x.WASM", ""}, []string{"x.WASM"}},
		{"plan", []string{"plan.json", "{}"}, []string{"plan.json"}},
		{"plan in protobuf", []string{"a/plan.pb", "{}"}, []string{"a/plan.pb"}},
		{"second manifest in protobuf", []string{".manifest.pb", ""}, []string{".manifest.pb", "JSON"}},
		{"YAML data", []string{"a/data.yaml", "a: 1"}, []string{"a/data.yaml", "put it into data.json"}},
		{"YAML data, short", []string{"data.yml", "a: 1"}, []string{"data.yml", "put it into data.json"}},
		{"data in another case, left out by OPA", []string{"Data.json", "{}"}, []string{"Data.json", "rename it to data.json"}},
		{"policy in another case, left out by OPA", []string{"lib/deny.REGO", rego}, []string{"lib/deny.REGO", "rename it to deny.rego"}},
		{"manifest in another case", []string{".Manifest", "{}"}, []string{".Manifest", "rename it to .manifest"}},
		{"bundle inside a bundle", []string{"cart/.manifest", "{}"}, []string{"cart/.manifest", "is cart a bundle of its own?"}},
		{"root data no object", []string{"data.json", "[1]"}, []string{"data.json", "object"}},
		{"two values for one path", []string{"data.json", `{"a":{"b":1}}`, "a/data.json", `{"b":1}`}, []string{"data.json", "a/data.json", "data.a.b"}},
		{"value where a folder is", []string{"data.json", `{"a":1}`, "a/b/data.json", `{}`}, []string{"a/b/data.json", "data.a"}},
		{"duplicate name", []string{"data.json", `{"a":1,"a":2}`}, []string{"data.json", "duplicate"}},
		{"duplicate name by an escape", []string{"data.json", `{"a":1,"\u0061":2}`}, []string{"data.json", "duplicate"}},
		{"invalid UTF-8", []string{"data.json", "{\"a\":\"\xff\"}"}, []string{"data.json", "UTF-8"}},
		{"half a surrogate pair", []string{"data.json", `{"a":"\ud800"}`}, []string{"data.json"}},
		{"second document", []string{"data.json", `{} {}`}, []string{"data.json", "follows"}},
		{"garbage after the document", []string{"data.json", `{} x`}, []string{"data.json"}},
		{"truncated data", []string{"data.json", `{"a":`}, []string{"data.json", "EOF"}},
		{"empty data", []string{"data.json", ""}, []string{"data.json", "EOF"}},
		{"number that is none", []string{"data.json", `{"a":01}`}, []string{"data.json"}},
		{"nesting bomb", []string{"data.json", `{"a":` + deep + `}`}, []string{"data.json", "nested deeper"}},
		{"backslash in a path", []string{`a\..\b.rego`, rego}, []string{`a\\..\\b.rego`, "backslash"}},
		{"control character in a path", []string{"a\nb.rego", rego}, []string{"printable"}},
		{"text that turns direction in a path", []string{"a\u202eoger.rego", rego}, []string{"printable"}},
		{"path too long for a tar", []string{strings.Repeat("x", 120) + ".rego", rego}, []string{"too long"}},
	} {
		t.Run(c.attack, func(t *testing.T) {
			files := c.files
			if c.attack != "no policy" && c.attack != "tests only" {
				files = append([]string{"authz.rego", rego}, files...)
			}
			_, err := bundles.Read(folder(files...))
			wantErr(t, err, policy.BadRequest, c.says...)
		})
	}
	t.Run("missing", func(t *testing.T) {
		_, err := bundles.Read(os.DirFS(filepath.Join(t.TempDir(), "nowhere")))
		wantErr(t, err, policy.BadRequest, "does not exist")
	})
}

func TestManifests(t *testing.T) {
	const plain = `{"rego_version":1,"revision":"","roots":[""]}`
	for _, c := range []struct{ name, manifest, want, says string }{
		{"empty", `{}`, plain, ""},
		{"file versions say nothing", `{"file_rego_versions":{"a.rego":1},"rego_version":1,"metadata":{}}`, plain, ""},
		{"roots are sorted", `{"roots":["/b/","a/b","a-b","a/c"]}`, `{"rego_version":1,"revision":"","roots":["a/b","a/c","a-b","b"]}`, ""},
		{"metadata is kept", `{"revision":"x","metadata":{"z":[1.0],"microwall":{"namespace":"boutique"}}}`,
			`{"metadata":{"microwall":{"namespace":"boutique"},"z":[1.0]},"rego_version":1,"revision":"x","roots":[""]}`, ""},
		{"v0", `{"rego_version":0}`, "", "v0 is refused"},
		{"v0 for one file", `{"file_rego_versions":{"a.rego":0}}`, "", "a.rego is 0: v0 is refused"},
		{"v2", `{"rego_version":2}`, "", "import rego.v2"},
		{"version as a string", `{"rego_version":"1"}`, "", "must be 1"},
		{"version as a fraction", `{"rego_version":1.0}`, "", "must be 1"},
		{"version null", `{"rego_version":null}`, "", "must be 1"},
		{"upper-case field", `{"Rego_Version":0}`, "", `it is written "rego_version"`},
		{"upper-case field that Go takes for another", `{"Metadata":{}}`, "", `it is written "metadata"`},
		{"long s, which folds to s", "{\"revi\u017fion\":\"x\"}", "", `it is written "revision"`},
		{"unknown field", `{"signatures":[]}`, "", "belongs under metadata"},
		{"duplicate field", `{"rego_version":1,"rego_version":1}`, "", "duplicate"},
		{"wasm", `{"wasm":[{"entrypoint":"authz/allow","module":"/policy.wasm"}]}`, "", "wasm is refused"},
		{"empty wasm", `{"wasm":[]}`, "", "wasm is refused"},
		{"no object", `[]`, "", "not a JSON object"},
		{"not JSON", `revision: 1`, "", "not JSON"},
		{"empty file", ``, "", "not JSON"},
		{"roots no list", `{"roots":"a"}`, "", "roots"},
		{"roots that own nothing", `{"roots":[]}`, "", "roots"},
		{"root no string", `{"roots":[1]}`, "", "roots"},
		{"overlapping roots", `{"roots":["a/b","a"]}`, "", "overlap"},
		{"overlap with everything", `{"roots":["a",""]}`, "", "overlap"},
		{"root twice", `{"roots":["a","/a/"]}`, "", "overlap"},
		{"revision no string", `{"revision":1}`, "", "revision"},
		{"file versions no object", `{"file_rego_versions":1}`, "", "file_rego_versions"},
		{"metadata no object", `{"metadata":"x"}`, "", "metadata"},
		{"our metadata in another case", `{"metadata":{"Microwall":{"namespace":"boutique"}}}`, "", `metadata.microwall`},
		{"our metadata no object", `{"metadata":{"microwall":"boutique"}}`, "", "metadata.microwall"},
		{"namespace misspelt", `{"metadata":{"microwall":{"namspace":"boutique"}}}`, "", "namspace"},
		{"namespace in another case", `{"metadata":{"microwall":{"Namespace":"boutique"}}}`, "", `"metadata.microwall.namespace"`},
		{"namespace no string", `{"metadata":{"microwall":{"namespace":1}}}`, "", "namespace"},
		{"namespace no namespace", `{"metadata":{"microwall":{"namespace":"Boutique/../x"}}}`, "", "label"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := bundles.Read(folder("authz.rego", rego, ".manifest", c.manifest))
			if c.says != "" {
				wantErr(t, err, policy.BadRequest, ".manifest", c.says)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := entries(t, b.Tar())[".manifest"]; got != c.want {
				t.Errorf("manifest\n%s, want\n%s", got, c.want)
			}
		})
	}
	t.Run("huge", func(t *testing.T) {
		_, err := bundles.Read(folder("authz.rego", rego, ".manifest", `{"revision":"`+strings.Repeat("x", 1<<20)+`"}`))
		wantErr(t, err, policy.Exhausted, ".manifest", "limit")
	})
}

// entries are a tar's files as the standard library sees them.
func entries(t testing.TB, archive []byte) map[string]string {
	t.Helper()
	found := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = string(content)
	}
}

// A digest that changes makes every release of the past point to nothing: it
// may change with a new version of the format only.
func TestSameInputGivesTheSameBytesForever(t *testing.T) {
	const want = "sha256:b992b6668a2a1600535f909c309bc9c1b7c5620600845a7bba1c7bcc21658751"
	content := []string{
		".manifest", `{"metadata":{"microwall":{"namespace":"boutique.cart"}},"revision":"r"}`,
		"authz.rego", rego,
		"lib/" + strings.Repeat("deep/", 20) + "roles.rego", "package lib\n",
		"data.json", "{\"n\":12345678901234567890.10, \"s\":\"\\u00e9\\ud83d\\ude00<\\/\\u0007\", \"\uffff\":0, \"\U00010000\":0}",
		"lib/data.json", `[1, 1.0, {"b":null,"a":true}]`,
	}
	var first *bundles.Bundle
	for _, variant := range []string{"in order", "backwards", "dated, private, beside other files"} {
		fsys := fstest.MapFS{}
		for i := 0; i < len(content); i += 2 {
			f := &fstest.MapFile{Data: []byte(content[i+1]), Mode: 0o644}
			if variant != "in order" {
				f.Mode, f.ModTime = 0o700, time.Unix(int64(i)*1e6, 0)
			}
			fsys[content[i]] = f
		}
		var source fs.FS = fsys
		switch variant {
		case "backwards":
			source = backwards{fsys}
		case "dated, private, beside other files":
			fsys[".git/HEAD"] = &fstest.MapFile{Data: []byte("x")}
			fsys["lib/.#roles.rego"] = &fstest.MapFile{Data: []byte("x")}
			fsys[".signatures.json"] = &fstest.MapFile{Data: []byte("x")}
			fsys["README.md"] = &fstest.MapFile{Data: []byte("x")}
			fsys["node.json"] = &fstest.MapFile{Data: []byte("x")}
		}
		b := read(t, source)
		if first == nil {
			first = b
		}
		if !bytes.Equal(b.Tar(), first.Tar()) {
			t.Errorf("%s: another tar", variant)
		}
	}
	if got := first.Digest().String(); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

// backwards lists every folder in reverse order.
type backwards struct{ fstest.MapFS }

func (b backwards) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := b.MapFS.ReadDir(name)
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list, err
}

func TestDataFilesMerge(t *testing.T) {
	b := read(t, folder("authz.rego", rego,
		"data.json", `{"teams":{"cart":{"size":3}},"x":1}`,
		"teams/data.json", `{"ads":[]}`,
		"teams/cart/data.json", `{"lead":"alice"}`,
		"teams/cart/rooms/data.json", `["a","b"]`,
		"a.b/c d/data.json", `null`,
	))
	want := `{"a.b":{"c d":null},"teams":{"ads":[],"cart":{"lead":"alice","rooms":["a","b"],"size":3}},"x":1}`
	if string(b.Data()) != want {
		t.Errorf("data\n%s, want\n%s", b.Data(), want)
	}
	if got := string(read(t, folder("authz.rego", rego)).Data()); got != "{}" {
		t.Errorf("no data is %s, want {}", got)
	}
}

func TestLinkOutOfTheFolderIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege on Windows")
	}
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret.rego"), []byte(rego), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, link, target, says string }{
		{"a policy", "lib.rego", "secret.rego", "lib.rego is a link"},
		{"data", "data.json", "secret.rego", "data.json is a link"},
		{"the manifest", ".manifest", "secret.rego", ".manifest is a link"},
		{"a folder", "lib", ".", "lib is a link to a folder"},
		{"a policy that is gone", "lib.rego", "gone", "lib.rego is a link"},
		{"another file", "README.md", "secret.rego", ""},
		{"a hidden folder", ".cache", ".", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "authz.rego"), []byte(rego), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(outside, c.target), filepath.Join(dir, c.link)); err != nil {
				t.Fatal(err)
			}
			b, err := bundles.Read(os.DirFS(dir))
			if c.says != "" {
				wantErr(t, err, policy.BadRequest, c.says)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := len(entries(t, b.Tar())); n != 3 {
				t.Errorf("%d entries, want 3: the link was followed", n)
			}
		})
	}
}

func TestPipeInTheFolderDoesNotHang(t *testing.T) {
	mkfifo, err := exec.LookPath("mkfifo")
	if err != nil {
		t.Skip("no mkfifo here")
	}
	dir := t.TempDir()
	if out, err := exec.Command(mkfifo, filepath.Join(dir, "authz.rego")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, err = bundles.Read(os.DirFS(dir))
	wantErr(t, err, policy.BadRequest, "authz.rego is no regular file")
	_, err = bundles.LoadTrust(filepath.Join(dir, "authz.rego"))
	wantErr(t, err, policy.BadRequest, "no regular file")
	_, err = bundles.LoadSigner(filepath.Join(dir, "authz.rego"))
	wantErr(t, err, policy.BadRequest, "no regular file")
}
