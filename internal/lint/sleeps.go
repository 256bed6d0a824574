package lint

import (
	"fmt"
	"go/token"
	"io/fs"
	"path"
)

// Sleeps returns where the tests of a module name time.Sleep, a sentence each.
// A test that sleeps is slow on a fast machine and wrong on a slow one. A file
// that imports testing belongs to the tests, whatever its name.
func Sleeps(fsys fs.FS) ([]string, error) {
	files, err := goFiles(fsys)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, f := range files {
		test := f.test
		known := "" // the name that the file knows package time by
		for i, spec := range f.tree.Imports {
			switch {
			case f.importPath(i) == "testing":
				test = true
			case f.importPath(i) != "time":
			case spec.Name != nil:
				known = spec.Name.Name
			default:
				known = path.Base(f.importPath(i))
			}
		}
		if !test {
			continue
		}
		if known == "." {
			found = append(found, fmt.Sprintf("%s: imports time by a dot: write time.Name", f.name))
		}
		f.selectors(func(pkg, name string, at token.Position) {
			if pkg == known && name == "Sleep" {
				found = append(found, fmt.Sprintf("%s: time.Sleep in a test: wait for the event itself, or inject a clock", at))
			}
		})
	}
	return found, nil
}
