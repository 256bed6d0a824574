package value_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/value"
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
					data = nil
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
