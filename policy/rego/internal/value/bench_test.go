package value_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

// documents of about n bytes, as policies have them for data.
var documents = []struct {
	name string
	make func(n int) []byte
}{
	{"bindings", func(n int) []byte { // who has which role where
		return list(n, `{"user_roles":{`, `}}`, func(b *bytes.Buffer, i int) {
			fmt.Fprintf(b, `"user-%07d":[{"role":"role-%03d","scope":"/org/%d/project/%d"},{"role":"role-%03d","scope":"/org/%d"}]`,
				i, i%100, i%50, i%10_000, i%7, i%50)
		})
	}},
	{"records", func(n int) []byte {
		return list(n, `{"bindings":[`, `]}`, func(b *bytes.Buffer, i int) {
			fmt.Fprintf(b, `{"resource":"/org/%d/project/%d","role":"role-%03d","since":%d,"user":"user-%07d"}`, i%50, i, i%100, 1700000000+i, i)
		})
	}},
	{"pairs", func(n int) []byte { // the dearest: as many names as there are values
		return list(n, `{"role":{`, `}}`, func(b *bytes.Buffer, i int) { fmt.Fprintf(b, `"user-%07d":"role-%03d"`, i, i%100) })
	}},
	{"numbers", func(n int) []byte {
		return list(n, `{"risk":[`, `]}`, func(b *bytes.Buffer, i int) {
			fmt.Fprintf(b, `[%d,%s,%d]`, i, strconv.FormatFloat(float64(i)/1000, 'f', 3, 64), 1700000000000+i)
		})
	}},
}

func list(n int, start, end string, add func(b *bytes.Buffer, i int)) []byte {
	var b bytes.Buffer
	b.WriteString(start)
	for i := 0; b.Len() < n; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		add(&b, i)
	}
	b.WriteString(end)
	return b.Bytes()
}

// BenchmarkParseData reports, beside the time, how many bytes stay alive for each
// byte of JSON, and how many were allocated on the way.
func BenchmarkParseData(b *testing.B) {
	for _, size := range []int{1 << 10, 50 << 20} {
		for _, d := range documents {
			b.Run(fmt.Sprintf("%s/%d", d.name, size), func(b *testing.B) {
				json := d.make(size)
				b.SetBytes(int64(len(json)))
				var data *value.Data
				before := heap()
				for b.Loop() {
					var err error
					if data, err = value.ParseData(json); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				after := heap()
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(json)), "live/B")
				b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/float64(len(json)), "alloc/B")
				runtime.KeepAlive(data)
				runtime.KeepAlive(json)
			})
		}
	}
}

func heap() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// sink keeps what a benchmark works out.
var sink value.Value

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{3, 8, 1000} {
		doc := map[string]any{}
		for i := range n {
			doc[fmt.Sprintf("member-%04d", i)] = "value"
		}
		for _, f := range valuetest.Forms(b, doc) {
			name := fmt.Sprintf("member-%04d", n/2)
			prepared := (*value.Data)(nil).Key(name)
			if f.Name == "packed" {
				d, err := value.Pack(f.Value)
				if err != nil {
					b.Fatal(err)
				}
				f.Value, prepared = d.Value(), d.Key(name)
			}
			b.Run(fmt.Sprintf("%s/%d/prepared", f.Name, n), func(b *testing.B) {
				for b.Loop() {
					sink = f.Value.GetKey(&prepared)
				}
			})
			key := value.Text(name)
			b.Run(fmt.Sprintf("%s/%d", f.Name, n), func(b *testing.B) {
				for b.Loop() {
					sink = f.Value.Get(key)
				}
			})
		}
	}
}

func BenchmarkScan(b *testing.B) {
	doc := make([]any, 100)
	for i := range doc {
		doc[i] = fmt.Sprint("element ", i)
	}
	for _, f := range valuetest.Forms(b, doc) {
		b.Run(f.Name, func(b *testing.B) {
			var key value.Value
			for b.Loop() {
				for c := f.Value.Scan(); c.Next(&key, &sink); {
				}
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	texts, numbers := make([]value.Value, 100), make([]value.Value, 100)
	for i := range texts {
		texts[i], numbers[i] = value.Text(fmt.Sprintf("sku-%04d", i*7%100)), value.Int(int64(i*7%100))
	}
	for _, n := range []int{3, 100} {
		for _, room := range []int{0, n} {
			for name, elems := range map[string][]value.Value{"texts": texts[:n], "numbers": numbers[:n]} {
				name = fmt.Sprintf("%s/%d/room%d", name, n, room)
				b.Run("set/"+name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						sink = value.NewSet(room)
						for _, e := range elems {
							sink.Add(e)
						}
					}
				})
				b.Run("object/"+name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						sink = value.NewObject(room)
						for _, e := range elems {
							sink.Insert(e, e)
						}
					}
				})
			}
		}
		b.Run(fmt.Sprintf("array/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink = value.NewArray()
				for _, e := range numbers[:n] {
					sink.Append(e)
				}
			}
		})
	}
}

func BenchmarkEqual(b *testing.B) {
	text := func(s string) value.Value { return value.Text(string([]byte(s))) }
	for _, c := range []struct {
		name string
		v, w value.Value
	}{
		{"strings", text("member-0001"), text("member-0001")}, {"other strings", text("member-0001"), text("member-0002")},
		{"integers", value.Int(1), value.Int(1)}, {"doubles", value.Float(0.5), value.Float(0.5)},
		{"1.0 and 1", value.NumberText("1.0"), value.Int(1)}, {"1.0 and 1.00", value.NumberText("1.0"), value.NumberText("1.00")},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				sink = value.Boolean(value.Equal(c.v, c.w))
			}
		})
	}
}

// BenchmarkOrder puts a set in order whose members came in another one.
func BenchmarkOrder(b *testing.B) {
	for name, member := range map[string]func(i int) value.Value{
		"numbers": func(i int) value.Value { return value.Int(int64(i)) },
		"strings": func(i int) value.Value { return value.Text("user-" + strconv.Itoa(i)) },
		"pairs":   func(i int) value.Value { return value.NewArray(value.Text("team"), value.Int(int64(i))) },
	} {
		for _, n := range []int{10, 1000, 100_000} {
			b.Run(name+"/"+strconv.Itoa(n), func(b *testing.B) {
				members := make([]value.Value, n)
				for i := range members {
					members[i] = member(i * 7919 % 1_000_003)
				}
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					set := value.SetOf(members...)
					b.StartTimer()
					set.Scan()
				}
			})
		}
	}
}
