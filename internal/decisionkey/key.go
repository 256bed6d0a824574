package decisionkey

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/microwall/microwall/internal/mutant"
	"github.com/microwall/microwall/policy"
)

// What stands before each value: its type, and of a number how it is held. One
// number is always held alike.
const (
	isAbsent byte = iota
	isNull
	isFalse
	isTrue
	isInt
	isDouble
	isNumeral
	isString
	isArray
	isObject
)

// Builder builds keys, one after the other, in memory that it keeps. The zero
// value is ready. It is not safe for concurrent use.
type Builder struct {
	key   []byte
	names []string
}

// Key returns the key of a request that is decided at a time, in seconds since
// 1970. The key is valid until the next call. Nothing is allocated once there is
// room, unless a Composite allocates or a number has more than 64 bits.
func (b *Builder) Key(l *Layout, r *policy.Request, unix int64) []byte {
	b.key, b.names = append(b.key[:0], l.prefix...), b.names[:0]
	if l.root.whole {
		b.entity(&whole, &r.Subject)
		b.action(&whole, &r.Action)
		b.entity(&whole, &r.Resource)
		b.value(r.Context.Value())
		b.time(&whole, unix)
		return b.key
	}
	// The parts of an input are always there, and always objects: a path that
	// ends at one of them, or above, ends there for every request.
	for i := range l.root.steps {
		s := &l.root.steps[i]
		switch s.Name {
		case "subject":
			b.entity(s.to, &r.Subject)
		case "action":
			b.action(s.to, &r.Action)
		case "resource":
			b.entity(s.to, &r.Resource)
		case "context":
			b.properties(s.to, &r.Context)
		case "time":
			b.time(s.to, unix)
		}
	}
	return b.key
}

var whole = node{whole: true}

func (b *Builder) entity(n *node, e *policy.Entity) {
	if n.whole {
		b.key = appendText(b.key, e.Type)
		b.key = appendText(b.key, e.ID)
		b.value(e.Properties.Value())
		return
	}
	for i := range n.steps {
		s := &n.steps[i]
		switch s.Name {
		case "type":
			b.key = appendText(b.key, e.Type)
		case "id":
			b.key = appendText(b.key, e.ID)
		case "properties":
			b.properties(s.to, &e.Properties)
		}
	}
}

func (b *Builder) action(n *node, a *policy.Action) {
	if n.whole {
		b.key = appendText(b.key, a.Name)
		b.value(a.Properties.Value())
		return
	}
	for i := range n.steps {
		s := &n.steps[i]
		switch s.Name {
		case "name":
			b.key = appendText(b.key, a.Name)
		case "properties":
			b.properties(s.to, &a.Properties)
		}
	}
}

// time has the parts of the time that are read.
func (b *Builder) time(n *node, unix int64) {
	if n.whole {
		b.number(unix)
		return
	}
	t := time.Unix(unix, 0).UTC()
	for i := range n.steps {
		s := &n.steps[i]
		switch s.Name {
		case "unix":
			b.number(unix)
		case "hour":
			b.number(int64(t.Hour()))
		case "minute":
			b.number(int64(t.Minute()))
		case "weekday":
			b.number(int64(t.Weekday()))
		case "date":
			year, month, day := t.Date()
			b.number(int64(year))
			b.number(int64(month)<<8 | int64(day))
		}
	}
}

//nolint:gosec // its bits are what tells it from others
func (b *Builder) number(i int64) { b.key = binary.BigEndian.AppendUint64(b.key, uint64(i)) }

// properties is read of an object.
func (b *Builder) properties(n *node, p *policy.Properties) {
	if m, ok := p.Held().(map[string]any); ok && !n.whole {
		b.members(n, m)
		return
	}
	b.read(n, p.Value())
}

// read writes how the walks end that go through n with v.
func (b *Builder) read(n *node, v policy.Value) {
	if n.whole {
		b.value(v)
		return
	}
	// From here on what is written is decided by the type, so that it needs no
	// names: whatever reads it knows what comes.
	switch v.Type() {
	case policy.Object:
		if m, ok := v.Held().(map[string]any); ok {
			b.members(n, m)
			return
		}
		b.key = append(b.key, isObject)
		for _, s := range n.steps {
			if !s.Element {
				b.step(s.to, v.Get(s.Name))
			}
		}
	case policy.Array:
		b.key = append(b.key, isArray)
		for _, s := range n.steps {
			switch {
			case !s.Element:
			case 0 <= s.Index && s.Index < int64(v.Len()):
				b.step(s.to, v.Index(int(s.Index)))
			default:
				b.key = append(b.key, isAbsent)
			}
		}
	default:
		b.key = append(b.key, typeOf(v))
	}
}

// members is read of an object that is a map, without a Value for what is read
// most: texts and booleans.
func (b *Builder) members(n *node, m map[string]any) {
	b.key = append(b.key, isObject)
	for i := range n.steps {
		s := &n.steps[i]
		if s.Element {
			continue
		}
		member, ok := m[s.Name]
		if !ok {
			b.key = append(b.key, isAbsent)
			continue
		}
		switch member := member.(type) {
		case string:
			b.key = append(b.key, isString)
			if s.to.whole {
				b.key = appendText(b.key, member)
			}
		case bool:
			if member && s.to.whole {
				b.key = append(b.key, isTrue)
			} else {
				b.key = append(b.key, isFalse)
			}
		case nil:
			b.key = append(b.key, isNull)
		case map[string]any:
			if s.to.whole {
				b.value(policy.ValueOf(member))
			} else {
				b.members(s.to, member)
			}
		default:
			b.step(s.to, policy.ValueOf(member))
		}
	}
}

func (b *Builder) step(n *node, v policy.Value) {
	if v.Type() == policy.Absent {
		b.key = append(b.key, isAbsent)
		return
	}
	b.read(n, v)
}

// typeOf is what stands for a scalar that a path cannot go into.
func typeOf(v policy.Value) byte {
	switch v.Type() {
	case policy.Null:
		return isNull
	case policy.Bool:
		return isFalse
	case policy.Number:
		return isInt
	}
	return isString
}

// value writes a value whole.
func (b *Builder) value(v policy.Value) {
	if mutant.UntypedKey {
		defer func(at int) { b.key[at] = isAbsent }(len(b.key))
	}
	switch v.Type() {
	case policy.Absent:
		b.key = append(b.key, isAbsent)
	case policy.Null:
		b.key = append(b.key, isNull)
	case policy.Bool:
		if v.Bool() {
			b.key = append(b.key, isTrue)
		} else {
			b.key = append(b.key, isFalse)
		}
	case policy.Number:
		if i, ok := v.Int64(); ok {
			b.key = append(b.key, isInt)
			b.number(i)
		} else if f, ok := v.Float64(); ok {
			b.key = append(b.key, isDouble)
			b.key = binary.BigEndian.AppendUint64(b.key, math.Float64bits(f))
		} else {
			b.key = append(b.key, isNumeral)
			b.key = appendText(b.key, string(v.Number()))
		}
	case policy.String:
		b.key = append(b.key, isString)
		b.key = appendText(b.key, v.Text())
	case policy.Array:
		b.key = append(b.key, isArray)
		b.key = binary.AppendUvarint(b.key, uint64(v.Len())) //nolint:gosec // a length
		for i := range v.Len() {
			b.value(v.Index(i))
		}
	case policy.Object:
		b.object(v)
	}
}

// object writes the members in the order of their names, which are collected
// above those of the objects that this one is in.
func (b *Builder) object(v policy.Value) {
	from := len(b.names)
	if m, ok := v.Held().(map[string]any); ok {
		for name := range m { // an iterator would allocate
			b.names = append(b.names, name)
		}
	} else {
		for name := range v.Names() {
			b.names = append(b.names, name)
		}
	}
	to := len(b.names)
	slices.Sort(b.names[from:to])
	b.key = append(b.key, isObject)
	b.key = binary.AppendUvarint(b.key, uint64(to-from)) //nolint:gosec // a length
	for i := from; i < to; i++ {
		b.key = appendText(b.key, b.names[i])
		b.value(v.Get(b.names[i]))
	}
	clear(b.names[from:]) // not to keep a request
	b.names = b.names[:from]
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
