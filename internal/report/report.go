// Package report is what those who decide say of themselves: by which release of
// a namespace, and whether it is proven. It is for operators to see who is
// behind; nothing is decided by it.
package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/microwall/microwall/policy"
)

const (
	// Max is how large a report may be, in bytes: NATS has room for so many of
	// them, and whoever sends large ones pushes out those of others.
	Max = 2 << 10
	// maxText and maxName bound what is said in words, in bytes: as JSON it may take
	// twice as many, and everything else takes 500.
	maxText = 500
	maxName = 100
)

// Report is what an instance says of itself and one namespace.
type Report struct {
	// Role is "pdp" or "embedded".
	Role string `json:"role"`
	// Software that it runs.
	Software string `json:"software,omitempty"`
	// Trust is the version of the trust file in force.
	Trust uint64 `json:"trust"`
	// Epoch, Revision and Digest name the release that decides; Revision 0 says
	// that none does.
	Epoch    uint64        `json:"epoch,omitempty"`
	Revision uint64        `json:"revision,omitempty"`
	Digest   policy.Digest `json:"digest,omitzero"`
	// Since is when it was activated.
	Since time.Time `json:"since,omitzero"`
	// Refused is why the newest release that was offered does not decide; "" if
	// it does.
	Refused string `json:"refused,omitempty"`
	// Proven is the time of the newest beacon that proves the release; zero if
	// none does. Stale is true if that is too long ago.
	Proven time.Time `json:"proven,omitzero"`
	Stale  bool      `json:"stale,omitempty"`
	// Left is true if this is the last word: the instance ends, or leaves NATS
	// alone from now on. Nobody waits for it any more.
	Left bool `json:"left,omitempty"`
	// Sent is when the report was made, by the clock of the instance.
	Sent time.Time `json:"sent"`
}

// Encode writes a report, of Max bytes at most.
func (r Report) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it takes six bytes for one
	err := e.Encode(r.cleaned())
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func (r Report) cleaned() Report {
	r.Role, r.Refused, r.Software = clean(r.Role, maxName), clean(r.Refused, maxText), clean(r.Software, maxName)
	return r
}

// Parse reads a report. Words in it are safe to be printed; fields that this
// version does not know are left out.
func Parse(b []byte) (Report, error) {
	var r Report
	if len(b) > Max {
		return r, policy.Errorf(policy.Exhausted, "report is %d bytes, the limit is %d", len(b), Max)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return Report{}, policy.Errorf(policy.BadRequest, "report cannot be read: %w", err)
	}
	return r.cleaned(), nil
}

// Same reports whether r says what other does, whenever that was.
func (r Report) Same(other Report) bool {
	r.Sent, r.Proven = other.Sent, other.Proven
	return r == other
}

// clean keeps what a stranger wrote from doing anything to a terminal.
func clean(s string, most int) string {
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.Map(func(c rune) rune {
		switch {
		case c == utf8.RuneError:
			return -1
		case !unicode.IsPrint(c):
			return ' '
		}
		return c
	}, s)
}
