package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/decisions"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// checkReport is what check says in JSON.
type checkReport struct {
	Folder    string           `json:"folder"`
	Namespace policy.Namespace `json:"namespace,omitempty"`
	Digest    policy.Digest    `json:"digest,omitzero"`
	Problems  []rego.Problem   `json:"problems"`
	*rego.Report
}

func newCheck(w world) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "check DIR",
		GroupID: groupAuthor,
		Short:   "Say whether a policy compiles, and what is wrong with it",
		Long: `Check a folder with a policy: whether it is a bundle, whether its Rego and its
tests compile in the language that Microwall has (OPA's, without clock, network
and chance), and whether its rules have the shapes that they must have. Every
problem is printed with its file, line and column, and with a hint at what to write instead.

Of a policy without problems it prints the paths of the input that it may read,
each with the line that reads all of it, which of many rules are tried for every
request because an index cannot find them, and notes on what is most likely a
mistake although it compiles: rules that nobody asks for, data that is not there,
calls that can only fail, and uses of the input, the context or the time as a
whole, by which hardly a decision can be remembered.

Exit code 1 if there is a problem.`,
		Example: `  microwall check policies/cart
  microwall check policies/cart --format json`,
		Args:              one("folder"),
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			f, err := openPolicy(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if _, err := f.decisions(); err != nil {
				return err
			}
			if err := f.print(w.stdout, out); err != nil {
				return err
			}
			if len(f.problems) > 0 {
				return errNo
			}
			return nil
		},
	}
	out.flag(cmd, formatJSON)
	return cmd
}

func completeFolder(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// policyFolder is a policy as its authors have it, and what is wrong with it.
type policyFolder struct {
	dir string
	// bundle is nil if the folder is none.
	bundle *bundles.Bundle
	// problems name their files by paths from here, not inside the bundle.
	problems []rego.Problem
	// report does likewise; it is nil if there are problems.
	report *rego.Report
}

// openPolicy reads a folder and compiles it. The error says that this could not
// be done; what is wrong with the policy is a problem.
func openPolicy(ctx context.Context, dir string) (*policyFolder, error) {
	f := &policyFolder{dir: dir}
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, policy.Errorf(policy.BadRequest, "folder %s does not exist; name one that holds a policy: .manifest, *.rego, data.json", dir)
	case err != nil:
		return nil, policy.Errorf(policy.BadRequest, "cannot read the folder: %w", err)
	case !info.IsDir():
		return nil, policy.Errorf(policy.BadRequest, "%s is no folder; name the one that holds the policy", dir)
	}
	b, err := bundles.Read(os.DirFS(dir))
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if err != nil {
		f.problems = []rego.Problem{{File: dir, Message: err.Error()}}
		return f, nil //nolint:nilerr // it is a problem of the policy
	}
	f.bundle = b
	if f.report, err = rego.Check(ctx, live.SourceOf(b)); err != nil {
		problems, ok := errors.AsType[rego.Problems](err)
		if !ok {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		f.add(problems)
		return f, nil
	}
	for i := range f.report.Reads {
		f.report.Reads[i].File = f.path(f.report.Reads[i].File)
	}
	for i := range f.report.Tried {
		f.report.Tried[i].File = f.path(f.report.Tried[i].File)
	}
	for i := range f.report.Notes {
		f.report.Notes[i].File = f.path(f.report.Notes[i].File)
	}
	return f, nil
}

// path returns where a file of the bundle is from here.
func (f *policyFolder) path(file string) string {
	return filepath.Join(f.dir, filepath.FromSlash(file))
}

// add takes over problems of the bundle. One that names no file of the bundle
// is about the folder.
func (f *policyFolder) add(problems []rego.Problem) {
	modules := slices.Concat(f.bundle.Modules(), f.bundle.Tests())
	for _, p := range problems {
		isModule := slices.ContainsFunc(modules, func(m bundles.Module) bool { return m.Path == p.File })
		if isModule || p.File == "data.json" {
			p.File = f.path(p.File)
		} else {
			p.File = f.dir
		}
		f.problems = append(f.problems, p)
	}
}

// decisions reads the folder's decisions.yaml, nil if it has none. What is wrong
// with the file is added to the problems.
func (f *policyFolder) decisions() ([]decisions.Case, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", decisions.File, err)
	}
	found := false
	for _, e := range entries {
		switch name := strings.ToLower(e.Name()); {
		case e.Name() == decisions.File:
			found = true
		case name == decisions.File, name == "decisions.yml", name == "decisions.json":
			// It would be left out without a word.
			f.problems = append(f.problems, rego.Problem{File: filepath.Join(f.dir, e.Name()), Message: "this file is not read", Hint: "rename it to " + decisions.File})
		}
	}
	if !found {
		return nil, nil
	}
	path := filepath.Join(f.dir, decisions.File)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil, policy.Errorf(policy.BadRequest, "%s is no regular file; put one in its place", path)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the decisions: %w", err)
	}
	var own policy.Namespace
	if f.bundle != nil {
		own = f.bundle.Namespace()
	}
	cases, err := decisions.Parse(file, own)
	if wrong, ok := errors.AsType[*decisions.Error](err); ok {
		f.problems = append(f.problems, rego.Problem{File: path, Line: wrong.Line, Column: wrong.Column, Message: wrong.Message})
		return nil, nil
	}
	return cases, err
}

func (f *policyFolder) print(to io.Writer, out output) error {
	if out.format == formatJSON {
		r := checkReport{Folder: f.dir, Problems: append([]rego.Problem{}, f.problems...), Report: f.report}
		if f.bundle != nil {
			r.Namespace, r.Digest = f.bundle.Namespace(), f.bundle.Digest()
		}
		return writeJSON(to, r)
	}
	if len(f.problems) > 0 {
		return printProblems(to, f.problems)
	}
	of := ""
	if n := f.bundle.Namespace(); n != "" {
		of = " of " + string(n)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: the policy%s compiles\n", f.dir, of)
	f.printReport(&b)
	for _, n := range f.report.Notes {
		b.WriteString("note: ")
		writeProblem(&b, n)
	}
	if f.bundle.Namespace() == "" {
		fmt.Fprintf(&b, "note: %s names no namespace, which test and push want: write {\"metadata\": {\"microwall\": {\"namespace\": \"shop.cart\"}}} into it, or give them --namespace\n", filepath.Join(f.dir, ".manifest"))
	}
	_, err := io.WriteString(to, b.String())
	return err
}

// printReport says what of the input a policy reads, which lines read more than
// single values of it, and which of many rules an index cannot find.
func (f *policyFolder) printReport(b *strings.Builder) {
	if len(f.report.Reads) == 0 {
		fmt.Fprintln(b, "reads nothing of the input")
	} else {
		fmt.Fprintln(b, "reads of the input, with all that is below:")
	}
	for _, r := range f.report.Reads {
		fmt.Fprintf(b, "  %s\t%s:%d: it %s\n", r.Path, r.File, r.Line, r.Why)
	}
	if len(f.report.Tried) > 0 {
		fmt.Fprintln(b, "tried for every request, because no index can find them:")
	}
	for _, t := range f.report.Tried {
		fmt.Fprintf(b, "  %s:%d: %s\n", t.File, t.Line, t.Why)
	}
}

func printProblems(to io.Writer, problems []rego.Problem) error {
	var b strings.Builder
	for _, p := range problems {
		writeProblem(&b, p)
	}
	_, err := fmt.Fprintf(to, "%s%s\n", &b, plural(len(problems), "problem"))
	return err
}

func writeProblem(b *strings.Builder, p rego.Problem) {
	hint := p.Hint
	p.Hint = ""
	fmt.Fprintln(b, p)
	if hint != "" {
		fmt.Fprintf(b, "    hint: %s\n", hint)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// namespaceOf returns the namespace that a bundle is for: its manifest's, or
// the flag's if the manifest names none; "" if neither does.
func namespaceOf(b *bundles.Bundle, flag string) (policy.Namespace, error) {
	own := b.Namespace()
	if flag == "" {
		return own, nil
	}
	n, err := policy.ParseNamespace(flag)
	if err != nil {
		return "", err
	}
	if own != "" && own != n {
		return "", policy.Errorf(policy.BadRequest, "--namespace is %s, but the policy's .manifest says %s; leave the flag away, or name another folder", n, own)
	}
	return n, nil
}
