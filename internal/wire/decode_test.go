package wire_test

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// part is the field of a message: a text or a message of parts. parts of a
// message are written one after the other, as a hostile sender may.
func part(n protowire.Number, content ...string) string {
	return string(protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), []byte(strings.Join(content, ""))))
}

func varint(n protowire.Number, v uint64) string {
	return string(protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v))
}

func double(n protowire.Number, f float64) string {
	return string(protowire.AppendFixed64(protowire.AppendTag(nil, n, protowire.Fixed64Type), math.Float64bits(f)))
}

// member is a member of a Struct, and the rest its value.
func member(name string, value ...string) string {
	return part(1, part(1, name), part(2, value...))
}

func yes() string             { return varint(4, 1) }
func says(text string) string { return part(3, text) }

// encodings are contexts as bytes, and how they read; "" where they are refused
// with what says.
var encodings = map[string]struct{ raw, read, says string }{
	"nothing":                           {"", `{}`, ""},
	"members in no order":               {member("b", yes()) + member("", says("x")) + member("a", double(2, -0.5)), `{"":"x","a":-0.5,"b":true}`, ""},
	"all types":                         {member("v", part(6, part(1, varint(1, 0)), part(1, varint(4, 0)), part(1, part(5)), part(1, part(6)))), `{"v":[null,false,{},[]]}`, ""},
	"all types beside an unknown":       {member("v", part(6, part(1, varint(1, 0)), part(1, varint(4, 0)), part(1, part(5, member("n", part(5)))), part(1, part(6)))) + varint(9, 1), `{"v":[null,false,{"n":{}},[]]}`, ""},
	"a null that is another number":     {member("n", varint(1, 7)), `{"n":null}`, ""},
	"a truth that is another number":    {member("n", varint(4, 1<<40)), `{"n":true}`, ""},
	"a truth that is two":               {member("n", varint(4, 2)), `{"n":true}`, ""},
	"a length that is longer than due":  {"\x0a\x85\x80\x00\x0a\x01n\x12\x00", ``, "context.n has no value"},
	"a text whose length is so, too":    {member("n", "\x1a\x81\x00x"), `{"n":"x"}`, ""},
	"no name":                           {part(1, part(2, yes())), `{"":true}`, ""},
	"the value before the name":         {part(1, part(2, yes()), part(1, "n")), `{"n":true}`, ""},
	"no value":                          {part(1, part(1, "n")), ``, "context.n has no value"},
	"an empty value":                    {member("n"), ``, "context.n has no value"},
	"a field that is unknown":           {member("n", yes()) + varint(9, 1), `{"n":true}`, ""},
	"one unknown in a member":           {part(1, part(1, "n"), part(2, yes()), part(3, "x")), `{"n":true}`, ""},
	"one unknown in a value":            {member("n", yes(), varint(99, 1)), `{"n":true}`, ""},
	"a known number of another type":    {member("n", yes(), varint(3, 1)), `{"n":true}`, ""},
	"a group":                           {member("n", yes()) + "\x4b\x4c", `{"n":true}`, ""},
	"NaN":                               {member("n", double(2, math.NaN())), ``, "context.n is not a finite number"},
	"2^53":                              {member("n", double(2, 1<<53)), ``, "context.n is a whole number beyond 2^53-1"},
	"2^53-1":                            {member("n", double(2, 1<<53-1)), `{"n":9007199254740991}`, ""},
	"minus zero":                        {member("n", double(2, math.Copysign(0, -1))), `{"n":0}`, ""},
	"a member twice":                    {member("n", yes()) + member("m", yes()) + member("n", yes()), ``, "context has a member twice"},
	"a member twice, deep inside":       {member("l", part(6, part(1, part(5, member("n", yes()), member("n", says("x")))))), ``, "context has a member twice"},
	"a member twice beside an unknown":  {member("n", yes()) + varint(9, 1) + member("n", varint(4, 0)), ``, "context has a member twice"},
	"the empty name twice":              {part(1, part(2, yes())) + member("", yes()), ``, "context has a member twice"},
	"a member with two names":           {part(1, part(1, "n"), part(1, "m"), part(2, yes())), ``, "context has a member twice"},
	"a member with two values":          {part(1, part(1, "n"), part(2, yes()), part(2, says("x"))), ``, "context has a member twice"},
	"a value that is two":               {member("n", yes(), says("x")), ``, "context has a member twice"},
	"a value that is the same twice":    {member("n", yes(), yes()), ``, "context has a member twice"},
	"a null that is a text, too":        {member("n", varint(1, 0), says("x")), ``, "context has a member twice"},
	"a number that is a text, too":      {member("n", double(2, 1), says("x")), ``, "context has a member twice"},
	"an element that is two":            {member("n", part(6, part(1, yes(), says("x")))), ``, "context has a member twice"},
	"an object in two parts":            {member("n", part(5, member("a", yes())), part(5, member("b", yes()))), ``, "context has a member twice"},
	"an object that was another before": {member("n", part(5, member("a", yes())), part(6), part(5, member("b", yes()))), ``, "context has a member twice"},
	"a name that is not UTF-8":          {member("\xff", yes()), ``, "no AuthorizeRequest"},
	"a text that is not UTF-8":          {member("n", says("\xed\xa0\x80")), ``, "no AuthorizeRequest"},
	"a text that is cut off":            {member("n", "\x1a\x02x"), ``, "no AuthorizeRequest"},
	"a number that is cut off":          {member("n", "\x11\x00\x00"), ``, "no AuthorizeRequest"},
	"a text that runs into the next":    {member("n", "\x1a\x04x") + member("m", yes()), ``, "no AuthorizeRequest"},
	"a long one that does":              {member("n", "\x1a\x81\x01x") + member("m", says(strings.Repeat("y", 200))), ``, "no AuthorizeRequest"},
	"a member that runs into the next":  {"\x0a\x08\x0a\x01n\x12\x02\x20\x01" + member("m", yes()), ``, "no AuthorizeRequest"},
	"a length below zero":               {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ``, "no AuthorizeRequest"},
	"a length that leads back":          {"\x0a" + string(protowire.AppendVarint(nil, 1<<64-11)), ``, "no AuthorizeRequest"},
	"a length that wraps around":        {member("n", yes()) + "\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", ``, "no AuthorizeRequest"},
	"a length without end":              {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", ``, "no AuthorizeRequest"},
	"a length beyond all":               {"\x0a\xff\xff\xff\xff\x7f", ``, "no AuthorizeRequest"},
	"nothing but a tag":                 {"\x0a", ``, "no AuthorizeRequest"},
}

func TestPropertiesAreReadFromTheirBytesOrRefused(t *testing.T) {
	for name, test := range encodings {
		t.Run(name, func(t *testing.T) {
			r, err := wire.DecodeRequest(part(5, test.raw))
			rs, faults, batchErr := wire.DecodeBatch(part(6, part(5, test.raw)), policy.Limits{})
			bad := test.says != "" && !strings.HasPrefix(test.says, "no Auth")
			switch {
			case test.says == "":
				if err != nil || r.Context.String() != test.read {
					t.Errorf("%s, %v", r.Context, err)
				}
				if batchErr != nil || faults != nil && faults[0] != nil || rs[0].Context.String() != test.read {
					t.Errorf("in a batch: %v, %v, %v", rs, faults, batchErr)
				}
			case policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), test.says) || spelling(r) != spelling(policy.Request{}):
				t.Errorf("%s, %v", spelling(r), err)
			case bad && (batchErr != nil || faults == nil || faults[0] == nil || faults[0].Error() != err.Error()):
				t.Errorf("in a batch: %v, %v", faults, batchErr)
			case !bad && policy.KindOf(batchErr) != policy.BadRequest:
				t.Errorf("in a batch: %v", batchErr)
			}
		})
	}
}

func TestAMemberTwiceIsRefusedWhereverPropertiesAre(t *testing.T) {
	twice := member("n", yes()) + member("n", says("x"))
	for path, raw := range map[string]string{
		"subject.properties": part(2, part(3, twice)), "action.properties": part(3, part(2, twice)), "resource.properties": part(4, part(3, twice)), "context": part(5, twice),
	} {
		if _, err := wire.DecodeRequest(raw); policy.KindOf(err) != policy.BadRequest || !strings.HasPrefix(err.Error(), path+" has a member twice") {
			t.Errorf("%s: %v", path, err)
		}
		// As a default it is an error of the items that take it.
		own := part(2) + part(3) + part(4) + part(5)
		_, faults, err := wire.DecodeBatch(raw+part(6)+part(6, own), policy.Limits{})
		if err != nil || len(faults) != 2 || policy.KindOf(faults[0]) != policy.BadRequest || !strings.HasPrefix(faults[0].Error(), path) || faults[1] != nil {
			t.Errorf("%s as a default: %v, %v", path, faults, err)
		}
		_, faults, err = wire.DecodeBatch(part(6)+part(6, raw), policy.Limits{})
		if err != nil || len(faults) != 2 || faults[0] != nil || policy.KindOf(faults[1]) != policy.BadRequest {
			t.Errorf("%s in an item: %v, %v", path, faults, err)
		}
	}
}

func TestPartsOfARequestAreMergedAsProtobufDoes(t *testing.T) {
	subject := func(ps ...string) string { return part(2, ps...) }
	for name, raw := range map[string]string{
		"a namespace twice":          part(1, "a") + part(1, "b"),
		"an action twice":            part(3, part(1, "a")) + part(3, part(1, "b")),
		"a subject in parts":         subject(part(1, "t")) + subject(part(2, "i")) + subject(part(3, member("n", yes()))),
		"properties in parts":        subject(part(3, member("n", yes()))) + subject(part(3, member("m", yes()))),
		"parts in no order":          part(5, member("n", yes())) + part(1, "a"),
		"parts of parts in no order": subject(part(2, "i"), part(1, "t")),
		"an unknown field":           part(1, "a") + varint(100, 1),
		"an unknown number below 15": part(1, "a") + part(8, "x"),
		"another type":               varint(1, 1) + part(5, member("n", yes())),
		"one that looks like a text": "\x08\x02\x0a\x00" + part(5, member("n", yes())),
	} {
		t.Run(name, func(t *testing.T) {
			var m microwallv1.AuthorizeRequest
			if err := proto.Unmarshal([]byte(raw), &m); err != nil {
				t.Fatal(err)
			}
			want, err := wire.Request(&m)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := wire.DecodeRequest(raw); err != nil || spelling(got) != spelling(want) {
				t.Errorf("got  %s, %v\nwant %s", spelling(got), err, spelling(want))
			}
			rs, faults, err := wire.DecodeBatch(part(6, raw)+raw+part(6), policy.Limits{})
			if err != nil || len(rs) != 2 || faults != nil && (faults[0] != nil || faults[1] != nil) || spelling(rs[0]) != spelling(want) || spelling(rs[1]) != spelling(want) {
				t.Errorf("in a batch: %v, %v, %v", rs, faults, err)
			}
		})
	}
}

func TestTextsThatAreNotUTF8AreRefused(t *testing.T) {
	for name, raw := range map[string]string{
		"namespace": part(1, "\xff"), "subject type": part(2, part(1, "\xff")), "subject id": part(2, part(2, "\xff")),
		"action": part(3, part(1, "\xff")), "resource type": part(4, part(1, "\xff")), "resource id": part(4, part(2, "\xff")),
	} {
		if r, err := wire.DecodeRequest(raw); policy.KindOf(err) != policy.BadRequest || spelling(r) != spelling(policy.Request{}) {
			t.Errorf("%s: %s, %v", name, spelling(r), err)
		}
		if rs, _, err := wire.DecodeBatch(part(6, raw), policy.Limits{}); policy.KindOf(err) != policy.BadRequest || rs != nil {
			t.Errorf("%s in a batch: %v, %v", name, rs, err)
		}
	}
}

func TestADefaultInBytesIsTakenWholeAndOnlyWhereAnItemSaysNothing(t *testing.T) {
	described := func(number protowire.Number, properties string) string { return part(number, part(1, "d"), properties) }
	defaults := part(1, "d") + described(2, part(3, member("d", yes()))) + described(3, part(2, member("d", yes()))) +
		described(4, part(3, member("d", yes()))) + part(5, member("d", yes()))
	const taken = `"d" "d" "" {"d":true} "d" {"d":true} "d" "" {"d":true} {"d":true}`
	for _, odd := range []string{"", varint(100, 1)} { // once more as protobuf reads it
		for item, want := range map[string]string{
			"":                   taken,
			part(1):              taken,
			part(1, "i"):         strings.Replace(taken, `"d"`, `"i"`, 1),
			part(2):              `"d" "" "" {} "d" {"d":true} "d" "" {"d":true} {"d":true}`,
			part(3):              `"d" "d" "" {"d":true} "" {} "d" "" {"d":true} {"d":true}`,
			part(4):              `"d" "d" "" {"d":true} "d" {"d":true} "" "" {} {"d":true}`,
			part(5):              `"d" "d" "" {"d":true} "d" {"d":true} "d" "" {"d":true} {}`,
			part(4, part(2, "")): `"d" "d" "" {"d":true} "d" {"d":true} "" "" {} {"d":true}`,
		} {
			rs, faults, err := wire.DecodeBatch(defaults+odd+part(6)+part(6, item)+part(6), policy.Limits{})
			if err != nil || len(rs) != 3 || faults != nil && (faults[0] != nil || faults[1] != nil || faults[2] != nil) {
				t.Fatal(rs, faults, err)
			}
			if spelling(rs[1]) != want || spelling(rs[0]) != taken || spelling(rs[2]) != taken {
				t.Errorf("item %q: %s\nwant %s, beside %s", item, spelling(rs[1]), want, spelling(rs[0]))
			}
		}
	}
}

func TestAPartThatIsLongerThanItsWholeIsRefused(t *testing.T) {
	// The end of the text would be a context.
	for _, text := range []string{"", strings.Repeat("x", 200), strings.Repeat("x", 20000)} {
		whole := part(2, part(3, member("n", says(text+part(5)))))
		short := []byte(whole)
		short[1] -= 2
		if rs, _, err := wire.DecodeBatch("\x32"+string(short[1:]), policy.Limits{}); policy.KindOf(err) != policy.BadRequest {
			t.Errorf("an item: %v, %v", rs, err)
		}
		for name, raw := range map[string]string{"a subject": string(short), "a context": "\x2a" + string(short[1:])} {
			if r, err := wire.DecodeRequest(raw); policy.KindOf(err) != policy.BadRequest {
				t.Errorf("%s: %s, %v", name, spelling(r), err)
			}
			if rs, _, err := wire.DecodeBatch(raw+part(6), policy.Limits{}); policy.KindOf(err) != policy.BadRequest {
				t.Errorf("%s in a batch: %v, %v", name, rs, err)
			}
		}
		if r, err := wire.DecodeRequest(whole); err != nil || r.Subject.Properties.Len() != 1 {
			t.Errorf("whole: %s, %v", spelling(r), err)
		}
	}
}

func TestAnItemThatIsTooLargeIsRefusedAlone(t *testing.T) {
	large := part(6, part(3, part(1, strings.Repeat("x", 2000))))
	for _, odd := range []string{"", varint(100, 1)} {
		rs, faults, err := wire.DecodeBatch(odd+part(6, part(1, "a"))+large+part(6, part(1, "b")), policy.Limits{RequestBytes: 100})
		if err != nil || len(rs) != 3 || faults[0] != nil || policy.KindOf(faults[1]) != policy.Exhausted || faults[2] != nil || rs[0].Namespace != "a" || rs[2].Namespace != "b" {
			t.Errorf("%v, %v, %v", rs, faults, err)
		}
	}
}

func TestAMemberTwiceInALargeObjectIsRefused(t *testing.T) {
	var raw string
	for i := range 100 {
		raw += member(fmt.Sprint(i), yes())
	}
	for _, name := range []string{"0", "50", "99"} {
		if _, err := wire.DecodeRequest(part(5, raw, member(name, yes()))); policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), "context has a member twice") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestObjectsOfAnySizeAreLookedUp(t *testing.T) {
	for _, n := range []int{1, 2, 8, 9, 100, 1000} {
		var raw string
		for i := range n {
			raw += member(fmt.Sprintf("m%d", i*7919%n), double(2, float64(i*7919%n)))
		}
		r, err := wire.DecodeRequest(part(5, raw))
		if n%7919 == 0 || err != nil || r.Context.Len() != n {
			t.Fatal(r.Context.Len(), err)
		}
		for i := range n {
			v, ok := r.Context.Get(fmt.Sprintf("m%d", i))
			if f, _ := v.Float64(); !ok || f != float64(i) {
				t.Errorf("of %d, m%d is %v", n, i, v)
			}
		}
		for _, none := range []string{"", "m", "m00", "n", fmt.Sprintf("m%d", n), "M0"} {
			if v, ok := r.Context.Get(none); ok || v.Type() != policy.Absent {
				t.Errorf("of %d, %q is there", n, none)
			}
		}
	}
}

func TestNestingHasTheSameLimitInBytes(t *testing.T) {
	for name, wrap := range map[string]func(string) string{
		"lists":   func(v string) string { return part(6, part(1, v)) },
		"objects": func(v string) string { return part(5, member("n", v)) },
	} {
		v := yes()
		for depth := 1; depth < 70; depth++ { // v is that deep as a member of the context
			raw := part(5, member("n", v))
			var m microwallv1.AuthorizeRequest
			if err := proto.Unmarshal([]byte(raw), &m); err != nil {
				t.Fatal(err)
			}
			_, want := wire.Request(&m)
			_, err := wire.DecodeRequest(raw)
			if (err == nil) != (want == nil) || (err == nil) != (depth <= 64) || err != nil && err.Error() != want.Error() {
				t.Errorf("%d %s: %v, want %v", depth, name, err, want)
			}
			v = wrap(v)
		}
	}
}

func TestTooManyItemsAreRefusedBeforeTheyTakeMemory(t *testing.T) {
	for name, raw := range map[string]string{
		"plain":           strings.Repeat("\x32\x00", 1<<20),
		"after an odd":    varint(100, 1) + strings.Repeat("\x32\x00", 1<<20),
		"around an odd":   strings.Repeat("\x32\x00", 1<<19) + varint(100, 1) + strings.Repeat("\x32\x00", 1<<19),
		"behind nonsense": strings.Repeat("\x32\x00", 1<<20) + "\xff",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := wire.DecodeBatch(raw, policy.Limits{})
			runtime.ReadMemStats(&after)
			if policy.KindOf(err) != policy.Exhausted || !strings.Contains(err.Error(), "--max-batch") {
				t.Error(err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > uint64(4*len(raw)) {
				t.Errorf("%d bytes took %d", len(raw), took)
			}
		})
	}
	if _, _, err := wire.DecodeBatch("", policy.Limits{}); policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), "at least one") {
		t.Error(err)
	}
}

func TestWhatIsPlainIsReadWithoutBeingDecoded(t *testing.T) {
	r := policy.Request{
		Namespace: "a.b", Subject: policy.Entity{Type: "user", ID: "ana", Properties: properties(t, map[string]any{"department": "sales", "roles": []string{"a", "b", "c"}})},
		Action: policy.Action{Name: "read"}, Resource: policy.Entity{Type: "doc", ID: "d", Properties: properties(t, map[string]any{"department": "sales", "owner": "ben", "size": 1})},
		Context: properties(t, map[string]any{"call_path": []string{"a", "b"}, "n": map[string]any{"x": nil, "y": true}}),
	}
	m, err := wire.RequestProto(&r)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	plain := string(raw)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := wire.DecodeRequest(plain); err != nil {
			t.Fatal(err)
		}
	}); n > 6 {
		t.Errorf("a request takes %v allocations", n)
	}
}

// FuzzDecode holds what is read from bytes in place against what protobuf
// decodes, for whatever anyone may send.
func FuzzDecode(f *testing.F) {
	for _, e := range encodings {
		f.Add([]byte(part(5, e.raw)))
		f.Add([]byte(part(2, part(1, "t"), part(2, "i"), part(3, e.raw)) + part(3, part(1, "a"), part(2, e.raw))))
	}
	for _, m := range seeds(f) {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := wire.DecodeRequest(string(raw))
		var m microwallv1.AuthorizeRequest
		if undecodable := proto.Unmarshal(raw, &m); undecodable != nil {
			if policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), undecodable.Error()) {
				t.Fatalf("protobuf says %v, we say %v", undecodable, err)
			}
			return
		}
		want, wantErr := wire.Request(&m)
		if wantErr == nil && saysTwice(raw) {
			if policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), "twice") {
				t.Fatalf("what says two things was read as %s, %v", spelling(got), err)
			}
			return
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("refused as %v, want %v", err, wantErr)
		}
		if err != nil {
			if policy.KindOf(err) != policy.BadRequest || spelling(got) != spelling(policy.Request{}) {
				t.Fatalf("%v beside %s", err, spelling(got))
			}
			return
		}
		same(t, got, want)
	})
}

// same holds that two requests are one, however they are looked at.
func same(t *testing.T, got, want policy.Request) {
	t.Helper()
	if spelling(got) != spelling(want) {
		t.Fatalf("read %s\nwant %s", spelling(got), spelling(want))
	}
	for _, p := range [][2]policy.Properties{
		{got.Subject.Properties, want.Subject.Properties}, {got.Action.Properties, want.Action.Properties},
		{got.Resource.Properties, want.Resource.Properties}, {got.Context, want.Context},
	} {
		walk(t, p[0].Value(), p[1].Value())
		if c, ok := p[0].Value().Held().(policy.Composite); ok {
			// What was checked on the way is what is checked by looking at it.
			if again, err := policy.ReadProperties(c); err != nil || again != p[0] {
				t.Fatalf("%s is checked as %v, of another size or not at all: %v", p[0], again, err)
			}
		}
	}
	for _, limits := range []policy.Limits{{}, {RequestBytes: 50, CallPath: 1}} {
		if a, b := limits.Check(&got), limits.Check(&want); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("checked as %v, want %v", a, b)
		}
	}
}

func walk(t *testing.T, got, want policy.Value) {
	t.Helper()
	if got.Type() != want.Type() || got.Len() != want.Len() || got.Text() != want.Text() || got.Bool() != want.Bool() || got.Number() != want.Number() {
		t.Fatalf("%v, want %v", got.Any(), want.Any())
	}
	switch want.Type() {
	case policy.Array:
		for i := range want.Len() {
			walk(t, got.Index(i), want.Index(i))
		}
	case policy.Object:
		names := slices.Sorted(want.Names())
		if !slices.Equal(slices.Sorted(got.Names()), names) {
			t.Fatalf("%v, want %v", got.Any(), want.Any())
		}
		for _, name := range names {
			walk(t, got.Get(name), want.Get(name))
		}
		if got.Get("no such name").Type() != want.Get("no such name").Type() {
			t.Fatal("a member came from nowhere")
		}
	}
}

// FuzzDecodeBatch holds the same of batches: each item as protobuf and
// wire.ReadBatch have it.
func FuzzDecodeBatch(f *testing.F) {
	for _, e := range encodings {
		f.Add([]byte(part(5, e.raw) + part(6) + part(6, part(5, member("n", yes())))))
		f.Add([]byte(part(1, "a") + part(6, part(2, part(3, e.raw))) + part(6, part(5, member("n", yes())))))
	}
	for i, m := range seeds(f) {
		batch := &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{m, {Namespace: "b"}, m}}
		if i%2 == 1 {
			batch = &microwallv1.AuthorizeBatchRequest{Namespace: "d", Context: m.GetContext(), Items: []*microwallv1.AuthorizeRequest{{}, {Context: &structpb.Struct{}}, m}}
		}
		raw, err := proto.Marshal(batch)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	// What looks like a text, and hides the items behind it, if its type or the
	// length of its tag is not minded.
	for _, odd := range []string{"\x31\x0300000000", "\x82\x01\x01", "\x82\x01\x03abc", "\x8a\x01\x00"} {
		f.Add([]byte(odd + part(6, part(1, "a"))))
	}
	limits := policy.Limits{BatchItems: 20, RequestBytes: 100}
	f.Fuzz(func(t *testing.T, raw []byte) {
		rs, faults, err := wire.DecodeBatch(string(raw), limits)
		var m microwallv1.AuthorizeBatchRequest
		undecodable := proto.Unmarshal(raw, &m)
		if undecodable == nil {
			undecodable = limits.CheckBatch(len(m.GetItems()))
		}
		if (err != nil) != (undecodable != nil) || err != nil && (rs != nil || faults != nil) {
			t.Fatalf("%v, want %v, beside %v", err, undecodable, rs)
		}
		if err != nil {
			return
		}
		if len(rs) != len(m.GetItems()) || faults != nil && len(faults) != len(rs) {
			t.Fatalf("%d items became %d and %d faults", len(m.GetItems()), len(rs), len(faults))
		}
		items := items(raw)
		b := wire.ReadBatch(&m)
		for i := range rs {
			var fault error
			if faults != nil {
				fault = faults[i]
			}
			want, wantErr := b.Request(i)
			switch tooLarge := wire.CheckSize(len(items[i]), limits); {
			case tooLarge != nil:
				if fmt.Sprint(fault) != tooLarge.Error() {
					t.Fatalf("item %d: %v, want %v", i, fault, tooLarge)
				}
			case wantErr != nil:
				if policy.KindOf(fault) != policy.BadRequest {
					t.Fatalf("item %d: %v, want %v", i, fault, wantErr)
				}
			case fault != nil:
				if !strings.Contains(fault.Error(), "twice") || !saysTwice(items[i]) && !saysTwice(raw) {
					t.Fatalf("item %d: %v", i, fault)
				}
			default:
				if saysTwice(items[i]) {
					t.Fatalf("item %d says two things and was read as %s", i, spelling(rs[i]))
				}
				same(t, rs[i], want)
			}
			if fault != nil && spelling(rs[i]) != spelling(policy.Request{}) {
				t.Fatalf("item %d: %v beside %s", i, fault, spelling(rs[i]))
			}
		}
	})
}

// items are the items of a batch, as they were sent.
func items(raw []byte) (all [][]byte) {
	chunks(raw, func(n protowire.Number, typ protowire.Type, content []byte) {
		if n == 6 && typ == protowire.BytesType {
			all = append(all, content)
		}
	})
	return all
}

// chunks visits the fields of a message that protobuf can decode.
func chunks(raw []byte, visit func(protowire.Number, protowire.Type, []byte)) {
	for len(raw) > 0 {
		n, typ, size := protowire.ConsumeField(raw)
		_, _, tag := protowire.ConsumeTag(raw)
		content := raw[tag:size]
		if typ == protowire.BytesType {
			content, _ = protowire.ConsumeBytes(content)
		}
		visit(n, typ, content)
		raw = raw[size:]
	}
}

// saysTwice reports whether something is said twice in the properties of a
// request, or of a batch's defaults, that protobuf can decode: whether a place
// in them, named by the path to it, is given more than one value, or more than
// one name.
func saysTwice(raw []byte) bool {
	given := map[string]int{}
	var object, value func(path string, raw []byte)
	object = func(path string, raw []byte) {
		chunks(raw, func(n protowire.Number, typ protowire.Type, entry []byte) {
			if n != 1 || typ != protowire.BytesType {
				return
			}
			var names []string
			var values [][]byte
			chunks(entry, func(n protowire.Number, typ protowire.Type, content []byte) {
				switch {
				case n == 1 && typ == protowire.BytesType:
					names = append(names, string(content))
				case n == 2 && typ == protowire.BytesType:
					values = append(values, content)
				}
			})
			if len(names) == 0 {
				names = []string{""}
			}
			place := fmt.Sprintf("%s.%q", path, names[0])
			given[place+" as a member"]++
			given[place+" by name"] += len(names)
			for _, v := range values {
				value(place, v)
			}
		})
	}
	value = func(path string, raw []byte) {
		chunks(raw, func(n protowire.Number, typ protowire.Type, content []byte) {
			switch {
			case n == 1 && typ == protowire.VarintType, n == 2 && typ == protowire.Fixed64Type, n == 3 && typ == protowire.BytesType, n == 4 && typ == protowire.VarintType:
				given[path]++
			case n == 5 && typ == protowire.BytesType:
				given[path]++
				object(path, content)
			case n == 6 && typ == protowire.BytesType:
				given[path]++
				i := 0
				chunks(content, func(n protowire.Number, typ protowire.Type, element []byte) {
					if n == 1 && typ == protowire.BytesType {
						value(fmt.Sprintf("%s[%d]", path, i), element)
						i++
					}
				})
			}
		})
	}
	chunks(raw, func(field protowire.Number, typ protowire.Type, content []byte) {
		if typ != protowire.BytesType {
			return
		}
		if field == 5 {
			object("5", content)
		}
		if properties, ok := map[protowire.Number]protowire.Number{2: 3, 3: 2, 4: 3}[field]; ok {
			chunks(content, func(n protowire.Number, typ protowire.Type, content []byte) {
				if n == properties && typ == protowire.BytesType {
					object(fmt.Sprint(field), content)
				}
			})
		}
	})
	for _, n := range given {
		if n > 1 {
			return true
		}
	}
	return false
}
