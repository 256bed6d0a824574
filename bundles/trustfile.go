package bundles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/microwall/microwall/policy"
)

// maxTrust bounds a trust file, in bytes.
const maxTrust = 1 << 20

// ParseTrust reads a trust file. It is YAML, one document of at most 1 MiB:
//
//	domain: boutique          # first label of all namespaces; list it too
//	version: 3                # from 1; raise it with every change
//	epoch: 1                  # from 1
//	keys:                     # name: public key
//	  p1: p1+5a8e...+AQ...
//	  cart-ci: cart-ci+13f2...+AS...
//	namespaces:
//	  boutique: {signers: [p1], threshold: 1, guardrail: true}
//	  boutique.cart: {signers: [cart-ci]}
//	  boutique.pay: {signers: [pay-ci], max-staleness: 30s, when-stale: deny}
//	beacons: [p1]             # optional
//	roots: {keys: [p1], threshold: 1}  # optional
//
// threshold is 1 if it is not there, guardrail false. max-staleness (from 15s)
// and when-stale tighten what releases of the namespace, and of all below it,
// say themselves, see [Trust.Staleness]. A threshold counts
// different public keys: one that the listed keys cannot reach is refused. So
// are unknown and repeated fields, names of keys that are not listed, and what
// YAML has beyond plain values (anchors, tags, merging, null), all as
// BadRequest errors that name the line.
func ParseTrust(file []byte) (*Trust, error) {
	if len(file) > maxTrust {
		return nil, policy.Errorf(policy.Exhausted, "trust file is %d bytes, the limit is %d", len(file), maxTrust)
	}
	if !utf8.Valid(file) {
		return nil, policy.Errorf(policy.BadRequest, "trust file is not UTF-8")
	}
	d := yaml.NewDecoder(bytes.NewReader(file))
	var doc yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, policy.Errorf(policy.BadRequest, "trust file is empty; \"microwall keygen\" prints the lines that begin one")
	} else if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "trust file is not YAML: %w", err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, policy.Errorf(policy.BadRequest, "trust file has something after its first document; keep one document")
	}
	t := &Trust{digest: policy.DigestOf(file)}
	r := trustReader{t: t}
	r.read(doc.Content[0])
	if r.err != nil {
		return nil, r.err
	}
	return t, nil
}

// trustReader fills a Trust and keeps the first thing that is wrong. It reads
// YAML's nodes itself, because decoding into Go values would round 1.9 to 1,
// take "" for null, and follow aliases.
type trustReader struct {
	t   *Trust
	err error
}

func (r *trustReader) fail(n *yaml.Node, format string, args ...any) {
	if r.err == nil {
		r.err = policy.Errorf(policy.BadRequest, "trust file, line %d: %w", n.Line, fmt.Errorf(format, args...))
	}
}

func (r *trustReader) read(root *yaml.Node) {
	fields := r.fields(root, "the file", "domain", "version", "epoch", "keys", "namespaces", "beacons", "roots")
	if r.err != nil {
		return
	}
	var missing []string
	for _, required := range []string{"domain", "version", "epoch", "keys", "namespaces"} {
		if fields[required] == nil {
			missing = append(missing, required)
		}
	}
	switch len(missing) {
	case 0:
	case 1:
		r.fail(root, "%s is missing", missing[0])
		return
	default:
		r.fail(root, "%s are missing", strings.Join(missing, ", "))
		return
	}
	t := r.t
	t.domain = r.text(fields["domain"])
	t.version = r.count(fields["version"], "version")
	t.epoch = r.count(fields["epoch"], "epoch")
	if ns, err := policy.ParseNamespace(t.domain); r.err == nil && (err != nil || ns.Parent() != "") {
		r.fail(fields["domain"], "domain %.200q must be one label, for instance \"boutique\"", t.domain)
	}
	r.readKeys(fields["keys"])
	r.readNamespaces(fields["namespaces"])
	if n := fields["beacons"]; n != nil {
		t.beacons = r.names(n, "beacons")
	}
	if n := fields["roots"]; n != nil {
		roots := r.fields(n, "roots", "keys", "threshold")
		t.roots = r.quorum(n, roots["keys"], roots["threshold"], "roots", "keys")
	}
}

func (r *trustReader) readKeys(n *yaml.Node) {
	keys := r.fields(n, "keys")
	r.t.keys = make(map[string]publicKey, len(keys))
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		value := keys[name]
		s := r.text(value)
		if r.err != nil {
			return
		}
		key, err := parsePublic(s)
		if err != nil {
			r.fail(value, "key %s: %w", name, err)
			return
		}
		if key.verifier.Name() != name {
			r.fail(value, "key %s: the public key itself says that its name is %s; list it under that", name, key.verifier.Name())
			return
		}
		r.t.keys[name] = key
	}
}

func (r *trustReader) readNamespaces(n *yaml.Node) {
	list := r.fields(n, "namespaces")
	r.t.namespaces = make(map[policy.Namespace]authority, len(list))
	for _, name := range slices.Sorted(maps.Keys(list)) {
		value := list[name]
		ns, err := policy.ParseNamespace(name)
		if err != nil {
			r.fail(value, "namespaces: %w", err)
		} else if ns.Domain() != r.t.domain {
			r.fail(value, "namespace %s is not in the domain %s; its first label must be %s", ns, r.t.domain, r.t.domain)
		}
		fields := r.fields(value, name, "signers", "threshold", "guardrail", "max-staleness", "when-stale")
		a := authority{quorum: r.quorum(value, fields["signers"], fields["threshold"], name, "signers")}
		if g := fields["guardrail"]; g != nil {
			a.guardrail = r.boolean(g, name+": guardrail")
		}
		if n := fields["max-staleness"]; n != nil {
			a.maxStaleness = r.staleness(n, name+": max-staleness")
		}
		if n := fields["when-stale"]; n != nil {
			if a.whenStale, err = ParseWhenStale(r.text(n)); err != nil {
				r.fail(n, "%s: %w", name, err)
			}
		}
		if r.err != nil {
			return
		}
		r.t.namespaces[ns] = a
	}
}

// quorum reads a list of keys and how many of them must sign.
func (r *trustReader) quorum(at, list, threshold *yaml.Node, what, field string) quorum {
	q := quorum{threshold: 1}
	if r.err == nil && list == nil {
		r.fail(at, "%s: %s is missing; list at least one key", what, field)
	}
	if r.err != nil {
		return quorum{}
	}
	q.names = r.names(list, what)
	if threshold != nil {
		q.threshold = int(min(r.count(threshold, what+": threshold"), maxTrust))
	}
	different := map[string]bool{}
	for _, name := range q.names {
		different[r.t.keys[name].public] = true
	}
	if r.err == nil && q.threshold > len(different) {
		r.fail(at, "%s: threshold is %d, and the number of different keys listed is %d; nothing could ever be signed", what, q.threshold, len(different))
	}
	return q
}

// names reads a list of names of keys, each once.
func (r *trustReader) names(n *yaml.Node, what string) []string {
	if !r.plain(n, yaml.SequenceNode, "!!seq") {
		r.fail(n, "%s must be a list of names of keys, for instance [cart-ci]", what)
		return nil
	}
	names := make([]string, 0, len(n.Content))
	for _, item := range n.Content {
		name := r.text(item)
		if r.err != nil {
			return nil
		}
		if _, ok := r.t.keys[name]; !ok {
			r.fail(item, "%s: key %.200q is not listed under keys; add it there, as \"microwall keygen\" prints it", what, name)
		} else if slices.Contains(names, name) {
			r.fail(item, "%s: key %s is there twice", what, name)
		}
		names = append(names, name)
	}
	return names
}

// fields returns the members of a mapping. If names are given there are no
// others.
func (r *trustReader) fields(n *yaml.Node, what string, names ...string) map[string]*yaml.Node {
	if !r.plain(n, yaml.MappingNode, "!!map") {
		r.fail(n, "%s must be a mapping of names to values", what)
		return nil
	}
	fields := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		name := r.text(n.Content[i])
		if r.err != nil {
			return nil
		}
		if len(names) > 0 && !slices.Contains(names, name) {
			r.fail(n.Content[i], "%s: unknown field %.200q; known are %s", what, name, strings.Join(names, ", "))
			return nil
		}
		if fields[name] != nil {
			r.fail(n.Content[i], "%s: %s is there twice", what, name)
			return nil
		}
		fields[name] = n.Content[i+1]
	}
	return fields
}

// plain reports whether n is of that kind, without an anchor or a tag.
func (r *trustReader) plain(n *yaml.Node, kind yaml.Kind, tags ...string) bool {
	return n.Kind == kind && n.Anchor == "" && n.Style&yaml.TaggedStyle == 0 && slices.Contains(tags, n.ShortTag())
}

// text reads a string. A plain scalar is one too, whatever else YAML could take
// it for: a key may be called 1e3.
func (r *trustReader) text(n *yaml.Node) string {
	if !r.plain(n, yaml.ScalarNode, "!!str", "!!int", "!!float", "!!bool", "!!timestamp") || n.Value == "" {
		r.fail(n, "a plain text must stand here")
		return ""
	}
	return n.Value
}

// count reads a whole number from 1, in decimal.
func (r *trustReader) count(n *yaml.Node, what string) uint64 {
	if r.plain(n, yaml.ScalarNode, "!!int") {
		if v, err := strconv.ParseUint(n.Value, 10, 63); err == nil && v >= 1 && strconv.FormatUint(v, 10) == n.Value {
			return v
		}
	}
	r.fail(n, "%s must be a whole number from 1", what)
	return 0
}

// staleness reads a time such as 30s or 1h.
func (r *trustReader) staleness(n *yaml.Node, what string) time.Duration {
	d, err := time.ParseDuration(r.text(n))
	if err != nil || checkStaleness(d) != nil {
		r.fail(n, "%s must be whole seconds from %v to %v, for instance 30s or 1h", what, MinMaxStaleness, MaxMaxStaleness)
	}
	return d
}

func (r *trustReader) boolean(n *yaml.Node, what string) bool {
	if r.plain(n, yaml.ScalarNode, "!!bool") {
		if v, err := strconv.ParseBool(n.Value); err == nil {
			return v
		}
	}
	r.fail(n, "%s must be true or false", what)
	return false
}
