package decisions

import (
	"cmp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/microwall/microwall/policy"
)

// DefaultTime returns what input.time says in a case that does not set it, the
// same whenever the case is run: Monday, 2026-01-05T12:00:00Z.
func DefaultTime() time.Time { return time.Date(2026, time.January, 5, 12, 0, 0, 0, time.UTC) }

// Case is one request and what is wanted of it.
type Case struct {
	// Name of the case, unique in its file.
	Name string
	// Line that the case begins in, from 1.
	Line int
	// Request as it is put. Its namespace is "" if the case names none.
	Request policy.Request
	// Time that the request is decided at.
	Time time.Time
	// Want is the answer that is wanted.
	Want Want
}

// Want is a wanted answer: a decision, or an error.
type Want struct {
	// Allowed is the wanted decision, if no error is wanted.
	Allowed bool
	// Error is part of the text of the error that is wanted instead of a
	// decision; "" wants a decision.
	Error string
	// Reasons that are wanted, each as "namespace: text", all of them in any
	// order. nil compares none.
	Reasons []string
	// Obligations that are wanted, all of them. nil compares none.
	Obligations *policy.Properties
}

// Parse reads the file of a policy of namespace own, which messages name and
// which may be "". What is wrong with it is an [*Error]; a file over 16 MiB is an
// error of kind policy.Exhausted.
func Parse(file []byte, own policy.Namespace) ([]Case, error) {
	root, err := document(file)
	if err != nil {
		return nil, err
	}
	top, err := members(root, "the file", "decisions")
	if err != nil {
		return nil, err
	}
	if top["decisions"] == nil {
		return nil, fail(root, "decisions is missing; list the cases under it")
	}
	list, err := items(top["decisions"], "decisions")
	if err != nil {
		return nil, err
	}
	cases := make([]Case, 0, len(list))
	lines := make(map[string]int, len(list))
	for _, item := range list {
		c, err := parseCase(item, own)
		if err != nil {
			return nil, err
		}
		if first, ok := lines[c.Name]; ok {
			return nil, fail(item, "name %.200q is there twice, first in line %d; say what is different about this case", c.Name, first)
		}
		lines[c.Name] = c.Line
		cases = append(cases, c)
	}
	return cases, nil
}

func parseCase(n *yaml.Node, own policy.Namespace) (c Case, err error) {
	c = Case{Line: n.Line, Time: DefaultTime()}
	fields, err := members(n, "a case", "name", "namespace", "time", "request", "want")
	if err != nil {
		return Case{}, err
	}
	for _, required := range []string{"name", "request", "want"} {
		if fields[required] == nil {
			return Case{}, fail(n, "%s is missing", required)
		}
	}
	if c.Name, err = text(fields["name"], "name"); err != nil {
		return Case{}, err
	}
	if strings.TrimSpace(c.Name) == "" {
		return Case{}, fail(fields["name"], "name is empty; say what the case is about")
	}
	if c.Request, err = parseRequest(fields["request"]); err != nil {
		return Case{}, err
	}
	if at := fields["namespace"]; at != nil {
		name, err := text(at, "namespace")
		if err != nil {
			return Case{}, err
		}
		if c.Request.Namespace, err = policy.ParseNamespace(name); err != nil {
			return Case{}, fail(at, "%v", err)
		}
	}
	if at := fields["time"]; at != nil {
		if c.Time, err = parseTime(at); err != nil {
			return Case{}, err
		}
	}
	if c.Request.Namespace != "" {
		own = c.Request.Namespace
	}
	c.Want, err = parseWant(fields["want"], own)
	return c, err
}

func parseRequest(n *yaml.Node) (r policy.Request, err error) {
	fields, err := members(n, "request", "subject", "action", "resource", "context")
	if err != nil {
		return policy.Request{}, err
	}
	if at := fields["subject"]; at != nil {
		if r.Subject, err = parseEntity(at, "subject"); err != nil {
			return policy.Request{}, err
		}
	}
	if at := fields["action"]; at != nil {
		if r.Action, err = parseAction(at); err != nil {
			return policy.Request{}, err
		}
	}
	if at := fields["resource"]; at != nil {
		if r.Resource, err = parseEntity(at, "resource"); err != nil {
			return policy.Request{}, err
		}
	}
	if at := fields["context"]; at != nil {
		if r.Context, err = properties(at, "context"); err != nil {
			return policy.Request{}, err
		}
	}
	return r, nil
}

func parseEntity(n *yaml.Node, what string) (e policy.Entity, err error) {
	fields, err := members(n, what, "type", "id", "properties")
	if err != nil {
		return policy.Entity{}, err
	}
	if at := fields["type"]; at != nil {
		if e.Type, err = text(at, what+".type"); err != nil {
			return policy.Entity{}, err
		}
	}
	if at := fields["id"]; at != nil {
		if e.ID, err = text(at, what+".id"); err != nil {
			return policy.Entity{}, err
		}
	}
	if at := fields["properties"]; at != nil {
		if e.Properties, err = properties(at, what+".properties"); err != nil {
			return policy.Entity{}, err
		}
	}
	return e, nil
}

func parseAction(n *yaml.Node) (a policy.Action, err error) {
	fields, err := members(n, "action", "name", "properties")
	if err != nil {
		return policy.Action{}, err
	}
	if at := fields["name"]; at != nil {
		if a.Name, err = text(at, "action.name"); err != nil {
			return policy.Action{}, err
		}
	}
	if at := fields["properties"]; at != nil {
		if a.Properties, err = properties(at, "action.properties"); err != nil {
			return policy.Action{}, err
		}
	}
	return a, nil
}

// parseTime reads a time to the second, as input.time has it.
func parseTime(n *yaml.Node) (time.Time, error) {
	if n.Kind == yaml.ScalarNode {
		if t, err := time.Parse(time.RFC3339, n.Value); err == nil && t.Nanosecond() == 0 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fail(n, "time must be written to the second and with its zone, for instance 2026-11-23T10:00:00Z")
}

func parseWant(n *yaml.Node, own policy.Namespace) (w Want, err error) {
	fields, err := members(n, "want", "allowed", "reasons", "obligations", "error")
	if err != nil {
		return Want{}, err
	}
	if at := fields["error"]; at != nil {
		if len(fields) > 1 {
			return Want{}, fail(at, "want: an error comes without a decision; keep error, or the others")
		}
		if w.Error, err = text(at, "want.error"); err != nil {
			return Want{}, err
		}
		if strings.TrimSpace(w.Error) == "" {
			return Want{}, fail(at, "want.error is empty; write a part of the error's text")
		}
		return w, nil
	}
	if fields["allowed"] == nil {
		return Want{}, fail(n, "want.allowed is missing; write true or false, or want an error")
	}
	if w.Allowed, err = boolean(fields["allowed"], "want.allowed"); err != nil {
		return Want{}, err
	}
	if at := fields["reasons"]; at != nil {
		if w.Reasons, err = parseReasons(at, own); err != nil {
			return Want{}, err
		}
	}
	if at := fields["obligations"]; at != nil {
		p, err := properties(at, "want.obligations")
		if err != nil {
			return Want{}, err
		}
		if !w.Allowed && p.Len() > 0 {
			return Want{}, fail(at, "want.obligations: a denial has none; take them away")
		}
		w.Obligations = &p
	}
	return w, nil
}

func parseReasons(n *yaml.Node, own policy.Namespace) ([]string, error) {
	list, err := items(n, "want.reasons")
	if err != nil {
		return nil, err
	}
	reasons := make([]string, 0, len(list))
	for _, item := range list {
		reason, err := text(item, "a reason")
		if err != nil {
			return nil, err
		}
		namespace, _, ok := strings.Cut(reason, ": ")
		if _, err := policy.ParseNamespace(namespace); !ok || err != nil {
			return nil, fail(item, "reason %.200q does not say whose it is; write \"%s: %.200s\"", reason, cmp.Or(own, "namespace"), reason)
		}
		reasons = append(reasons, reason)
	}
	return reasons, nil
}
