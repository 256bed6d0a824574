package differential

import "strings"

// signature is a built-in that policies call: what its operands are, one letter
// each, and what it gives.
//
//	n number    i small number  s text      b boolean  a array  o object  t set
//	c array, object or set      x anything  N array of numbers
//	S array or set of texts     A array of arrays      O array of objects
//	T set of sets               P array of paths       p one path
//	r pattern   g glob          d CIDR      @ time     l layout
//	u layout of sprintf         e CIDR of few addresses
//	j number that a result grows by, small whatever happens
//	R delimiters of globs       # base of numbers
//	$ number as text            w whole number       h nanoseconds
//	D duration  U size          V version            J JSON or YAML
//	6 encoded bytes             I URI or UUID        C CIDRs
//	M object of texts
type signature struct {
	name     string
	operands string
	gives    kind
	weight   int
}

var signatures = []signature{
	// Those that authorization uses.
	{"startswith", "ss", boolean, 8}, {"endswith", "ss", boolean, 5}, {"contains", "ss", boolean, 6},
	{"glob.match", "gRs", boolean, 5}, {"regex.match", "rs", boolean, 5}, {"net.cidr_contains", "dd", boolean, 4},
	{"count", "c", number, 8}, {"sum", "N", number, 3}, {"product", "N", number, 2}, {"max", "N", number, 2}, {"min", "N", number, 2},
	{"lower", "s", text, 4}, {"upper", "s", text, 2}, {"concat", "sS", text, 4}, {"split", "ss", array, 5},
	{"sprintf", "ua", text, 4}, {"trim", "ss", text, 1}, {"trim_left", "ss", text, 1}, {"trim_right", "ss", text, 1},
	{"trim_prefix", "ss", text, 2}, {"trim_suffix", "ss", text, 1}, {"trim_space", "s", text, 1},
	{"replace", "sss", text, 2}, {"substring", "sii", text, 3}, {"indexof", "ss", number, 2}, {"indexof_n", "ss", array, 1},
	{"format_int", "n#", text, 2}, {"to_number", "$", number, 3}, {"strings.reverse", "s", text, 1}, {"strings.count", "ss", number, 1},
	{"strings.replace_n", "Ms", text, 1}, {"strings.split_n", "ssi", array, 1},
	{"strings.any_prefix_match", "SS", boolean, 2}, {"strings.any_suffix_match", "SS", boolean, 1},
	{"object.get", "oxx", anything, 7}, {"object.keys", "o", set, 3}, {"object.union", "oo", object, 2}, {"object.union_n", "O", object, 1},
	{"object.remove", "oS", object, 2}, {"object.filter", "oS", object, 2}, {"object.subset", "oo", boolean, 1}, {"object.subset", "tt", boolean, 1},
	{"json.filter", "oP", object, 1}, {"json.remove", "oP", object, 1}, {"object.get", "opx", anything, 3},
	{"array.concat", "aa", array, 2}, {"array.slice", "aii", array, 2}, {"array.reverse", "a", array, 2}, {"array.flatten", "a", array, 1},
	{"sort", "c", array, 3}, {"union", "T", set, 1}, {"intersection", "T", set, 1},
	{"numbers.range", "jj", array, 2}, {"numbers.range_step", "jjj", array, 1},
	{"graph.reachable", "oS", set, 2}, {"graph.reachable_paths", "oS", set, 1},
	{"abs", "n", number, 2}, {"ceil", "n", number, 1}, {"floor", "n", number, 1}, {"round", "n", number, 2},
	{"bits.and", "ww", number, 1}, {"bits.or", "ww", number, 1}, {"bits.xor", "ww", number, 1}, {"bits.negate", "w", number, 1},
	{"bits.lsh", "wj", number, 1}, {"bits.rsh", "wj", number, 1},
	{"is_string", "x", boolean, 2}, {"is_number", "x", boolean, 2}, {"is_array", "x", boolean, 1}, {"is_object", "x", boolean, 1},
	{"is_set", "x", boolean, 1}, {"is_boolean", "x", boolean, 1}, {"is_null", "x", boolean, 1}, {"type_name", "x", text, 3},
	{"regex.find_n", "rsi", array, 2}, {"regex.replace", "srs", text, 1}, {"regex.split", "rs", array, 1}, {"regex.is_valid", "r", boolean, 1},
	{"regex.find_all_string_submatch_n", "rsi", array, 1}, {"regex.template_match", "rsss", boolean, 1},
	{"time.parse_rfc3339_ns", "@", number, 2}, {"time.parse_duration_ns", "D", number, 1}, {"time.clock", "h", array, 1},
	{"time.date", "h", array, 1}, {"time.weekday", "h", text, 1}, {"time.add_date", "hiii", number, 1}, {"time.diff", "hh", array, 1},
	{"time.parse_ns", "l@", number, 1}, {"time.format", "h", text, 1},
	{"json.marshal", "x", text, 2}, {"json.unmarshal", "J", anything, 2}, {"json.is_valid", "J", boolean, 1},
	{"semver.compare", "VV", number, 1}, {"semver.is_valid", "V", boolean, 1},
	{"units.parse", "U", number, 1}, {"units.parse_bytes", "U", number, 1},

	// The others.
	{"base64.encode", "s", text, 1}, {"base64.decode", "6", text, 1}, {"base64.is_valid", "s", boolean, 1},
	{"base64url.encode", "s", text, 1}, {"base64url.encode_no_pad", "s", text, 1}, {"base64url.decode", "6", text, 1},
	{"hex.encode", "s", text, 1}, {"hex.decode", "6", text, 1}, {"urlquery.encode", "s", text, 1}, {"urlquery.decode", "s", text, 1},
	{"urlquery.encode_object", "M", text, 1}, {"urlquery.decode_object", "s", object, 1}, {"uri.parse", "I", object, 1}, {"uri.is_valid", "s", boolean, 1},
	{"crypto.sha256", "s", text, 1}, {"crypto.md5", "s", text, 1}, {"crypto.hmac.sha256", "ss", text, 1},
	{"yaml.marshal", "x", text, 1}, {"yaml.unmarshal", "J", anything, 1}, {"glob.quote_meta", "s", text, 1},
	{"net.cidr_intersects", "dd", boolean, 1}, {"net.cidr_is_valid", "d", boolean, 1}, {"net.cidr_merge", "C", set, 1},
	{"net.cidr_contains_matches", "CC", set, 1}, {"net.cidr_expand", "e", set, 1},
	{"uuid.parse", "I", object, 1}, {"regex.globs_match", "gg", boolean, 1},
}

// signatures by what they give, each as often as its weight says.
var givers = func() map[kind][]signature {
	m := make(map[kind][]signature)
	for _, s := range signatures {
		for range s.weight {
			m[s.gives] = append(m[s.gives], s)
		}
	}
	return m
}()

// call calls a built-in that gives a kind.
func (g *generator) call(k kind, depth int, sc *scope) string {
	s := pick(g.choice, givers[k]...)
	operands := make([]string, len(s.operands))
	for i, letter := range s.operands {
		operands[i] = g.operand(letter, depth-1, sc)
	}
	return s.name + "(" + strings.Join(operands, ", ") + ")"
}

var kindLetters = map[rune]kind{'n': number, 's': text, 'b': boolean, 'a': array, 'o': object, 't': set, 'x': anything}

// operand makes what a letter stands for; now and then something else, of which
// nobody can know before the policy runs that it is.
func (g *generator) operand(letter rune, depth int, sc *scope) string {
	switch letter {
	case 'j':
		return g.small()
	case 'e':
		return pick(g.choice, `"10.1.2.0/30"`, `"10.1.2.3/32"`, `"::1/127"`)
	}
	if g.percent(2) {
		return g.reference(anything, sc)
	}
	if k, ok := kindLetters[letter]; ok {
		return g.term(k, depth, sc)
	}
	list := func(k kind) string {
		if g.percent(30) {
			return "[" + g.term(k, depth-1, sc) + " | " + g.body(1, depth-1, sc.inner()) + "]"
		}
		return g.array(g.IntN(3), func() string { return g.term(k, depth-1, sc) })
	}
	path := func() string {
		return pick(g.choice, g.quotedName(), quote(g.name()+"/"+g.name()), g.listOf(g.quotedName)())
	}
	switch letter {
	case 'i':
		if g.percent(20) {
			return g.term(number, depth, sc)
		}
		return g.small()
	case 'c':
		return g.term(pick(g.choice, array, object, set), depth, sc)
	case 'N':
		return pick(g.choice, func() string { return list(number) }, func() string { return "data.nums" })()
	case 'S':
		switch g.IntN(4) {
		case 0:
			return pick(g.choice, "data.texts", "input.context.texts", "input.subject.properties.roles")
		case 1:
			return g.setOf(g.IntN(3), func() string { return g.term(text, depth-1, sc) })
		}
		return list(text)
	case 'A':
		return list(array)
	case 'O':
		return list(object)
	case 'T':
		return g.setOf(1+g.IntN(2), func() string { return g.term(set, depth-1, sc) })
	case 'P':
		return g.array(g.IntN(3), path)
	case 'R':
		return pick(g.choice, `["."]`, `["/"]`, "[]", "null", `["/", ":"]`, `["ab"]`)
	case '#':
		return pick(g.choice, "2", "8", "10", "16", "10.0", "3")
	case 'p':
		return g.array(g.IntN(3), g.quotedName)
	case 'r':
		return g.constantOr(text, depth, sc, "^a", "a+", "[a-c]*", "b$", "(a)(b)?", ".", "^$", "^spiffe://[^/]+/ns/", "[^/]*", "\\d+", "(?i)add")
	case 'g':
		return g.constantOr(text, depth, sc, "*", "a*", "**", "a.*.c", "{a,b}*", "[a-c]", "?b", "\\*", "spiffe://*/ns/*")
	case 'd':
		return g.constantOr(text, depth, sc, "10.0.0.0/8", "10.1.2.0/24", "fe80::/10", "0.0.0.0/30", "10.1.2.3/32", "10.1.2.3")
	case '@':
		return g.constantOr(text, depth, sc, "2026-01-05T12:00:00Z", "2026-01-05T12:00:00+02:00", "2026-01-05T12:00:00.123456789Z", "1999-12-31T23:59:59-11:30", "1600-01-01T00:00:00Z")
	case '$':
		return g.constantOr(text, depth, sc, "1", "-1", "1.50", "1e3", "0x1f", "007", "100000000000000000000")
	case 'w':
		return g.constantNumberOr(depth, sc, "0", "1", "-1", "5", "255", "1e2", "9007199254740993", "100000000000000000000")
	case 'h':
		return g.constantNumberOr(depth, sc, "0", "1767614400000000000", "1767614400123456789", "-1", "1e18", "input.time.unix * 1000000000")
	case 'D':
		return g.constantOr(text, depth, sc, "1h30m", "1.5s", "-3ms", "0")
	case 'U':
		return g.constantOr(text, depth, sc, "10Ki", "1.5G", "12", "3m", "0.1MiB", "1e3")
	case 'V':
		return g.constantOr(text, depth, sc, "1.2.3", "1.10.0", "1.2.3-rc1", "1.2.3-rc.2", "1.2.3+build")
	case 'J':
		return g.constantOr(text, depth, sc, `{"b": 1, "a": [1.0, "é"]}`, "[1, 2e0, null]", "1.50", `"a"`, "{}", "9007199254740993")
	case '6':
		return g.constantOr(text, depth, sc, "YWI=", "6162", "", "_-8=")
	case 'I':
		return g.constantOr(text, depth, sc, "https://u:p@example.com:8080/a/b?x=1&y#f", "spiffe://example/ns/a", "00000000-0000-4000-8000-00805f9b34fb")
	case 'C':
		return pick(g.choice, `["10.0.0.0/8", "10.1.0.0/16"]`, `{"a": "10.0.0.0/9"}`, `{"10.128.0.0/9", "10.0.0.0/9"}`, `["10.1.2.3", "192.168.0.0/16"]`)
	case 'M':
		return g.object(g.IntN(4), func() string { return g.term(text, depth-1, sc) })
	case 'l':
		return pick(g.choice, `"2006-01-02T15:04:05Z07:00"`, `"2006-01-02"`, `"RFC1123Z"`)
	case 'u':
		return pick(g.choice, `"%v"`, `"%d"`, `"%s %s"`, `"%v %d %t"`, `"%5.2f"`, `"%x"`, `"%q"`, `"%%"`, `"%"`, `""`)
	}
	return g.term(anything, depth, sc)
}

func (g *generator) constantOr(k kind, depth int, sc *scope, constants ...string) string {
	if g.percent(25) {
		return g.term(k, depth, sc)
	}
	return quote(pick(g.choice, constants...))
}

func (g *generator) constantNumberOr(depth int, sc *scope, constants ...string) string {
	if g.percent(25) {
		return g.term(number, depth, sc)
	}
	return pick(g.choice, constants...)
}

// setOf spells a set of n members.
func (g *generator) setOf(n int, member func() string) string {
	if n == 0 {
		return "set()"
	}
	members := make([]string, n)
	for i := range members {
		members[i] = member()
	}
	return "{" + strings.Join(members, ", ") + "}"
}
