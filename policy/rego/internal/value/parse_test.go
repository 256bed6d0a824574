package value_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

// goValue returns what encoding/json with UseNumber has for a JSON value.
func goValue(v value.Value) any {
	switch v.Kind() {
	case value.Bool:
		return v.IsTrue()
	case value.Number:
		return json.Number(v.Numeral())
	case value.String:
		return v.Text()
	case value.Array:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = goValue(v.Elem(i))
		}
		return list
	case value.Object:
		m := make(map[string]any, v.Len())
		for k, e := range v.All() {
			m[k.Text()] = goValue(e)
		}
		return m
	}
	return nil
}

func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if !json.Valid(text) {
		return nil, errors.New("more than one value")
	}
	return doc, nil
}

func TestParseDataTakesWhatJSONIs(t *testing.T) {
	for _, text := range []string{
		`{}`, ` { } `, "\t\r\n{\"a\" : 1 , \"b\":[ ]}\n", `{"a":{},"b":[],"c":[[],{}],"d":[{}]}`,
		`{"b":1,"a":2,"c":0}`, `{"":0,"a":{"":{"":[0]}}}`,
		`{"a":[null,true,false,0,-0,1,-1,268435455,-268435455,268435456,-268435456,9223372036854775807,-9223372036854775808,9223372036854775808]}`,
		`{"a":[0.5,-0.5,0.25,1.0,1.50,1e3,1E+3,1e-3,123456.5,1234567.5,0.0001,0.00001,1e308,1e400,-0.0]}`,
		`{"a":"\"\\\/\b\f\n\r\t\u0041\u00e9\u65e5\ud83d\ude00","é":"日本😀"}`,
		`{"a":["\ud800","\udc00","\ud800x","\ud800\u0041","\udc00\ud800","\ud800\ud800\udc00","\uD83D\uDE00","\u0000"]}`,
		"{\"\u2028\":\"\ufffd\x7f\"}",
	} {
		d, err := value.ParseData([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		want, err := decode([]byte(text))
		if err != nil {
			t.Fatal(text, err)
		}
		if got := goValue(d.Value()); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", text, got, want)
		}
	}
}

func TestParseDataSaysWhatIsWrong(t *testing.T) {
	deep := strings.Repeat("[", 10_000)
	for _, c := range []struct{ text, want string }{
		{``, `line 1, column 1: is not JSON: ends too early`},
		{"\ufeff{}", `line 1, column 1: begins with a byte order mark; save it as UTF-8 without one`},
		{`[1]`, `line 1, column 1: is not a JSON object`},
		{`null`, `line 1, column 1: is not a JSON object`},
		{`{} {}`, `line 1, column 4: is not JSON: unexpected '{' after the end of the object`},
		{"{\n  \"a\": 1,\n}", `line 3, column 1: is not JSON: unexpected '}' where a name in quotes should be`},
		{`{"a":1`, `line 1, column 7: is not JSON: ends too early`},
		{`{"a" 1}`, `line 1, column 6: is not JSON: unexpected '1' where ':' should be`},
		{`{"a":}`, `line 1, column 6: is not JSON: unexpected '}' where a value should be`},
		{`{"a":[1 2]}`, `line 1, column 9: is not JSON: unexpected '2' where ',' or ']' should be`},
		{`{"a":[1,]}`, `line 1, column 9: is not JSON: unexpected ']' where a value should be`},
		{`{"a":nul}`, `line 1, column 9: is not JSON: unexpected '}' in null`},
		{`{"a":01}`, `line 1, column 7: is not JSON: unexpected '1' where ',' or '}' should be`},
		{`{"a":-}`, `line 1, column 7: is not JSON: unexpected '}' where a digit should be`},
		{`{"a":1.}`, `line 1, column 8: is not JSON: unexpected '}' where a digit should be`},
		{`{"a":1e}`, `line 1, column 8: is not JSON: unexpected '}' where a digit should be`},
		{`{"a":+1}`, `line 1, column 6: is not JSON: unexpected '+' where a value should be`},
		{`{"a":{"b":[0,1e999999]}}`, `line 1, column 14: a.b[1] is a number out of range`},
		{`{"a":[0.` + strings.Repeat("1", 2500) + `]}`, `line 1, column 7: a[0] is a number of more than 2500 digits; make it a string`},
		{`{"a":1e-99999999999999999999}`, `line 1, column 6: a is a number out of range`},
		{`{"a":"`, `line 1, column 7: is not JSON: ends too early`},
		{`{"a":"é`, `line 1, column 6: is not JSON: a string without an end`},
		{"{\"a\":\"\n\"}", `line 1, column 7: is not JSON: unexpected '\n' in a string; write it as an escape`},
		{`{"a":"\x"}`, `line 1, column 8: is not JSON: unexpected 'x' after a backslash`},
		{`{"a":"\u12g4"}`, `line 1, column 9: is not JSON: \u takes four hexadecimal digits`},
		{`{"a":"\u+123"}`, `line 1, column 9: is not JSON: \u takes four hexadecimal digits`},
		{`{"a":"\u12`, `line 1, column 9: is not JSON: \u takes four hexadecimal digits`},
		{"{\"a\":\"\xff\"}", `line 1, column 7: is not valid UTF-8`},
		{"{\"a\xc3\":1}", `line 1, column 4: is not valid UTF-8`},
		{"{\"a\":\"\xed\xa0\x80\"}", `line 1, column 7: is not valid UTF-8`},
		{`{"a":{"b":[0,{"c":1,"c":1}]}}`, `line 1, column 21: a.b[1].c is there twice; which one counts would be anybody's guess`},
		{`{"a":{"b":1,"a":2,"\u0062":3}}`, `line 1, column 29: a.b is there twice; which one counts would be anybody's guess`},
		{`{"a":` + deep, `line 1, column 10005: is nested deeper than 10000 levels`},
		{`{"` + strings.Repeat("é", 200) + `":{"b":1,"b":1}}`, `line 1, column 412: ...` + strings.Repeat("é", 99) + `.b is there twice; which one counts would be anybody's guess`},
	} {
		_, err := value.ParseData([]byte(c.text))
		if e := (*value.DataError)(nil); !errors.As(err, &e) {
			t.Errorf("%.40s is taken", c.text)
		} else if got := e.Error(); got != c.want {
			t.Errorf("%.40s:\n%s, want\n%s", c.text, got, c.want)
		}
	}
	ends := strings.Repeat("]", 9_999)
	if _, err := value.ParseData([]byte(`{"a":` + deep[1:] + ends + `}`)); err != nil {
		t.Errorf("10,000 levels: %v", err)
	}
}

func TestParseDataRefusesWhatItCannotCount(t *testing.T) {
	_, err := value.ParseData(make([]byte, 512<<20+1)) // never touched
	if want := "line 1, column 1: is larger than 512 MiB; move some of it into other namespaces"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// Whatever the order in a file, members are found and come in order.
func TestParseDataSortsMembers(t *testing.T) {
	g := valuetest.New(2)
	for _, n := range []int{2, 8, 9, 100, 5000} {
		var b strings.Builder
		names := g.Perm(n)
		for i, x := range names {
			fmt.Fprintf(&b, `,"name%d":%d`, x, i)
		}
		d, err := value.ParseData([]byte(`{"a":{` + b.String()[1:] + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		object, last, count := d.Value().GetText("a"), "", 0
		for k := range object.All() {
			if k.Text() <= last {
				t.Errorf("%s comes after %s", k.Text(), last)
			}
			last = k.Text()
			count++
		}
		if count != n || object.Len() != n {
			t.Errorf("%d of %d members", count, n)
		}
		for i, x := range names {
			key := d.Key(fmt.Sprint("name", x))
			for _, got := range []value.Value{object.GetKey(&key), object.GetText(fmt.Sprint("name", x))} {
				if j, _ := got.Int64(); !got.Defined() || j != int64(i) {
					t.Errorf("name%d is %s, want %d", x, got, i)
				}
			}
		}
		for _, name := range []string{"", "name", "a", fmt.Sprint("name", n)} {
			key := d.Key(name)
			if object.GetText(name).Defined() || object.GetKey(&key).Defined() {
				t.Errorf("there is a %q", name)
			}
		}
	}
}

func FuzzParseData(f *testing.F) {
	g := valuetest.New(3)
	for range 20 {
		text, err := json.Marshal(map[string]any{"a": g.JSON(3)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, s := range []string{
		`{"a":1,"a":2}`, `{"b":1,"a":2}`, `{"a":"\ud83d\ude00\ud800"}`, "{\"a\":\"\xff\"}", `{"a":1e999999}`, `{"a":[-0,0.5,1E+2,1.0]}`, ` [1] `, "{}\x00", `{"a":nulll}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := value.ParseData(text)
		doc, jsonErr := decode(text)
		if err != nil {
			if e := (*value.DataError)(nil); !errors.As(err, &e) || e.Line < 1 || e.Column < 1 {
				t.Fatalf("%v has no place", err)
			}
			if _, isObject := doc.(map[string]any); jsonErr == nil && isObject && utf8.Valid(text) &&
				!strings.Contains(err.Error(), "is there twice") && !strings.Contains(err.Error(), "is a number out of range") {
				t.Fatalf("%q is refused: %v", text, err)
			}
			return
		}
		if jsonErr != nil {
			t.Fatalf("%q is taken; encoding/json says: %v", text, jsonErr)
		}
		if got := goValue(d.Value()); !reflect.DeepEqual(got, doc) {
			t.Fatalf("%q is %v, want %v", text, got, doc)
		}
		if !utf8.Valid(text) || countMembers(doc) != countColons(text) {
			t.Fatalf("%q is taken: not UTF-8, or a name is there twice", text)
		}
		again, err := d.Value().AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(doc)
		if err != nil || !bytes.Equal(again, want) {
			t.Fatalf("%s, want %s (%v)", again, want, err)
		}
	})
}

func countMembers(doc any) (n int) {
	switch doc := doc.(type) {
	case []any:
		for _, e := range doc {
			n += countMembers(e)
		}
	case map[string]any:
		for _, e := range doc {
			n += 1 + countMembers(e)
		}
	}
	return n
}

// countColons counts those outside strings.
func countColons(text []byte) (n int) {
	inside := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			inside = !inside
		case inside && c == '\\':
			i++
		case !inside && c == ':':
			n++
		}
	}
	return n
}
