package wire_test

import (
	"slices"
	"sort"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
)

func TestSizesOnTheWireFollowTheLimitOfARequest(t *testing.T) {
	for _, test := range []struct{ limit, request, message int }{
		{0, 2<<20 + 1024, 4 << 20},
		{1, 2 + 1024, 4 << 20},
		{1 << 20, 2<<20 + 1024, 4 << 20},
		{3 << 20, 6<<20 + 1024, 12 << 20},
	} {
		l := policy.Limits{RequestBytes: test.limit}
		if got := wire.MaxMessage(l); got != test.message {
			t.Errorf("limit %d: a message has %d bytes at most, want %d", test.limit, got, test.message)
		}
		if err := wire.CheckSize(test.request, l); err != nil {
			t.Errorf("limit %d: %v", test.limit, err)
		}
		if err := wire.CheckSize(test.request+1, l); policy.KindOf(err) != policy.Exhausted || !strings.Contains(err.Error(), "--max-request-bytes") {
			t.Errorf("limit %d: one byte too many: %v", test.limit, err)
		}
	}
}

func TestWhatTheLimitLetsThroughIsNotTooLargeOnItsWay(t *testing.T) {
	nested := func(depth int, wrap func(any) any) any {
		var v any = []any{}
		for range depth {
			v = wrap(v)
		}
		return v
	}
	list := func(v any) any { return []any{v} }
	object := func(v any) any { return map[string]any{"": v} }
	for name, value := range map[string]any{
		"null":              nil,
		"a bool":            true,
		"a number":          1,
		"a text":            "",
		"an empty list":     []any{},
		"an empty object":   map[string]any{},
		"ten lists":         nested(10, list),
		"thirty lists":      nested(30, list),
		"sixty lists":       nested(60, list),
		"ten objects":       nested(10, object),
		"sixty objects":     nested(60, object),
		"lists of objects":  nested(30, func(v any) any { return list(object(v)) }),
		"pairs of lists":    nested(6, func(v any) any { return []any{v, v} }),
		"pairs and nothing": nested(60, func(v any) any { return []any{v, []any{}} }),
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; n <= 64; n *= 4 {
				context, err := policy.NewProperties(map[string]any{"": slices.Repeat([]any{value}, n)})
				if err != nil {
					t.Fatal(err)
				}
				r := policy.Request{
					Namespace: policy.Namespace(strings.Repeat("n", 63)), Action: policy.Action{Name: "A"},
					Subject: policy.Entity{Type: "t", ID: "i"}, Resource: policy.Entity{Type: "t", ID: "i"}, Context: context,
				}
				l := policy.Limits{RequestBytes: smallestLimit(t, r)}
				m, err := wire.RequestProto(&r)
				if err != nil {
					t.Fatal(err)
				}
				if err := wire.CheckSize(proto.Size(m), l); err != nil {
					t.Errorf("%d of it: %v", n, err)
				}
			}
		})
	}
}

// smallestLimit is the one that just lets r through.
func smallestLimit(t *testing.T, r policy.Request) int {
	t.Helper()
	const most = 64 << 20
	limit := 1 + sort.Search(most, func(i int) bool { return policy.Limits{RequestBytes: i + 1}.Check(&r) == nil })
	if err := (policy.Limits{RequestBytes: limit}).Check(&r); err != nil {
		t.Fatal(err)
	}
	return limit
}
