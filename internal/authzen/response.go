package authzen

import (
	"strconv"
	"strings"

	"github.com/microwall/microwall/policy"
)

// AppendDecision appends the response for a decision, without white space.
func AppendDecision(dst []byte, d policy.Decision) []byte {
	dst = append(dst, `{"decision":`...)
	dst = strconv.AppendBool(dst, d.Allowed)
	if context := appendContext(nil, d); len(context) > 0 {
		dst = append(dst, `,"context":{`...)
		dst = append(dst, context...)
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// appendContext appends the members of the context, nothing if it has none.
func appendContext(dst []byte, d policy.Decision) []byte {
	comma := func() {
		if len(dst) > 0 {
			dst = append(dst, ',')
		}
	}
	if len(d.Reasons) > 0 {
		dst = append(dst, `"reasons":[`...)
		for i, r := range d.Reasons {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"namespace":`...)
			dst = appendString(dst, string(r.Namespace))
			dst = append(dst, `,"reason":`...)
			dst = appendString(dst, r.Text)
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
	}
	if d.Obligations.Len() > 0 {
		comma()
		dst = append(dst, `"obligations":`...)
		dst = d.Obligations.Value().AppendJSON(dst)
	}
	if len(d.Versions) > 0 {
		comma()
		dst = append(dst, `"versions":[`...)
		for i, v := range d.Versions {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"namespace":`...)
			dst = appendString(dst, string(v.Namespace))
			dst = append(dst, `,"epoch":`...)
			dst = strconv.AppendUint(dst, v.Epoch, 10)
			dst = append(dst, `,"revision":`...)
			dst = strconv.AppendUint(dst, v.Revision, 10)
			dst = append(dst, `,"digest":`...)
			dst = appendString(dst, v.Digest.String())
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
	}
	if len(d.Stale) > 0 {
		comma()
		dst = append(dst, `"stale":[`...)
		for i, n := range d.Stale {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, string(n))
		}
		dst = append(dst, ']')
	}
	return dst
}

// appendString quotes s. Rego can make strings that are not UTF-8, out of
// base64 for instance; JSON cannot say them.
func appendString(dst []byte, s string) []byte {
	return policy.StringValue(strings.ToValidUTF8(s, "\uFFFD")).AppendJSON(dst)
}
