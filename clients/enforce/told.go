package enforce

import (
	"strings"

	"github.com/microwall/microwall/policy"
)

// passing reports whether the same call may pass when it is tried again.
func (r *Refused) passing() bool {
	if r.Err == nil || r.Decision.Allowed {
		return false
	}
	kind := policy.KindOf(r.Err)
	return kind == policy.Unavailable || kind == policy.Exhausted || policy.Ended(r.Err)
}

// maxTold is how many bytes a peer is told of why it was refused.
const maxTold = 1 << 10

// told is what the peer is told.
func (r *Refused) told(explain bool) string {
	text := "not allowed"
	if r.passing() {
		text = "it could not be decided whether this is allowed; try again"
	}
	switch {
	case !explain:
		return text
	case r.Err != nil:
		text += ": " + r.Err.Error()
	case len(r.Decision.Reasons) == 0:
		text += ": no rule of " + string(r.Request.Namespace) + " allows it"
	}
	if r.Err == nil {
		for i, reason := range r.Decision.Reasons {
			if i == 0 {
				text += ": "
			} else {
				text += "; "
			}
			text += reason.String()
		}
	}
	if len(text) > maxTold {
		text = text[:maxTold] + "..."
	}
	return strings.ToValidUTF8(text, "\ufffd")
}
