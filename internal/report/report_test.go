package report_test

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/microwall/microwall/internal/report"
	"github.com/microwall/microwall/policy"
)

func TestAReportIsReadAsItWasWritten(t *testing.T) {
	want := report.Report{
		Role: "embedded", Software: "shop 1.2", Trust: 3, Epoch: 1, Revision: 7, Digest: policy.Digest{1},
		Since: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), Refused: "bundle does not compile", Stale: true, Sent: time.Date(2026, 11, 23, 10, 1, 0, 0, time.UTC),
	}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := report.Parse(b); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := report.Parse([]byte(`{"role": "pdp", "later": {"x": 1}}`)); err != nil || got.Role != "pdp" {
		t.Errorf("of a later version: %+v, %v", got, err)
	}
}

func TestWhatAStrangerReportsDoesNothingToATerminal(t *testing.T) {
	for _, text := range []string{"\x1b[2Jgone", "line\nline", "\u202egnp.exe", "\u009b31m", strings.Repeat("long", 10_000)} {
		b, err := report.Report{Refused: text}.Encode()
		if len(text) > 1000 {
			b = []byte(`{"refused":"` + text[:2000] + `"}`)
		}
		got, parseErr := report.Parse(b)
		if err != nil || parseErr != nil || strings.ContainsFunc(got.Refused, func(r rune) bool { return !unicode.IsPrint(r) }) || len(got.Refused) > 510 {
			t.Errorf("%.20q is %.40q (%d bytes), %v, %v", text, got.Refused, len(got.Refused), err, parseErr)
		}
	}
	if _, err := report.Parse(make([]byte, report.Max+1)); policy.KindOf(err) != policy.Exhausted {
		t.Errorf("too long: %v", err)
	}
}

func TestNoReportIsTooLargeToBeTaken(t *testing.T) {
	far := time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.FixedZone("", 23*3600+59*60))
	for _, text := range []string{strings.Repeat(`"`, 10_000), strings.Repeat(`\`, 10_000), strings.Repeat("<", 10_000), strings.Repeat("\u2028", 10_000), strings.Repeat("\xff", 10_000)} {
		b, err := report.Report{
			Role: text, Software: text, Refused: text, Trust: 1<<64 - 1, Epoch: 1<<64 - 1, Revision: 1<<64 - 1, Digest: policy.Digest{1}, Stale: true, Left: true,
			Since: far, Proven: far, Sent: far,
		}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := report.Parse(b); err != nil {
			t.Errorf("%.4q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"role":"pdp","trust":1,"revision":2,"sent":"2026-11-23T10:00:00Z"}`))
	f.Add([]byte(`{"refused":"\u001b[2J","digest":"sha256:00"}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := report.Parse(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			return // a time beyond the year 9999
		}
		if got, err := report.Parse(again); err != nil || got != r {
			t.Errorf("%+v is %+v the second time, %v", r, got, err)
		}
	})
}
