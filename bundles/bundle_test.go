package bundles_test

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

const manifestJSON = `{"rego_version":1,"revision":"","roots":[""]}`

// entry is a tar entry as an attacker writes it, with the standard library.
type entry struct {
	name, content string
	change        func(*tar.Header)
}

func writeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: 0o644, Size: int64(len(e.content)), Format: tar.FormatUSTAR}
		if e.change != nil {
			e.change(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(e.content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var (
	manifestEntry = entry{".manifest", manifestJSON, nil}
	dataEntry     = entry{"data.json", "{}", nil}
	authzEntry    = entry{"authz.rego", rego, nil}
)

// The format is ustar as others write it: the standard library, told to write
// the same, does.
func TestTarIsPlainUstar(t *testing.T) {
	long := strings.Repeat("deep/", 20) + "lib.rego"
	longest := strings.Repeat("p", 155) + "/" + strings.Repeat("n", 95) + ".rego"
	b := read(t, folder("authz.rego", rego, long, "package a\n", longest, "", "data.json", `{"a":1}`))
	want := writeTar(t, manifestEntry, entry{"data.json", `{"a":1}`, nil}, authzEntry, entry{long, "package a\n", nil}, entry{longest, "", nil})
	if !bytes.Equal(b.Tar(), want) {
		t.Error("the tar is not what archive/tar writes")
	}
	again, err := bundles.Parse(b.Tar())
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest() != b.Digest() {
		t.Error("another digest after parsing")
	}
}

func TestTarsThatAreNotTheOneSpelling(t *testing.T) {
	good := writeTar(t, manifestEntry, dataEntry, authzEntry)
	if _, err := bundles.Parse(good); err != nil {
		t.Fatal(err)
	}
	with := func(e entry) []byte { return writeTar(t, manifestEntry, dataEntry, authzEntry, e) }
	authz := func(change func(*tar.Header)) []byte {
		return writeTar(t, manifestEntry, dataEntry, entry{"authz.rego", rego, change})
	}
	data := func(json string) []byte { return writeTar(t, manifestEntry, entry{"data.json", json, nil}, authzEntry) }
	manifest := func(json string) []byte {
		return writeTar(t, entry{".manifest", json, nil}, dataEntry, authzEntry)
	}
	flip := func(offset int, value byte) []byte {
		bad := bytes.Clone(good)
		bad[offset] = value
		return bad
	}
	for _, c := range []struct {
		attack string
		tar    []byte
		says   string
	}{
		{"path escape", with(entry{"../evil.rego", rego, nil}), `".."`},
		{"path escape in the middle", with(entry{"lib/../../evil.rego", rego, nil}), `".."`},
		{"absolute path", with(entry{"/etc/evil.rego", rego, nil}), "relative"},
		{"path that is not clean", with(entry{"lib//evil.rego", rego, nil}), "clean"},
		{"dot path", with(entry{"./evil.rego", rego, nil}), "clean"},
		{"drive and backslash", with(entry{`c:\evil.rego`, rego, nil}), "backslash"},
		{"hidden file", with(entry{".evil.rego", rego, nil}), "hidden"},
		{"hidden folder", with(entry{"lib/.git/evil.rego", rego, nil}), "hidden"},
		{"folder that could be a file", with(entry{"authz.rego/evil.rego", rego, nil}), "named like a *.rego file"},
		{"file that is no policy", with(entry{"run.sh", "", nil}), "no *.rego"},
		{"compiled policy", with(entry{"policy.wasm", "", nil}), "no *.rego"},
		{"second data", with(entry{"lib/data.json", "{}", nil}), "no *.rego"},
		{"second manifest", with(entry{"lib/.manifest", "{}", nil}), "no *.rego"},
		{"patch", with(entry{"patch.json", "{}", nil}), "no *.rego"},
		{"signatures", with(entry{".signatures.json", "{}", nil}), "no *.rego"},
		{"duplicate entry", with(authzEntry), "twice or out of order"},
		{"out of order", with(entry{"aaa.rego", rego, nil}), "twice or out of order"},
		{"duplicate manifest", writeTar(t, manifestEntry, manifestEntry, dataEntry, authzEntry), "does not begin with"},
		{"duplicate data", writeTar(t, manifestEntry, dataEntry, dataEntry, authzEntry), "no *.rego"},
		{"no manifest", writeTar(t, dataEntry, authzEntry), "does not begin with"},
		{"no data", writeTar(t, manifestEntry, authzEntry), "does not begin with"},
		{"data first", writeTar(t, dataEntry, manifestEntry, authzEntry), "does not begin with"},
		{"no policy", writeTar(t, manifestEntry, dataEntry), "no policy"},
		{"tests only", writeTar(t, manifestEntry, dataEntry, entry{"a_test.rego", rego, nil}), "no policy"},
		{"no entries", writeTar(t), "does not begin with"},
		{"symbolic link", authz(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/passwd", 0 }), "header"},
		{"hard link", authz(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeLink, "data.json", 0 }), "header"},
		{"folder", authz(func(h *tar.Header) { h.Typeflag, h.Size = tar.TypeDir, 0 }), "header"},
		{"device", authz(func(h *tar.Header) { h.Typeflag, h.Size = tar.TypeChar, 0 }), "header"},
		{"executable", authz(func(h *tar.Header) { h.Mode = 0o755 }), "header"},
		{"owner", authz(func(h *tar.Header) { h.Uid = 1 }), "header"},
		{"owner's name", authz(func(h *tar.Header) { h.Uname = "root" }), "header"},
		{"time", authz(func(h *tar.Header) { h.ModTime = time.Unix(1, 0) }), "header"},
		{"pax header", authz(func(h *tar.Header) {
			h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"MICROWALL.evil": "1"}
		}), "header"},
		{"pax path", authz(func(h *tar.Header) {
			h.Format, h.Name = tar.FormatPAX, strings.Repeat("x", 300)+".rego"
		}), "header"},
		{"GNU format", authz(func(h *tar.Header) { h.Format = tar.FormatGNU }), "header"},
		{"white space in data", data(`{"a": 1}`), "white space at byte 4"},
		{"white space before data", data(` {}`), "no object"},
		{"white space after data", data("{}\n"), "after the document"},
		{"two documents", data(`{}{}`), "after the document"},
		{"names out of order", data(`{"b":1,"a":1}`), "out of order"},
		{"names out of order inside", data(`{"x":[{"b":1,"a":1}]}`), "out of order"},
		{"duplicate names", data(`{"a":1,"a":1}`), "out of order"},
		{"needless escape", data(`{"a":"\u0041"}`), "written shorter"},
		{"needless escape in a name", data(`{"\u0041":1}`), "written shorter"},
		{"escaped slash", data(`{"a":"\/"}`), "written shorter"},
		{"upper-case escape", data(`{"a":"\u001F"}`), "written shorter"},
		{"invalid UTF-8", data("{\"a\":\"\xff\"}"), "UTF-8"},
		{"data that is no object", data(`[]`), "no object"},
		{"data that is null", data(`null`), "no object"},
		{"truncated data", data(`{"a":`), "EOF"},
		{"empty data", data(``), "no object"},
		{"nesting bomb", data(`{"a":` + strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5) + `}`), "nesting deeper"},
		{"white space in the manifest", manifest(manifestJSON + "\n"), "one spelling"},
		{"defaults left away in the manifest", manifest(`{"rego_version":1,"revision":""}`), "one spelling"},
		{"v0 in the manifest", manifest(`{"rego_version":0,"revision":"","roots":[""]}`), "v0 is refused"},
		{"v0 for one file", manifest(`{"file_rego_versions":{"authz.rego":0},"rego_version":1,"revision":"","roots":[""]}`), "v0 is refused"},
		{"idle file version", manifest(`{"file_rego_versions":{"authz.rego":1},"rego_version":1,"revision":"","roots":[""]}`), "one spelling"},
		{"second field in another case", manifest(`{"REGO_VERSION":0,"rego_version":1,"revision":"","roots":[""]}`), "REGO_VERSION"},
		{"roots out of order", manifest(`{"rego_version":1,"revision":"","roots":["b","a"]}`), "one spelling"},
		{"empty", nil, "ends early"},
		{"truncated header", good[:100], "ends early"},
		{"truncated content", good[:520], "claims"},
		{"truncated padding", good[:512+len(manifestJSON)+1], "padded"},
		{"no end", good[:len(good)-1024], "ends early"},
		{"half an end", good[:len(good)-512], "end with two blocks"},
		{"trailing zeros", append(bytes.Clone(good), make([]byte, 512)...), "end with two blocks"},
		{"trailing data", append(bytes.Clone(good), 'x'), "end with two blocks"},
		{"second archive after the end", append(bytes.Clone(good), good...), "end with two blocks"},
		{"data in the end", flip(len(good)-1, 1), "end with two blocks"},
		{"data in the padding", flip(512+len(manifestJSON), 1), "padded"},
		{"wrong check sum", flip(148, '7'), "header"},
		{"size in base 256", flip(124, 0x80), "size is no number"},
		{"size of gigabytes", flip(124, '7'), "claims"},
		{"data in the header's reserve", flip(505, 1), "header"},
		{"data after the name's end", flip(50, 'x'), "header"},
	} {
		t.Run(c.attack, func(t *testing.T) {
			_, err := bundles.Parse(c.tar)
			wantErr(t, err, policy.BadRequest, c.says)
		})
	}
}

func TestCallersCannotReorderABundlesModules(t *testing.T) {
	b := read(t, folder("a.rego", rego, "b.rego", rego))
	b.Modules()[0] = bundles.Module{Path: "evil.rego"}
	if got := b.Modules()[0].Path; got != "a.rego" {
		t.Errorf("first module is now %s", got)
	}
}

// checkParse holds Parse against its promise: what it accepts is, built again
// from what an independent reader sees of it, the same bytes.
func checkParse(t *testing.T, archive []byte) {
	b, err := bundles.Parse(archive)
	if err != nil {
		if k := policy.KindOf(err); k != policy.BadRequest && k != policy.Exhausted {
			t.Errorf("%v has kind %v", err, k)
		}
		return
	}
	files := entries(t, archive)
	var content []string
	for name, text := range files {
		content = append(content, name, text)
	}
	again := read(t, folder(content...))
	if !bytes.Equal(again.Tar(), archive) {
		t.Errorf("built again, it is\n%q, was\n%q", again.Tar(), archive)
	}
	if len(files) != 2+len(b.Modules())+len(b.Tests()) || files["data.json"] != string(b.Data()) || again.Namespace() != b.Namespace() {
		t.Error("Parse and archive/tar disagree")
	}
}

func FuzzParseBundle(f *testing.F) {
	f.Add(writeTar(f, manifestEntry, dataEntry, authzEntry))
	f.Add(writeTar(f, entry{".manifest", `{"metadata":{"microwall":{"namespace":"a.b"},"x":[1.0,"\n"]},"rego_version":1,"revision":"r","roots":["a","b"]}`, nil},
		entry{"data.json", `{"a":[{"b":-0}],"é":"\u0007"}`, nil}, authzEntry, entry{"b/c_test.rego", "", nil}))
	f.Add(writeTar(f, manifestEntry, dataEntry, entry{strings.Repeat("deep/", 20) + "lib.rego", "", nil}))
	f.Add([]byte(nil))
	f.Fuzz(checkParse)
}

// FuzzParseEntries reaches what lies behind the headers' check sums.
func FuzzParseEntries(f *testing.F) {
	f.Add(manifestJSON, `{"a":[{"b":-0}],"é":"\u0007"}`, "lib/a.rego", rego, 0, byte(0))
	f.Add(`{"metadata":{"microwall":{"namespace":"a.b"},"x":[1.0,"\n"]},"rego_version":1,"revision":"r","roots":["a","b"]}`, "{}", strings.Repeat("deep/", 20)+"lib.rego", "", 512, byte(1))
	f.Fuzz(func(t *testing.T, manifest, data, path, source string, at int, flip byte) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path, Format: tar.FormatUSTAR}
		if strings.HasSuffix(path, "/") || tar.NewWriter(io.Discard).WriteHeader(h) != nil {
			return // archive/tar has no such file
		}
		archive := writeTar(t, entry{".manifest", manifest, nil}, entry{"data.json", data, nil}, entry{path, source, nil})
		if at >= 0 && at < len(archive) {
			archive[at] ^= flip
		}
		checkParse(t, archive)
	})
}

// FuzzManifest: a manifest that is accepted has one spelling, which is
// accepted and stays as it is.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(manifestJSON))
	f.Add([]byte(`{"roots":["/b/","a"],"metadata":{"microwall":{"namespace":"a"},"x":{"b":1.0,"a":"\u0041"}},"file_rego_versions":{"x":1}}`))
	f.Add([]byte(`{"Roots":[""],"rego_version":0}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		b, err := bundles.Read(folder("authz.rego", rego, ".manifest", string(src)))
		if err != nil {
			return
		}
		spelling := entries(t, b.Tar())[".manifest"]
		again := read(t, folder("authz.rego", rego, ".manifest", spelling))
		if again.Digest() != b.Digest() {
			t.Errorf("%q becomes %q, which becomes %q", src, spelling, entries(t, again.Tar())[".manifest"])
		}
	})
}

// FuzzData: data that is accepted has one spelling, which stays as it is.
func FuzzData(f *testing.F) {
	f.Add([]byte(`{"b":[1.0,"\u0041\ud83d\ude00"], "a":{"":null}}`), []byte(`{"z":1}`))
	f.Add([]byte(`{"sub":1}`), []byte(`-0`))
	f.Fuzz(func(t *testing.T, root, sub []byte) {
		b, err := bundles.Read(folder("authz.rego", rego, "data.json", string(root), "sub/data.json", string(sub)))
		if err != nil {
			return
		}
		again := read(t, folder("authz.rego", rego, "data.json", string(b.Data())))
		if again.Digest() != b.Digest() {
			t.Errorf("%q and %q become %q, which becomes %q", root, sub, b.Data(), again.Data())
		}
	})
}
