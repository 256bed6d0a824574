package rego_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/examples/boutique"
	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/internal/decisions"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
	"github.com/microwall/microwall/policy/rego/internal/differential"
)

// wall is what decides in one namespace, as it does in a PDP and in a client.
type wall struct {
	name     string
	path     *live.Path
	reads    []policy.ReadPath
	examples []document
	builder  decisionkey.Builder
}

// patient is a budget of time that no machine goes over.
var patient = rego.Options{Budget: time.Minute}

// newWall compiles a policy, and a guardrail unless that is "".
func newWall(t testing.TB, guardrail, module, data string) *wall {
	t.Helper()
	all := map[policy.Namespace]*bundles.Bundle{"shop.cart": bundleOf(t, module, data)}
	var guardrails []policy.Namespace
	if guardrail != "" {
		all["shop"], guardrails = bundleOf(t, guardrail, ""), []policy.Namespace{"shop"}
	}
	s, err := live.NewLocal(t.Context(), all, guardrails, patient)
	if err != nil {
		t.Fatal(err)
	}
	return wallOf(t, s, "shop.cart")
}

func wallOf(t testing.TB, s *live.Snapshot, n policy.Namespace) *wall {
	t.Helper()
	p, err := s.Path(n)
	if err != nil {
		t.Fatal(err)
	}
	return &wall{name: string(n), path: p, reads: p.Layout().Reads()}
}

func bundleOf(t testing.TB, module, data string) *bundles.Bundle {
	t.Helper()
	files := fstest.MapFS{"authz.rego": {Data: []byte("package authz\n" + module)}}
	if data != "" {
		files["data.json"] = &fstest.MapFile{Data: []byte(data)}
	}
	b, err := bundles.Read(files)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// boutiqueWalls are those of the example, with the requests that its teams wrote down.
func boutiqueWalls(t testing.TB) (all []*wall) {
	t.Helper()
	folder, err := live.OpenFolder(t.Context(), "../../examples/boutique", patient, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := boutique.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.IsDir() || f.Name() == "guardrails" {
			continue
		}
		n := policy.Namespace("boutique." + f.Name())
		text, err := boutique.FS.ReadFile(path.Join(f.Name(), decisions.File))
		if err != nil {
			t.Fatal(err)
		}
		cases, err := decisions.Parse(text, n)
		if err != nil {
			t.Fatal(err)
		}
		w := wallOf(t, folder.Snapshot(), n)
		for _, c := range cases {
			if d, ok := documentOf(&c.Request, c.Time); ok {
				w.examples = append(w.examples, d)
			}
		}
		all = append(all, w)
	}
	return all
}

// generatedWall is that of a seed, and its inputs; not ok is one that a PDP does not take.
func generatedWall(t testing.TB, seed uint64) (w *wall, ok bool) {
	t.Helper()
	c := differential.Generate(seed)
	files := fstest.MapFS{"data.json": {Data: []byte(c.Data)}}
	for _, m := range c.Modules {
		files[m.Path] = &fstest.MapFile{Data: []byte(m.Source)}
	}
	b, err := bundles.Read(files)
	if err != nil {
		return nil, false
	}
	s, err := live.NewLocal(t.Context(), map[policy.Namespace]*bundles.Bundle{"shop.cart": b}, nil, patient)
	if err != nil {
		return nil, false
	}
	if _, err := s.Path("shop.cart"); err != nil {
		return nil, false
	}
	w = wallOf(t, s, "shop.cart")
	w.name = c.String()
	for _, input := range c.Inputs {
		var in map[string]any
		read := json.NewDecoder(strings.NewReader(input))
		read.UseNumber()
		if read.Decode(&in) != nil {
			continue
		}
		d := document{in: in, unix: moment.Unix()}
		if _, err := d.request(); err == nil {
			w.examples = append(w.examples, d)
		}
	}
	return w, true
}

// document is a request in the shape of an input, and the time that it is decided
// at. It is not changed.
type document struct {
	in   map[string]any
	unix int64
}

var moment = time.Date(2026, 11, 23, 12, 34, 56, 0, time.UTC)

// moments are times of which each two differ in some part, and agree in others.
var moments = []time.Duration{0, time.Second, time.Minute, time.Hour, 24 * time.Hour, 25 * time.Hour, 7 * 24 * time.Hour, 365 * 24 * time.Hour, -60 * 365 * 24 * time.Hour}

// documentOf is a request as a document, if it is one that a client could send.
func documentOf(r *policy.Request, at time.Time) (document, bool) {
	d := document{map[string]any{
		"subject":  map[string]any{"type": r.Subject.Type, "id": r.Subject.ID, "properties": r.Subject.Properties.Map()},
		"action":   map[string]any{"name": r.Action.Name, "properties": r.Action.Properties.Map()},
		"resource": map[string]any{"type": r.Resource.Type, "id": r.Resource.ID, "properties": r.Resource.Properties.Map()},
		"context":  r.Context.Map(),
	}, at.Unix()}
	_, err := d.request()
	return d, err == nil
}

// request is the document as a request; an error is one that no door lets in.
func (d document) request() (r policy.Request, err error) {
	r.Namespace = "shop.cart"
	part := func(name string) map[string]any { m, _ := d.in[name].(map[string]any); return m }
	text := func(m map[string]any, name string) string { s, _ := m[name].(string); return s }
	open := func(m map[string]any, name string) (p policy.Properties) {
		v, there := m[name]
		members, ok := v.(map[string]any)
		if there && !ok {
			err = policy.Errorf(policy.BadRequest, "%s is no object", name)
		}
		if err == nil {
			p, err = policy.NewProperties(members)
		}
		return p
	}
	subject, action, resource := part("subject"), part("action"), part("resource")
	r.Subject = policy.Entity{Type: text(subject, "type"), ID: text(subject, "id"), Properties: open(subject, "properties")}
	r.Action = policy.Action{Name: text(action, "name"), Properties: open(action, "properties")}
	r.Resource = policy.Entity{Type: text(resource, "type"), ID: text(resource, "id"), Properties: open(resource, "properties")}
	r.Context = open(d.in, "context")
	if err != nil {
		return policy.Request{}, err
	}
	return r, (policy.Limits{}).Check(&r)
}

// with is the document with a value at a path, and what leads there.
func (d document) with(p policy.ReadPath, v any) document {
	in, _ := put(d.in, p, v).(map[string]any)
	return document{in, d.unix}
}

func put(at any, p policy.ReadPath, v any) any {
	if len(p) == 0 {
		return v
	}
	if s := p[0]; s.Element {
		list, ok := at.([]any)
		if !ok && v == (absent{}) || s.Index < 0 || s.Index > 100 {
			return at
		}
		list = slices.Clone(list)
		for int64(len(list)) <= s.Index {
			list = append(list, nil)
		}
		if list[s.Index] = put(list[s.Index], p[1:], v); list[s.Index] == (absent{}) {
			return list[:s.Index]
		}
		return list
	}
	m, ok := at.(map[string]any)
	if !ok && v == (absent{}) {
		return at
	}
	m = maps.Clone(m)
	if m == nil {
		m = map[string]any{}
	}
	if m[p[0].Name] = put(m[p[0].Name], p[1:], v); m[p[0].Name] == (absent{}) {
		delete(m, p[0].Name)
	}
	return m
}

// verdict is what is said of a document, and under which key that is remembered.
type verdict struct {
	key, decision string
	document      string
}

// ask asks about a document, as a client does without its cache.
func (w *wall) ask(t testing.TB, d document) verdict {
	t.Helper()
	r, err := d.request()
	if err != nil {
		t.Fatalf("%s: %v", d, err)
	}
	return w.asked(t, d, &r)
}

func (w *wall) asked(t testing.TB, d document, r *policy.Request) verdict {
	t.Helper()
	a := verdict{document: d.String(), key: string(w.builder.Key(w.path.Layout(), r, d.unix))}
	switch got, err := w.path.Decide(t.Context(), rego.NewInput(r, rego.NewStamp(time.Unix(d.unix, 0)))); {
	case err != nil && policy.KindOf(err) != policy.Failed:
		t.Fatalf("%s: %v", d, err)
	case err != nil:
		a.decision = err.Error()
	default:
		a.decision = fmt.Sprint(got.Allowed, got.Reasons, got.Obligations)
	}
	return a
}

// exact fails the test unless any two of these have one key exactly if all that is
// read is the same in both, and then one decision. It returns how many had the key
// of another one before them.
func (w *wall) exact(t testing.TB, all []document) (shared int) {
	t.Helper()
	byKey, byWalks := map[string]verdict{}, map[string]verdict{}
	for _, d := range all {
		if _, err := d.request(); err != nil {
			continue
		}
		a, walks := w.ask(t, d), w.walks(d)
		if other, ok := byKey[a.key]; !ok {
			byKey[a.key] = a
		} else {
			shared++
			if a.decision != other.decision {
				t.Errorf("%v: one key for\n%s\n%s\ndecided\n%s\n%s", texts(w.reads), other.document, a.document, other.decision, a.decision)
			}
		}
		if other, ok := byWalks[walks]; ok && other.key != a.key {
			t.Errorf("%v: two keys for\n%s\n%s", texts(w.reads), other.document, a.document)
		}
		byWalks[walks] = a
	}
	if len(byKey) != len(byWalks) {
		t.Errorf("%v: %d keys for %d that differ", texts(w.reads), len(byKey), len(byWalks))
	}
	return shared
}

// walks says how the walks down all paths that are read end, by no means that a key
// is made by.
func (w *wall) walks(d document) string {
	var all []string
	at := time.Unix(d.unix, 0).UTC()
	in := maps.Clone(d.in)
	for _, open := range []policy.ReadPath{{{Name: "subject"}, {Name: "properties"}}, {{Name: "action"}, {Name: "properties"}}, {{Name: "resource"}, {Name: "properties"}}, {{Name: "context"}}} {
		if leadsTo(in, open) == nil {
			in, _ = put(in, open, map[string]any{}).(map[string]any)
		}
	}
	in["time"] = map[string]any{"unix": d.unix, "hour": at.Hour(), "minute": at.Minute(), "date": at.Format(time.DateOnly), "weekday": at.Weekday().String()}
	for _, p := range w.reads {
		var v any = in
		steps := 0
		for ; steps < len(p); steps++ {
			next := leadsTo(v, p[steps:steps+1])
			if next == nil {
				break
			}
			v = *next
		}
		if steps == len(p) {
			all = append(all, "is "+spelled(v))
		} else {
			all = append(all, fmt.Sprintf("ends at %d on %.1s", steps, spelled(v)))
		}
	}
	return strings.Join(all, "\n")
}

// leadsTo returns what is at a path, nil if there is nothing.
func leadsTo(v any, p policy.ReadPath) *any {
	for _, s := range p {
		next, ok := any(nil), false
		switch x := v.(type) {
		case map[string]any:
			if !s.Element {
				next, ok = x[s.Name]
			}
		case []any:
			if ok = s.Element && 0 <= s.Index && s.Index < int64(len(x)); ok {
				next = x[s.Index]
			}
		case []string:
			if ok = s.Element && 0 <= s.Index && s.Index < int64(len(x)); ok {
				next = x[s.Index]
			}
		}
		if !ok {
			return nil
		}
		v = next
	}
	return &v
}

// spelled spells a value in one way: its type is its first letter.
func spelled(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool " + strconv.FormatBool(v)
	case string:
		return "text " + strconv.Quote(v)
	case []string:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		return spelled(list)
	case []any:
		var b bytes.Buffer
		for _, e := range v {
			b.WriteString(spelled(e) + ",")
		}
		return "array [" + b.String() + "]"
	case map[string]any:
		var b bytes.Buffer
		for _, name := range slices.Sorted(maps.Keys(v)) {
			b.WriteString(strconv.Quote(name) + ":" + spelled(v[name]) + ",")
		}
		return "object {" + b.String() + "}"
	}
	// A whole number in digits is that; every other numeral is the nearest double.
	text := fmt.Sprint(v)
	if whole, ok := new(big.Int).SetString(text, 10); ok {
		return "# " + whole.String()
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return "no number " + text
	}
	return "# " + new(big.Rat).SetFloat64(f).RatString()
}
