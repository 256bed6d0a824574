package cache

import (
	"encoding/binary"

	"github.com/microwall/microwall/policy"
)

// AppendKey appends the key of a request that is decided by the given versions:
// their digests, then every field of the request, each with its length before
// it, so that no two different questions have one key. Properties are spelled
// as JSON in one spelling, in which every value has its type.
func AppendKey(dst []byte, versions []policy.Version, r *policy.Request) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(versions)))
	for i := range versions {
		dst = append(dst, versions[i].Digest[:]...)
	}
	dst = appendText(dst, string(r.Namespace))
	dst = appendEntity(dst, &r.Subject)
	dst = appendText(dst, r.Action.Name)
	dst = appendProperties(dst, r.Action.Properties)
	dst = appendEntity(dst, &r.Resource)
	return appendProperties(dst, r.Context)
}

func appendEntity(dst []byte, e *policy.Entity) []byte {
	dst = appendText(dst, e.Type)
	dst = appendText(dst, e.ID)
	return appendProperties(dst, e.Properties)
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// appendProperties needs no length: one JSON object ends where it ends.
func appendProperties(dst []byte, p policy.Properties) []byte {
	return p.Value().AppendJSON(dst)
}
