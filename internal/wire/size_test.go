package wire_test

import (
	"strings"
	"testing"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
)

func TestSizesOnTheWireFollowTheLimitOfARequest(t *testing.T) {
	for _, test := range []struct{ limit, request, message int }{
		{0, 2 << 20, 4 << 20},
		{1, 2, 4 << 20},
		{1 << 20, 2 << 20, 4 << 20},
		{3 << 20, 6 << 20, 12 << 20},
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
