package value

import (
	"bytes"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxJSON bounds the length of a document, and thereby everything in it: each
	// slot and each string of a [Data] stands for a byte of JSON of its own (what
	// starts an array or an object for the bracket that ends it), a name with its
	// places in shapes for at least four, so that all of them can be counted in the
	// bits of a payload.
	maxJSON = 1 << payloadBits
	// maxDepth is encoding/json's.
	maxDepth = 10_000
	// maxPath bounds what of a path is told, in bytes.
	maxPath = 200
)

// DataError is why a document is not taken as data.
type DataError struct {
	// Line and Column, in bytes, count from 1.
	Line, Column int
	// Message says what is wrong, and names the path where that helps.
	Message string
}

// Error returns "line L, column C: MESSAGE".
func (e *DataError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// ParseData reads a JSON object of at most 512 MiB, of which it keeps nothing. It
// is strict (RFC 8259): valid UTF-8, nothing after the object, no name twice in
// one object, at most 10,000 levels deep. Half a surrogate pair is U+FFFD, as in
// encoding/json. A number keeps its spelling, and must be one that OPA can
// calculate with: between 2^-100000 and 2^100000, in at most [MaxNumeral] characters. An error is a [*DataError].
func ParseData(json []byte) (*Data, error) {
	p := parser{json: json, packer: newPacker(len(json))}
	root, err := p.document()
	if err != nil {
		return nil, err
	}
	return p.data(root), nil
}

type parser struct {
	json []byte
	*packer
	// values and names are of the arrays and objects that have begun.
	values, names []uint32
	// path leads to the value that is being read.
	path []step
	buf  []byte // of a string with escapes
}

// step is a step into an array or an object: its index, or its name.
type step struct {
	isName bool
	number int // of the name, or the index
}

func (p *parser) document() (slot, error) {
	if len(p.json) > maxJSON {
		return 0, p.fail(0, "is larger than %d MiB; move some of it into other namespaces", maxJSON>>20)
	}
	if p.skip(); p.peek() != '{' {
		if bytes.HasPrefix(p.json, []byte("\xef\xbb\xbf")) {
			return 0, p.fail(0, "begins with a byte order mark; save it as UTF-8 without one")
		}
		if _, err := p.value(); err != nil {
			return 0, err
		}
		return 0, p.fail(0, "is not a JSON object")
	}
	root, err := p.value()
	if err != nil {
		return 0, err
	}
	if p.skip(); p.at < len(p.json) {
		return 0, p.unexpected("after the end of the object")
	}
	return root, nil
}

// fail returns an error at an offset.
func (p *parser) fail(at int, format string, args ...any) error {
	before := p.json[:at]
	return &DataError{
		Line: 1 + bytes.Count(before, []byte{'\n'}), Column: at - bytes.LastIndexByte(before, '\n'), Message: fmt.Sprintf(format, args...),
	}
}

// unexpected returns an error at what is read next.
func (p *parser) unexpected(where string) error {
	if p.at >= len(p.json) {
		return p.fail(len(p.json), "is not JSON: ends too early")
	}
	r, _ := utf8.DecodeRune(p.json[p.at:])
	return p.fail(p.at, "is not JSON: unexpected %q %s", r, where)
}

// where names the path to a value.
func (p *parser) where() string {
	var b []byte
	for _, s := range p.path {
		if s.isName {
			b = append(append(b, '.'), p.string(uint32(s.number))...)
		} else {
			b = append(strconv.AppendInt(append(b, '['), int64(s.number), 10), ']')
		}
	}
	if path := strings.TrimPrefix(string(b), "."); len(path) <= maxPath {
		return path
	}
	return "..." + strings.ToValidUTF8(string(b[len(b)-maxPath:]), "")
}

// skip skips white space.
func (p *parser) skip() {
	for p.at < len(p.json) {
		if c := p.json[p.at]; c > ' ' || c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return
		}
		p.at++
	}
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.at < len(p.json) {
		return p.json[p.at]
	}
	return 0
}

// value reads a value; there is no white space before it.
func (p *parser) value() (slot, error) {
	switch c := p.peek(); c {
	case '"':
		s, err := p.readString()
		return makeSlot(tagText, int(s)), err
	case '{', '[':
		if len(p.path) == maxDepth {
			return 0, p.fail(p.at, "is nested deeper than %d levels", maxDepth)
		}
		p.at++
		if c == '{' {
			return p.readObject()
		}
		return p.readArray()
	case 'n':
		return p.literal("null", 0)
	case 'f':
		return p.literal("false", 1)
	case 't':
		return p.literal("true", 2)
	default:
		if c == '-' || '0' <= c && c <= '9' {
			return p.readNumber()
		}
	}
	return 0, p.unexpected("where a value should be")
}

func (p *parser) literal(word string, payload int) (slot, error) {
	for i := range len(word) {
		if p.peek() != word[i] {
			return 0, p.unexpected("in " + word)
		}
		p.at++
	}
	return makeSlot(tagConstant, payload), nil
}

func (p *parser) readArray() (slot, error) {
	start, level := len(p.values), len(p.path)
	p.path = append(p.path, step{})
	if p.skip(); p.peek() == ']' {
		p.at++
	} else {
		for more := true; more; {
			p.skip()
			p.path[level].number = len(p.values) - start
			v, err := p.value()
			if err != nil {
				return 0, err
			}
			p.values = append(room(p.packer, p.values, 1), uint32(v))
			if more, err = p.more(']'); err != nil {
				return 0, err
			}
		}
	}
	s := p.array(p.values[start:])
	p.values, p.path = p.values[:start], p.path[:level]
	return s, nil
}

// more reads what follows an element or a member, and reports whether another one
// does.
func (p *parser) more(end byte) (bool, error) {
	p.skip()
	switch p.peek() {
	case ',':
		p.at++
		return true, nil
	case end:
		p.at++
		return false, nil
	}
	return false, p.unexpected(fmt.Sprintf("where %q or %q should be", ',', end))
}

func (p *parser) readObject() (slot, error) {
	names, values, level := len(p.names), len(p.values), len(p.path)
	p.path = append(p.path, step{isName: true})
	sorted := true
	if p.skip(); p.peek() == '}' {
		p.at++
	} else {
		for more := true; more; {
			if p.skip(); p.peek() != '"' {
				return 0, p.unexpected("where a name in quotes should be")
			}
			at := p.at
			name, err := p.readString()
			if err != nil {
				return 0, err
			}
			if p.skip(); p.peek() != ':' {
				return 0, p.unexpected("where ':' should be")
			}
			p.at++
			p.skip()
			p.path[level].number = int(name)
			if sorted && len(p.names) > names {
				switch c := bytes.Compare(p.string(p.names[len(p.names)-1]), p.string(name)); {
				case c == 0:
					return 0, p.twice(at)
				case c > 0:
					sorted = false
				}
			}
			v, err := p.value()
			if err != nil {
				return 0, err
			}
			p.names, p.values = append(room(p.packer, p.names, 1), name), append(room(p.packer, p.values, 1), uint32(v))
			if more, err = p.more('}'); err != nil {
				return 0, err
			}
		}
	}
	if !sorted {
		if twice := p.sort(p.names[names:], p.values[values:]); twice >= 0 {
			p.path[level].number = twice
			return 0, p.twice(p.at - 1)
		}
	}
	s := p.object(p.names[names:], p.values[values:])
	p.names, p.values, p.path = p.names[:names], p.values[:values], p.path[:level]
	return s, nil
}

func (p *parser) twice(at int) error {
	return p.fail(at, "%s is there twice; which one counts would be anybody's guess", p.where())
}

// sort sorts members by name. It returns the number of a name that is there
// twice, or -1.
func (p *parser) sort(names, values []uint32) (twice int) {
	type member struct{ name, value uint32 }
	members := make([]member, len(names))
	for i := range members {
		members[i] = member{names[i], values[i]}
	}
	slices.SortFunc(members, func(a, b member) int { return bytes.Compare(p.string(a.name), p.string(b.name)) })
	for i, m := range members {
		if i > 0 && names[i-1] == m.name {
			return int(m.name)
		}
		names[i], values[i] = m.name, m.value
	}
	return -1
}

func (p *parser) readNumber() (slot, error) {
	start := p.at
	if p.json[p.at] == '-' {
		p.at++
	}
	if p.peek() == '0' {
		p.at++
	} else if err := p.digits(); err != nil {
		return 0, err
	}
	exponent := -1
	switch p.peek() {
	case '.':
		p.at++
		if err := p.digits(); err != nil {
			return 0, err
		}
		if p.peek()|0x20 != 'e' {
			break
		}
		fallthrough
	case 'e', 'E':
		p.at++
		exponent = p.at
		if c := p.peek(); c == '+' || c == '-' {
			p.at++
		}
		if err := p.digits(); err != nil {
			return 0, err
		}
	}
	text := p.json[start:p.at]
	if len(text) > MaxNumeral {
		return 0, p.fail(start, "%s is a number of more than %d digits; make it a string", p.where(), MaxNumeral)
	}
	if exponent >= 0 && !canCalculate(string(text), exponent-start) {
		return 0, p.fail(start, "%s is a number out of range", p.where())
	}
	return p.number(text), nil
}

// digits reads at least one.
func (p *parser) digits() error {
	start := p.at
	for '0' <= p.peek() && p.peek() <= '9' {
		p.at++
	}
	if p.at == start {
		return p.unexpected("where a digit should be")
	}
	return nil
}

// canCalculate reports whether OPA takes a number, whose exponent begins at i:
// ast.NumberChecked.
func canCalculate(text string, i int) bool {
	const maxExponent = 100_000 // binary
	if e, err := strconv.Atoi(text[i:]); err == nil && i+max(e, -e) <= maxExponent/4 {
		return true // a digit takes less than four bits
	}
	f, ok := new(big.Float).SetString(text)
	if !ok || f.IsInf() {
		return false
	}
	e := f.MantExp(nil)
	return -maxExponent <= e && e <= maxExponent
}

// readString reads a string and returns its number.
func (p *parser) readString() (uint32, error) {
	start := p.at
	p.at++
	for i, c := range p.json[p.at:] {
		switch {
		case c == '"':
			text := p.json[p.at : p.at+i]
			p.at += i + 1
			return p.intern(text), nil
		case c == '\\' || c >= utf8.RuneSelf || c < ' ':
			p.buf = append(p.buf[:0], p.json[p.at:p.at+i]...)
			p.at += i
			return p.readOddString(start)
		}
	}
	p.at = len(p.json)
	return 0, p.unexpected("")
}

// readOddString goes on with a string after what could be taken as it is.
func (p *parser) readOddString(start int) (uint32, error) {
	for p.at < len(p.json) {
		switch c := p.json[p.at]; {
		case c == '"':
			p.at++
			return p.intern(p.buf), nil
		case c == '\\':
			p.at++
			if err := p.readEscape(); err != nil {
				return 0, err
			}
		case c < ' ':
			return 0, p.unexpected("in a string; write it as an escape")
		case c < utf8.RuneSelf:
			p.buf = append(p.buf, c)
			p.at++
		default:
			r, n := utf8.DecodeRune(p.json[p.at:])
			if r == utf8.RuneError && n == 1 {
				return 0, p.fail(p.at, "is not valid UTF-8")
			}
			p.buf = append(p.buf, p.json[p.at:p.at+n]...)
			p.at += n
		}
	}
	return 0, p.fail(start, "is not JSON: a string without an end")
}

var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// readEscape reads what follows a backslash.
func (p *parser) readEscape() error {
	c := p.peek()
	if c != 'u' {
		if escapes[c] == 0 {
			return p.unexpected("after a backslash")
		}
		p.buf = append(p.buf, escapes[c])
		p.at++
		return nil
	}
	p.at++
	r, ok := p.hex(p.at)
	if !ok {
		return p.fail(p.at, "is not JSON: \\u takes four hexadecimal digits")
	}
	p.at += 4
	if utf16.IsSurrogate(r) {
		var low rune
		if bytes.HasPrefix(p.json[p.at:], []byte(`\u`)) {
			low, _ = p.hex(p.at + 2)
		}
		if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
			p.at += 6
		}
	}
	p.buf = utf8.AppendRune(p.buf, r)
	return nil
}

// hex reads four digits.
func (p *parser) hex(at int) (rune, bool) {
	if len(p.json)-at < 4 {
		return 0, false
	}
	r, err := strconv.ParseUint(string(p.json[at:at+4]), 16, 16)
	return rune(r), err == nil
}
