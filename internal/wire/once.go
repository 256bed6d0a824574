package wire

import (
	"iter"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/microwall/microwall/policy"
)

// once makes an error of properties of which protobuf did not decode all that
// raw says, because something later took the place of something earlier: the
// second of two members of one name, of two names of one member, of two values
// in one place. A sender that says two things must not choose which of them is
// read where.
//
// raw is the request, or the batch that has the defaults, that f was decoded from.
func (f *fields) once(raw []byte) {
	said := saidInRequest(raw)
	for _, p := range [...]struct {
		path    string
		said    int
		decoded policy.Properties
		err     *error
	}{
		{"subject.properties", said[2], f.subject.value.Properties, &f.subject.err},
		{"action.properties", said[3], f.action.value.Properties, &f.action.err},
		{"resource.properties", said[4], f.resource.value.Properties, &f.resource.err},
		{"context", said[5], f.context.value, &f.context.err},
	} {
		if *p.err == nil && count(p.decoded.Value()) != p.said {
			*p.err = policy.Errorf(policy.BadRequest, "%s has a member twice, or two values in one place; send each once", p.path)
		}
	}
}

// count returns how many names and values are in an object or an array.
func count(v policy.Value) (n int) {
	switch v.Type() {
	case policy.Array:
		for i := range v.Len() {
			n += 1 + count(v.Index(i))
		}
	case policy.Object:
		for name := range v.Names() {
			n += 2 + count(v.Get(name))
		}
	}
	return n
}

// saidInRequest returns how many names and values the properties have in an
// AuthorizeRequest, or in the defaults of a batch, that protobuf was able to
// decode: below each field, by its number.
func saidInRequest(raw []byte) (n [6]int) {
	for f, content := range encoded(raw) {
		switch f {
		case tag{2, protowire.BytesType}, tag{4, protowire.BytesType}: // Subject, Resource
			n[f.number] += saidBelow(content, 3)
		case tag{3, protowire.BytesType}: // Action
			n[f.number] += saidBelow(content, 2)
		case tag{5, protowire.BytesType}:
			n[f.number] += saidInStruct(content)
		}
	}
	return n
}

func saidBelow(raw []byte, properties protowire.Number) (n int) {
	for f, content := range encoded(raw) {
		if f == (tag{properties, protowire.BytesType}) {
			n += saidInStruct(content)
		}
	}
	return n
}

func saidInStruct(raw []byte) (n int) {
	for f, member := range encoded(raw) {
		if f != (tag{1, protowire.BytesType}) {
			continue
		}
		names := 0
		for f, content := range encoded(member) {
			switch f {
			case tag{1, protowire.BytesType}:
				names++
			case tag{2, protowire.BytesType}:
				n += saidInValue(content)
			}
		}
		n += max(names, 1) // a name that is left out is the empty one
	}
	return n
}

func saidInValue(raw []byte) (n int) {
	for f, content := range encoded(raw) {
		switch f {
		case tag{1, protowire.VarintType}, tag{2, protowire.Fixed64Type}, tag{3, protowire.BytesType}, tag{4, protowire.VarintType}:
			n++
		case tag{5, protowire.BytesType}:
			n += 1 + saidInStruct(content)
		case tag{6, protowire.BytesType}:
			n++
			for f, element := range encoded(content) {
				if f == (tag{1, protowire.BytesType}) {
					n += saidInValue(element)
				}
			}
		}
	}
	return n
}

// encodedItems yields the items of a batch, as far as it can be read.
func encodedItems(raw []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for f, content := range encoded(raw) {
			if f == (tag{6, protowire.BytesType}) && !yield(content) {
				return
			}
		}
	}
}

type tag struct {
	number protowire.Number
	kind   protowire.Type
}

// encoded yields the fields of a message, as far as it can be read, and of texts
// and messages their content.
func encoded(raw []byte) iter.Seq2[tag, []byte] {
	return func(yield func(tag, []byte) bool) {
		for len(raw) > 0 {
			number, kind, n := protowire.ConsumeTag(raw)
			if n < 0 {
				return
			}
			raw = raw[n:]
			if n = protowire.ConsumeFieldValue(number, kind, raw); n < 0 {
				return
			}
			var content []byte
			if kind == protowire.BytesType {
				content, _ = protowire.ConsumeBytes(raw)
			}
			if !yield(tag{number, kind}, content) {
				return
			}
			raw = raw[n:]
		}
	}
}
