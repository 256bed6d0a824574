package bundles

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/microwall/microwall/policy"
)

// The tar is written and read here rather than by archive/tar because its bytes
// are a bundle's identity: they must not change with a release of Go, and the
// reader must see nothing that the writer would not write (extended headers,
// links, sparse files, sizes in base 256).

const (
	manifestName = ".manifest"
	dataName     = "data.json"
	regoSuffix   = ".rego"
	testSuffix   = "_test.rego"

	blockSize = 512
	endSize   = 2 * blockSize

	// Fields of a ustar header.
	nameSize                = 100
	sizeStart, sizeEnd      = 124, 135
	sumStart, sumEnd        = 148, 156
	prefixStart, prefixSize = 345, 155

	// maxFile is what eleven octal digits hold.
	maxFile = 1<<33 - 1
)

// file is one entry of the tar.
type file struct {
	path    string
	content []byte
}

// checkPath returns nil if p may be the path of a module.
func checkPath(p string) error {
	fault := ""
	switch {
	case !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsPrint(r) || r == '\\' }):
		fault = "must be printable UTF-8 without a backslash"
	case !fs.ValidPath(p):
		fault = "must be relative and clean, without \"..\""
	case !strings.HasSuffix(p, regoSuffix):
		fault = "is no *.rego file"
	case p[0] == '.' || strings.Contains(p, "/."):
		fault = "is hidden"
	case strings.Contains(p, regoSuffix+"/"):
		// It could be the path of a file too, and then no folder holds both.
		fault = "has a folder that is named like a *.rego file"
	default:
		if _, _, ok := splitPath(p); !ok {
			fault = "is too long for a tar"
		}
	}
	if fault != "" {
		return policy.Errorf(policy.BadRequest, "path %.300q %s; rename the file", p, fault)
	}
	return nil
}

// splitPath divides a path between a header's prefix and name. The slash
// between the two is not written.
func splitPath(p string) (prefix, name string, ok bool) {
	if len(p) <= nameSize {
		return "", p, true
	}
	i := strings.LastIndexByte(p[:min(len(p), prefixSize+1)], '/')
	if i <= 0 || len(p)-i-1 > nameSize {
		return "", "", false
	}
	return p[:i], p[i+1:], true
}

// header returns the one header that a file of that path and size has.
func header(path string, size int) (h [blockSize]byte, err error) {
	prefix, name, ok := splitPath(path)
	if !ok || size < 0 || size > maxFile {
		return h, policy.Errorf(policy.BadRequest, "%.300q, %d bytes: path or size is too long for a tar", path, size)
	}
	copy(h[0:], name)
	copy(h[100:], "0000644\x00") // mode
	copy(h[108:], "0000000\x00") // owner
	copy(h[116:], "0000000\x00") // group
	copy(h[sizeStart:], fmt.Sprintf("%011o\x00", size))
	copy(h[136:], "00000000000\x00") // time
	h[156] = '0'                     // a regular file
	copy(h[257:], "ustar\x0000")
	copy(h[329:], "0000000\x00") // device
	copy(h[337:], "0000000\x00")
	copy(h[prefixStart:], prefix)
	// The sum counts its own field as eight spaces.
	sum := (sumEnd - sumStart) * int(' ')
	for _, c := range h {
		sum += int(c)
	}
	copy(h[sumStart:], fmt.Sprintf("%06o\x00 ", sum))
	return h, nil
}

// padding is how many zeros follow a file of that size.
func padding(size int) int { return -size & (blockSize - 1) }

// encodeTar returns the tar of the given files, in the order given.
func encodeTar(files []file) ([]byte, error) {
	total := endSize
	for _, f := range files {
		total += blockSize + len(f.content) + padding(len(f.content))
	}
	tar := make([]byte, 0, total)
	for _, f := range files {
		h, err := header(f.path, len(f.content))
		if err != nil {
			return nil, err
		}
		tar = append(tar, h[:]...)
		tar = append(tar, f.content...)
		tar = append(tar, make([]byte, padding(len(f.content)))...)
	}
	return append(tar, make([]byte, endSize)...), nil
}

func badTar(format string, args ...any) error {
	return policy.Errorf(policy.BadRequest, "bundle: "+format+"; build it with microwall", args...)
}

// decodeTar returns the files of a tar, in place. It accepts only what
// encodeTar writes for some files.
func decodeTar(tar []byte) ([]file, error) {
	var files []file
	for rest := tar; ; {
		if len(rest) < blockSize {
			return nil, badTar("the tar ends early")
		}
		if rest[0] == 0 {
			if len(rest) != endSize || !zero(rest) {
				return nil, badTar("the tar does not end with two blocks of zeros and nothing else")
			}
			return files, nil
		}
		h := rest[:blockSize]
		path := text(h[:nameSize])
		if prefix := text(h[prefixStart : prefixStart+prefixSize]); prefix != "" {
			path = prefix + "/" + path
		}
		size, err := strconv.ParseUint(string(h[sizeStart:sizeEnd]), 8, 34)
		if err != nil {
			return nil, badTar("entry %.300q: its size is no number", path)
		}
		rest = rest[blockSize:]
		if size > uint64(len(rest)) {
			return nil, badTar("entry %.300q: it claims %d bytes, %d are there", path, size, len(rest))
		}
		n := int(size)
		if want, err := header(path, n); err != nil || !bytes.Equal(want[:], h) {
			return nil, badTar("entry %.300q: its header is not that of a plain file in its one spelling", path)
		}
		end := n + padding(n)
		if end > len(rest) || !zero(rest[n:end]) {
			return nil, badTar("entry %.300q: it is not padded with zeros", path)
		}
		files = append(files, file{path, rest[:n:n]})
		rest = rest[end:]
	}
}

// text returns a field up to its first NUL.
func text(field []byte) string {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	return string(field)
}

func zero(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
}
