package builtin_test

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

// generator makes values up.
type generator struct {
	valuetest.Gen
	texts []string
	extra string
	// odd lets operands have types that are not the declared ones.
	odd bool
}

func (g *generator) operand(typ types.Type) value.Value {
	return g.typed(typ, 3)
}

func (g *generator) typed(typ types.Type, depth int) value.Value {
	if g.odd && g.IntN(6) == 0 {
		return g.any(depth)
	}
	switch typ := typ.(type) {
	case *types.NamedType:
		return g.typed(typ.Type, depth)
	case types.Null:
		return value.NullValue
	case types.Boolean:
		return value.Boolean(g.IntN(2) == 0)
	case types.Number:
		return g.number()
	case types.String:
		return value.Text(g.string())
	case types.Any:
		if len(typ) == 0 {
			return g.any(depth)
		}
		return g.typed(typ[g.IntN(len(typ))], depth)
	case *types.Array:
		array := value.NewArray()
		for i := range typ.Len() {
			array.Append(g.typed(typ.Select(i), depth-1))
		}
		if typ.Dynamic() != nil {
			for range g.count(depth) {
				array.Append(g.typed(typ.Dynamic(), depth-1))
			}
		}
		return array
	case *types.Set:
		set := value.NewSet(0)
		for range g.count(depth) {
			set.Add(g.typed(typ.Of(), depth-1))
		}
		return set
	case *types.Object:
		object := value.NewObject(0)
		for _, p := range typ.StaticProperties() {
			key, err := ast.InterfaceToValue(p.Key)
			if err != nil {
				panic(err)
			}
			k, _ := convert.FromAST(key)
			object.Insert(k, g.typed(p.Value, depth-1))
		}
		if p := typ.DynamicProperties(); p != nil {
			for range g.count(depth) {
				object.Insert(g.typed(p.Key, depth-2), g.typed(p.Value, depth-1))
			}
		}
		return object
	}
	return g.any(depth)
}

// count of the members of a composite.
func (g *generator) count(depth int) int {
	switch {
	case depth <= 0:
		return g.IntN(2)
	case g.IntN(30) == 0:
		return g.IntN(40) // more than are found one by one
	}
	return g.IntN(5)
}

func (g *generator) any(depth int) value.Value { return g.Value(max(depth, 0)) }

var numbers = []string{
	"0", "-0", "1", "1.0", "1e0", "2", "-1", "10", "0.5", "-0.5", "1.5", "2.50", "100e-2", "0.1", "1e2", "1E+2", "3.999999999999999999",
	"9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
	"18446744073709551616", "123456789012345678901234567890", "-123456789012345678901234567890.5", "1e19", "1e30", "1e-30", "1e308",
	"1.7976931348623157e308", "5e-324", "1e400", "-1e400", "1e-400", "0.30000000000000004", "1000000000000000000",
	"1700000000000000000", "1e18", "946684800000000000", "4294967296", "-4294967296", "2147483648", "0e10", "0.0", "-0.0", "1.10", "1.1",
}

func (g *generator) number() value.Value {
	switch g.IntN(5) {
	case 0:
		return value.NumberText(numbers[g.IntN(len(numbers))])
	case 3:
		return value.NumberText(g.Number())
	case 1:
		return value.Int(g.Int64N(2_000_000) - 1_000_000)
	case 2:
		return value.Float(float64(g.IntN(2000)-1000) / 16)
	}
	return value.Int(int64(g.IntN(8)) - 2)
}

var words = []string{"", "a", "b", "c", "abc", "A", "ß", "é", "日本", "🙂", "0", "1", "2", "10", "true", "a/b", "a.b", " ", "x y", "\x00", "\n", "ab", "bc", "~1", "\u2028<&>", "\"\\"}

func (g *generator) word() string { return words[g.IntN(len(words))] }

func (g *generator) string() string {
	switch {
	case g.extra != "" && g.IntN(4) == 0:
		return g.extra
	case len(g.texts) > 0 && g.IntN(3) > 0:
		text := g.texts[g.IntN(len(g.texts))]
		if g.IntN(6) == 0 {
			text = g.mutate(text)
		}
		return text
	case g.IntN(3) == 0:
		return g.word()
	case g.IntN(2) == 0:
		return g.Text()
	}
	var b strings.Builder
	for range g.IntN(5) {
		b.WriteString(g.word())
	}
	return b.String()
}

func (g *generator) mutate(text string) string {
	runes := []rune(text)
	at := g.IntN(len(runes) + 1)
	switch g.IntN(3) {
	case 0:
		return string(runes[:at])
	case 1:
		return string(runes[:at]) + g.word() + string(runes[at:])
	}
	if at < len(runes) {
		return string(runes[:at]) + string(runes[at+1:])
	}
	return text + text
}

// form returns a value as it may come from elsewhere: from a bundle's data, or
// from a request.
func (g *generator) form(v value.Value) value.Value {
	switch g.IntN(4) {
	case 0:
		if data, err := value.Pack(v); err == nil {
			return data.Value()
		}
	case 1:
		if doc, ok := document(v); ok {
			return valuetest.Held(doc)
		}
	}
	return v
}

// document returns a value as encoding/json has it.
func document(v value.Value) (any, bool) {
	doc, err := ast.JSON(convert.ToAST(v))
	return doc, err == nil && onlyJSON(v)
}

// onlyJSON reports whether a value means the same in a request: there are
// strings for keys, no sets, and numbers that a request has as they are.
func onlyJSON(v value.Value) bool {
	switch v.Kind() {
	case value.Set:
		return false
	case value.Number:
		i, ok := v.Int64()
		return ok && v == value.Int(i) && policy.ValueOf(i).Type() == policy.Number
	case value.String:
		return utf8.ValidString(v.Text())
	}
	for key, val := range v.All() {
		if v.Kind() == value.Object && key.Kind() != value.String || !onlyJSON(key) || !onlyJSON(val) {
			return false
		}
	}
	return true
}

// texts that the built-ins of a family make something of, by the beginning of
// their names.
var texts = map[string][]string{
	"json.": {
		`{}`, `[]`, `{"a": 1}`, `[1, 1.0, 1e3, -0, "x"]`, ` {"a": {"b": [null, true]}, "a": 2} `, `nul`, `{"a"`, `"\u00e9\ud83d"`, `1 2`, `01`, `[1,]`, "\"\x01\"",
		"a/b", "/a/b", "a/0", "/a~1b", "a", "b/c/0", "///a", "abc/1/2", "", "add", "remove", "replace", "move", "copy", "test", "prefix", "indent", "pretty", "\t", "  ",
	},
	"base64":   {"YQ==", "YWI=", "YWJj", "YQ", "-_-_", "+/+/", "Y Q", "====", "YWI", "_w==", "YW\nJj"},
	"hex.":     {"61", "6", "ff", "FF", "zz", "616263", "c3a9"},
	"urlquery": {"a=b&c=d", "a=1&a=2", "%zz", "%41", "a+b", "a=b;c=d", "=&=", "%C3%A9=%F0", "a b/ü?&="},
	"time.": {
		"2006-01-02T15:04:05Z", "2024-02-29T23:59:59.999999999+05:30", "1600-01-01T00:00:00Z", "2262-04-11T23:47:16.854775807Z", "2262-04-11T23:47:16.854775808Z",
		"2006-01-02", "Jan _2 2006", "RFC3339", "RFC822Z", "RFC1123Z", "ANSIC", "RubyDate", "Mon Jan  2 15:04:05 2006", "Mon, 02 Jan 2006 15:04:05 -0700", "Kitchen", "UTC", "",
		"Europe/Berlin", "America/New_York", "No/Such", "1h", "1h30m", "-1.5h", "1d", "2w1d", "1y", "1.5d", "1ns", "h", "10000y", "1d-", "+1d2h3m4s5ms6us7ns", "9223372036854775807ns", "1µs1d", "1 d",
	},
}

// operands makes up operands for built-ins that the declared types tell little
// of.
var operands = map[string]func(g *generator, i int) value.Value{
	"graph.reachable":           graphOperand,
	"graph.reachable_paths":     graphOperand,
	"json.marshal_with_options": jsonOption,
	"time.parse_ns":             layoutOperand,
	"urlquery.encode_object":    parameters,
	"json.filter":               pathOperand,
	"internal.template_string":  templateOperand,
	"json.remove":               pathOperand,
	"json.unmarshal":            func(g *generator, _ int) value.Value { return value.Text(g.json(3)) },
	"time.clock":                func(g *generator, _ int) value.Value { return g.time() },
	"time.date":                 func(g *generator, _ int) value.Value { return g.time() },
	"object.subset":             func(g *generator, _ int) value.Value { return g.few(2) },
	"object.union":              func(g *generator, _ int) value.Value { return g.object(3) },
	"object.filter":             keysOperand,
	"object.remove":             keysOperand,
	"object.get":                keysOperand,
	"object.keys":               keysOperand,
	"and":                       setOperand,
	"or":                        setOperand,
	"minus":                     setOperand,
	"set_diff":                  setOperand,
	"union":                     func(g *generator, _ int) value.Value { return value.SetOf(g.set(), g.set(), g.set()) },
	"intersection":              func(g *generator, _ int) value.Value { return value.SetOf(g.set(), g.set()) },
	"max":                       listOperand,
	"min":                       listOperand,
	"sort":                      listOperand,
	"internal.member_2":         memberOperand,
	"internal.member_3":         memberOperand,
	"object.union_n": func(g *generator, i int) value.Value {
		array := value.NewArray()
		for range g.IntN(6) {
			array.Append(g.object(3))
		}
		return array
	},
}

var layouts = []string{"RFC3339", "RFC822Z", "RFC1123Z", "ANSIC", "RubyDate", time.DateOnly, time.Kitchen, "2006-01-02T15:04:05.000Z07:00", "_2/1 06 (002)"}

func layoutOperand(g *generator, i int) value.Value {
	layout := layouts[g.IntN(len(layouts))]
	if i == 0 {
		return value.Text(layout)
	}
	known := map[string]string{"RFC3339": time.RFC3339, "RFC822Z": time.RFC822Z, "RFC1123Z": time.RFC1123Z, "ANSIC": time.ANSIC, "RubyDate": time.RubyDate}
	if l, ok := known[layout]; ok {
		layout = l
	}
	return value.Text(time.Unix(g.Int64N(1e11)-5e10, g.Int64N(1e9)).UTC().Format(layout))
}

func jsonOption(g *generator, i int) value.Value {
	if i == 0 {
		return g.any(3)
	}
	options := value.NewObject(0)
	for _, name := range []string{"pretty", "prefix", "indent", "other"} {
		if g.IntN(2) == 0 || name == "other" && g.IntN(5) > 0 {
			continue
		}
		val := value.Text(g.Text())
		if name == "pretty" || g.IntN(10) == 0 {
			val = value.Boolean(g.IntN(2) == 0)
		}
		options.Insert(value.Text(name), val)
	}
	return options
}

func pathOperand(g *generator, i int) value.Value {
	if i == 0 {
		object := g.object(3)
		list := value.NewArray(g.few(1), g.node(), g.few(1))
		object.Insert(g.node(), list)
		return object
	}
	list := make([]value.Value, g.IntN(4))
	for i := range list {
		steps := make([]value.Value, g.IntN(4))
		text := ""
		for j := range steps {
			if steps[j] = g.node(); g.IntN(5) == 0 {
				steps[j] = value.Text([]string{"0", "1", "2"}[g.IntN(3)])
			}
			text += "/" + steps[j].Text()
		}
		switch g.IntN(8) {
		case 0:
			list[i] = g.any(1)
		case 1, 2, 3:
			list[i] = value.Text(text)
		default:
			list[i] = value.NewArray(steps...)
		}
	}
	if g.IntN(2) == 0 {
		return value.SetOf(list...)
	}
	return value.NewArray(list...)
}

func templateOperand(g *generator, _ int) value.Value {
	parts := value.NewArray()
	for range g.IntN(5) {
		switch part := g.any(2); {
		case g.IntN(10) == 0:
			parts.Append(part)
		case g.IntN(2) == 0:
			parts.Append(g.Scalar())
		case g.IntN(8) == 0:
			parts.Append(value.SetOf(part, g.Scalar()))
		case g.IntN(8) == 0:
			parts.Append(value.NewSet(0))
		default:
			parts.Append(value.SetOf(part))
		}
	}
	return parts
}

func parameters(g *generator, _ int) value.Value {
	object := value.NewObject(0)
	for range g.IntN(4) {
		list := make([]value.Value, g.IntN(3))
		for i := range list {
			list[i] = value.Text(g.string())
		}
		var val value.Value
		switch g.IntN(7) {
		case 0:
			val = g.any(1)
		case 1, 2:
			val = value.SetOf(list...)
		case 3, 4:
			val = value.NewArray(list...)
		default:
			val = value.Text(g.string())
		}
		key := value.Text(g.string())
		switch g.IntN(8) {
		case 0:
			key = g.Scalar()
		case 1:
			key = value.Text("1")
		case 2:
			key = value.Int(1) // which becomes "1", too
		}
		object.Insert(key, val)
	}
	return object
}

func graphOperand(g *generator, i int) value.Value {
	nodes := func(n int) value.Value {
		list := make([]value.Value, g.IntN(n+1))
		for i := range list {
			list[i] = g.node()
		}
		if g.IntN(2) == 0 {
			return value.SetOf(list...)
		}
		return value.NewArray(list...)
	}
	if i == 1 {
		return nodes(2)
	}
	graph := value.NewObject(0)
	for range g.IntN(8) {
		edges := nodes(3)
		if g.IntN(10) == 0 {
			edges = g.any(2)
		}
		graph.Insert(g.node(), edges)
	}
	return graph
}

func (g *generator) node() value.Value {
	return parsed[g.IntN(len(parsed))]
}

func keysOperand(g *generator, i int) value.Value {
	switch {
	case i == 0:
		return g.object(1)
	case g.IntN(2) == 0:
		return g.few(1)
	}
	return g.node()
}

func setOperand(g *generator, _ int) value.Value { return g.set() }

func (g *generator) set() value.Value {
	set := value.NewSet(0)
	for range g.IntN(6) {
		set.Add(g.node())
	}
	return set
}

func listOperand(g *generator, _ int) value.Value {
	array := value.NewArray()
	for range g.IntN(20) {
		array.Append(g.node())
	}
	return array
}

// memberOperand makes the last operand a composite.
func memberOperand(g *generator, i int) value.Value {
	if i == 2 || i == 1 && g.IntN(2) == 0 {
		return g.few(1)
	}
	return g.node()
}

// json makes up a text that is JSON, or nearly.
func (g *generator) json(depth int) string {
	if g.IntN(30) == 0 {
		return g.string()
	}
	space := []string{"", "", "", " ", "\n\t"}[g.IntN(5)]
	if depth == 0 || g.IntN(3) == 0 {
		scalar := []string{"null", "true", "false", `"a"`, `"\u00e9\ud83d\ude00"`, `"\ud83d"`, "\"\xff\"", "0", "-0", "1.0", "12E3", "1e-5", "1e30100", "1e31000", "0.5e-40000", "123456789012345678901234567890"}
		return space + scalar[g.IntN(len(scalar))] + space
	}
	open, end := "[", "]"
	object := g.IntN(2) == 0
	if object {
		open, end = "{", "}"
	}
	for i := range g.IntN(4) {
		if i > 0 {
			open += ","
		}
		if object {
			open += `"` + []string{"a", "b", `\u0061`, "", "c/d"}[g.IntN(5)] + `":`
		}
		open += g.json(depth - 1)
	}
	return space + open + space + end
}

// time makes up what stands for a time.
func (g *generator) time() value.Value {
	ns := []string{"0", "1.0", "1e18", "1700000000.5", "1.00000000000000000000000000001", "9223372036854775807.0", "9223372036854775807.4", "9223372036854775808",
		"-9223372036854775808", "-62135596800000000000", "1e30", "0.1"}
	n := value.NumberText(ns[g.IntN(len(ns))])
	if g.IntN(2) == 0 {
		n = value.Int(g.Int64())
	}
	if g.IntN(2) == 0 {
		return n
	}
	zones := []string{"", "UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Nowhere"}
	return value.NewArray(n, value.Text(zones[g.IntN(len(zones))]))
}

var parsed = []value.Value{
	value.Text("a"), value.Text("b"), value.Text("c"), value.Text("d"), value.Int(0), value.Int(1), value.NumberText("1.0"),
	value.NumberText("1e0"), value.Int(2), value.NumberText("2.00"), value.NewArray(value.Text("a")), value.NewArray(value.NumberText("1.0")), value.NewArray(value.Int(1)),
}

// few returns a value of a few scalars, so that two often have much in common.
func (g *generator) few(depth int) value.Value {
	list := make([]value.Value, g.IntN(5))
	for i := range list {
		if list[i] = g.node(); depth > 0 && g.IntN(3) == 0 {
			list[i] = g.few(depth - 1)
		}
	}
	switch g.IntN(4) {
	case 0:
		return value.SetOf(list...)
	case 1:
		return value.NewArray(list...)
	}
	return g.object(depth)
}

func (g *generator) object(depth int) value.Value {
	object := value.NewObject(0)
	for range g.IntN(5) {
		val := g.node()
		if depth > 0 && g.IntN(2) == 0 {
			val = g.few(depth - 1)
		}
		object.Insert(g.node(), val)
	}
	return object
}

func textsOf(name string) []string {
	var list []string
	for prefix, of := range texts {
		if strings.HasPrefix(name, prefix) {
			list = append(list, of...)
		}
	}
	return list
}
