package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/microwall/microwall/bundles"
)

// maxCompared is the size up to which files are compared line by line.
const maxCompared = 1 << 20

// changes returns the files of two bundles that differ, as diff prints it. Either
// may be nil.
func changes(before, after *bundles.Bundle) string {
	old, next := files(before), files(after)
	all := maps.Clone(old)
	maps.Copy(all, next)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if len(old[name]) > maxCompared || len(next[name]) > maxCompared {
			if !bytes.Equal(old[name], next[name]) {
				fmt.Fprintf(&b, "%s differs, and is too large to be shown: %d bytes before, %d bytes now\n", name, len(old[name]), len(next[name]))
			}
			continue
		}
		b.Write(diff.Diff("before/"+name, old[name], "after/"+name, next[name]))
	}
	return b.String()
}

func files(b *bundles.Bundle) map[string][]byte {
	all := map[string][]byte{}
	if b == nil {
		return all
	}
	for _, m := range slices.Concat(b.Modules(), b.Tests()) {
		all[m.Path] = m.Source
	}
	var lines bytes.Buffer
	data := b.Data()
	if len(data) <= maxCompared && json.Indent(&lines, data, "", "  ") == nil {
		lines.WriteByte('\n')
		data = lines.Bytes()
	}
	all["data.json"] = data
	return all
}

// visible shows what a terminal would act on, or not show at all: whoever signs
// must see what is signed, and in the order in which it stands there.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "<U+%04X>", r)
		}
	}
	return b.String()
}
