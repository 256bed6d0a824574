package cache

import (
	"encoding/json"
	"strings"

	"github.com/microwall/microwall/policy"
)

// own returns a decision that holds on to nothing but itself. A policy hands out parts
// of a request, and of a path or a name the text that it was cut out of stays in
// memory, which a caller can make as long as a request may be.
func own(d policy.Decision) policy.Decision {
	if len(d.Reasons) > 0 {
		reasons := make([]policy.Reason, len(d.Reasons))
		for i, r := range d.Reasons {
			reasons[i] = policy.Reason{Namespace: r.Namespace, Text: strings.Clone(r.Text)}
		}
		d.Reasons = reasons
	}
	// Another form than Go's maps is that of an answer, which is nobody's request.
	if m, ok := d.Obligations.Held().(map[string]any); ok && len(m) > 0 {
		if p, err := policy.NewProperties(ownAny(m).(map[string]any)); err == nil {
			d.Obligations = p
		}
	}
	return d
}

func ownAny(x any) any {
	switch x := x.(type) {
	case string:
		return strings.Clone(x)
	case json.Number:
		return json.Number(strings.Clone(string(x)))
	case []any:
		list := make([]any, len(x))
		for i := range x {
			list[i] = ownAny(x[i])
		}
		return list
	case map[string]any:
		m := make(map[string]any, len(x))
		for name, v := range x {
			m[strings.Clone(name)] = ownAny(v)
		}
		return m
	}
	return x
}
