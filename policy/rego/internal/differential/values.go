package differential

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// choice draws from a source of randomness.
type choice struct {
	*rand.Rand
}

// newChoice draws the same for the same seed: nothing here is secret.
func newChoice(seed uint64) choice {
	return choice{rand.New(rand.NewPCG(seed, 0x6d77))}
}

// percent is true n times in a hundred.
func (c choice) percent(n int) bool { return c.IntN(100) < n }

// pick returns one of some values.
func pick[T any](c choice, of ...T) T { return of[c.IntN(len(of))] }

// The pools are small, so that values from policy, data and input are often the
// same.
var (
	names = []string{"a", "b", "c", "k", "ann", "bob", "admin", "reader"}
	texts = []string{
		"", "ab", "abc", "A", "Ab", "12", "01", "-1", "1.5", "a,b", "a.b.c", " x ", "é", "e\u0301", "日本語", "😀a", "ÀB", "true", "null", "\t\n", "\"q\"", "\\", "%d-%s", "%",
		"2026-01-05T12:00:00Z", "2026-01-05", "1h30m", "10Ki", "1.2.3", "1.2.3-rc1", "10.1.2.3", "10.0.0.0/8", "::1", "a*", "[a-", "^a", "(", "{\"a\": 1}", "[1, 2, \"x\"]", "{\"a\"", "YWI=", "6162", "a=1&b=2",
		"spiffe://example/ns/a/sa/b", "AddItem", "GET", "monday",
	}
	numbers = []string{
		"0", "1", "2", "3", "-1", "10", "7", "1.0", "1e0", "2.0", "0.5", "1.5", "-0", "0.0", "0.1", "0.30", "2e2", "200", "1E+1", "1e-2", "1000000",
		"9007199254740993", "9007199254740992", "18446744073709551616", "100000000000000000000", "-100000000000000000000", "1e20", "1e19", "123456789.123456789", "4294967296",
	}
)

// quote spells a string in JSON and in Rego.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always can be
	return strings.TrimSuffix(b.String(), "\n")
}

func (c choice) name() string { return pick(c, names...) }
func (c choice) text() string {
	if c.percent(60) {
		return c.name()
	}
	return pick(c, texts...)
}
func (c choice) number() string {
	if c.percent(40) {
		return c.small()
	}
	return pick(c, numbers...)
}

// small is a number that is good for an index or a count.
func (c choice) small() string { return pick(c, "0", "1", "1", "2", "3", "-1", "1.0") }

// scalar spells a value of JSON that is no collection.
func (c choice) scalar() string {
	switch n := c.IntN(10); {
	case n < 4:
		return quote(c.text())
	case n < 8:
		return c.number()
	case n < 9:
		return pick(c, "true", "false")
	}
	return "null"
}

// json spells any value.
func (c choice) json(depth int) string {
	if depth <= 0 || c.percent(40) {
		return c.scalar()
	}
	if c.percent(50) {
		return c.array(c.IntN(4), func() string { return c.json(depth - 1) })
	}
	return c.object(c.IntN(4), func() string { return c.json(depth - 1) })
}

func (c choice) array(n int, elem func() string) string {
	elems := make([]string, n)
	for i := range elems {
		elems[i] = elem()
	}
	return "[" + strings.Join(elems, ", ") + "]"
}

// object spells an object of up to n members.
func (c choice) object(n int, member func() string) string {
	var keys, members []string
	for range n {
		if key := c.name(); !slices.Contains(keys, key) {
			keys = append(keys, key)
			members = append(members, quote(key)+": "+member())
		}
	}
	return "{" + strings.Join(members, ", ") + "}"
}

// member is what stands at a known place of data and input: mostly what the
// policy takes it for.
type member struct {
	name  string
	value func() string
}

func (c choice) shape(members ...member) string {
	var texts []string
	for _, m := range members {
		value := m.value
		switch {
		case c.percent(3):
			continue
		case c.percent(2):
			value = func() string { return c.json(2) }
		}
		texts = append(texts, quote(m.name)+": "+value())
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

func (c choice) quotedName() string { return quote(c.name()) }
func (c choice) quotedText() string { return quote(c.text()) }
func (c choice) any() string        { return c.json(3) }

func (c choice) listOf(elem func() string) func() string {
	return func() string { return c.array(c.IntN(5), elem) }
}

func (c choice) mapOf(elem func() string) func() string {
	return func() string { return c.object(1+c.IntN(5), elem) }
}

// data is what bundles bring.
func (c choice) data() string {
	user := func() string {
		return c.shape(member{"roles", c.listOf(c.quotedName)}, member{"level", c.number}, member{"tags", c.listOf(c.scalar)})
	}
	permission := func() string {
		return c.shape(member{"action", c.quotedName}, member{"resource", c.quotedText})
	}
	return c.shape(
		member{"n", c.number},
		member{"s", c.quotedText},
		member{"m", c.mapOf(c.any)},
		member{"nums", c.listOf(c.number)},
		member{"texts", c.listOf(c.quotedText)},
		member{"list", c.listOf(c.any)},
		member{"users", c.mapOf(user)},
		member{"roles", c.mapOf(c.listOf(permission))},
		member{"graph", c.mapOf(c.listOf(c.quotedName))},
	)
}

// input is an AuthZEN request as policies see it.
func (c choice) input() string {
	if c.percent(2) {
		return pick(c, "", c.json(2))
	}
	properties := func() string {
		return c.shape(member{"n", c.number}, member{"s", c.quotedText}, member{"roles", c.listOf(c.quotedName)}, member{"m", c.mapOf(c.any)}, member{c.name(), c.any})
	}
	entity := func() string {
		return c.shape(member{"type", c.quotedName}, member{"id", c.quotedText}, member{"properties", properties})
	}
	action := func() string {
		return c.shape(member{"name", c.quotedName}, member{"properties", properties})
	}
	time := func() string {
		return fmt.Sprintf(`{"unix": %d, "hour": %d, "minute": %d, "date": "2026-01-05", "weekday": "monday"}`, c.IntN(1<<31), c.IntN(24), c.IntN(60))
	}
	context := func() string {
		return c.shape(member{"x", c.any}, member{"s", c.quotedText}, member{"n", c.number}, member{"list", c.listOf(c.scalar)}, member{"texts", c.listOf(c.quotedText)}, member{c.name(), c.any})
	}
	return c.shape(member{"subject", entity}, member{"action", action}, member{"resource", entity}, member{"context", context}, member{"time", time})
}
