package authzen

import (
	"github.com/microwall/microwall/policy"
)

// AppendRequest appends a request as [ParseRequest] reads it, in one spelling,
// its namespace included.
func AppendRequest(dst []byte, r policy.Request) []byte {
	dst = appendMember(dst, '{', "namespace", string(r.Namespace))
	dst = append(appendEntity(append(dst, `,"subject":`...), r.Subject), `,"action":`...)
	dst = appendMember(dst, '{', "name", r.Action.Name)
	dst = appendProperties(dst, r.Action.Properties)
	dst = append(appendEntity(append(dst, `},"resource":`...), r.Resource), `,"context":`...)
	return append(r.Context.Value().AppendJSON(dst), '}')
}

func appendEntity(dst []byte, e policy.Entity) []byte {
	dst = appendMember(dst, '{', "type", e.Type)
	dst = appendMember(dst, ',', "id", e.ID)
	return append(appendProperties(dst, e.Properties), '}')
}

func appendMember(dst []byte, before byte, name, text string) []byte {
	dst = append(append(append(dst, before, '"'), name...), `":`...)
	return policy.StringValue(text).AppendJSON(dst)
}

func appendProperties(dst []byte, p policy.Properties) []byte {
	return p.Value().AppendJSON(append(dst, `,"properties":`...))
}
