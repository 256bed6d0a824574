package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/report"
	"github.com/microwall/microwall/policy"
)

// Who may report for every namespace can make some up: each of them would cost
// whoever looks a question.
func TestNamespacesThatAClientMakesUpAreNotAskedFor(t *testing.T) {
	s := newSite(t)
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	conn, err := jetstream.Connect(t.Context(), s.NATS, jetstream.ConnectOptions{})
	s.must(err)
	defer conn.Close()
	body, err := report.Report{Role: "embedded", Trust: 1, Sent: time.Now()}.Encode()
	s.must(err)
	const invented = 300
	for i := range invented {
		s.must(jetstream.SendStatus(conn, jetstream.Client, "shop", jetstream.Status{
			Namespace: policy.Namespace(fmt.Sprintf("shop.made-up-%d", i)), Principal: "anonymous", Instance: "liar", Body: body,
		}, time.Minute))
	}
	s.must(conn.Flush())
	s.expect("cart", exitYes, "shop.cart", "status", "shop.cart", "--wait", "30s") // the PDP says something as well
	before := s.unknownHeads()
	stdout, stderr, _ := s.run("cart", "", "status", "--format", "json")
	var all []instanceStatus
	if err := json.Unmarshal([]byte(stdout), &all); err != nil {
		t.Fatal(err, stderr)
	}
	lies, head := 0, false
	for _, one := range all {
		if strings.HasPrefix(string(one.Namespace), "shop.made-up-") {
			lies++
		}
		head = head || one.Namespace == "shop.cart" && one.Head == 1
	}
	if lies != invented || !head {
		t.Errorf("%d lies of %d are shown, and the head of shop.cart: %t", lies, invented, head)
	}
	if after := s.unknownHeads(); after != before {
		t.Errorf("what has no release was asked for: %q, and before %q", after, before)
	}
}

// unknownHeads is the server's count of questions for releases that there are not.
func (s *site) unknownHeads() string {
	_, metrics := s.get("/metrics")
	return regexp.MustCompile(`(?m)^microwall_calls_failed_total\{code="NotFound",method="[^"]*/GetRelease"\} .*$`).FindString(metrics)
}

// What a client says of instances that there are not may push out what others have
// said: then nobody is told that all have the newest release.
func TestToWaitForEverybodyWhileReportsArePushedOutIsAnError(t *testing.T) {
	s := newSite(t)
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	s.expect("cart", exitYes, "shop.cart", "status", "shop.cart", "--wait", "30s")
	conn, err := jetstream.Connect(t.Context(), s.NATS, jetstream.ConnectOptions{})
	s.must(err)
	defer conn.Close()
	body := make([]byte, jetstream.MaxStatus)
	for i := range 30_000 {
		s.must(jetstream.SendStatus(conn, jetstream.Client, "shop", jetstream.Status{Namespace: "shop.pay", Principal: "anonymous", Instance: fmt.Sprint("i", i), Body: body}, time.Minute))
		if i%500 == 0 {
			s.must(conn.Flush())
		}
	}
	s.must(conn.Flush())
	for begun := time.Now(); ; {
		_, stderr, code := s.run("cart", "", "status", "shop.cart", "--wait", "1s")
		if code == exitError && strings.Contains(stderr, "is incomplete") {
			break
		}
		if time.Since(begun) > 30*time.Second { // what was sent is stored in its time
			t.Fatalf("it ends with %d: %s", code, stderr)
		}
	}
}

// Who has signed off is not waited for, who is late is named.
func TestWaitingForEverybodySaysWhoIsLate(t *testing.T) {
	s := newSite(t)
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	conn, err := jetstream.Connect(t.Context(), s.NATS, jetstream.ConnectOptions{})
	s.must(err)
	defer conn.Close()
	say := func(instance string, left bool) {
		t.Helper()
		body, err := report.Report{Role: "embedded", Trust: 1, Sent: time.Now(), Left: left}.Encode()
		s.must(err)
		s.must(jetstream.SendStatus(conn, jetstream.Client, "shop", jetstream.Status{Namespace: "shop.cart", Principal: "anonymous", Instance: instance, Body: body}, time.Minute))
		s.must(conn.Flush())
	}
	say("old-1", true)
	say("cart-1", false)
	stdout, stderr, code := s.run("cart", "", "status", "shop.cart", "--wait", "1s")
	if code != exitNo || !strings.Contains(stderr, "1 of 2 do not decide by the newest release after 1s: cart-1 of anonymous in shop.cart (behind)") {
		t.Errorf("it ends with %d: %s", code, stderr)
	}
	if !regexp.MustCompile(`(?m)^shop\.cart .*old-1 .* left$`).MatchString(stdout) {
		t.Errorf("old-1 has not left:\n%s", stdout)
	}
	say("cart-1", true)
	s.expect("cart", exitYes, "cart-1", "status", "shop.cart", "--wait", "20s")
}

func TestTheStateOfAnInstance(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	head, none := policy.Version{Epoch: 1, Revision: 7, Digest: policy.Digest{7}}, policy.Version{}
	runs := func(epoch, revision uint64, digest byte, change ...func(*report.Report)) report.Report {
		r := report.Report{Epoch: epoch, Revision: revision, Digest: policy.Digest{digest}}
		for _, c := range change {
			c(&r)
		}
		return r
	}
	refused := func(r *report.Report) { r.Refused = "it does not compile" }
	stale := func(r *report.Report) { r.Stale = true }
	left := func(r *report.Report) { r.Left = true }
	for _, tt := range []struct {
		said report.Report
		head *policy.Version
		ago  time.Duration
		want string
	}{
		{runs(1, 7, 7), &head, 45 * time.Second, stateHead},
		{runs(1, 6, 6), &head, 0, stateBehind},
		{runs(0, 0, 0), &head, 0, stateBehind},
		{runs(1, 7, 8), &head, 0, stateBehind}, // a fork
		{runs(1, 6, 6, refused), &head, 0, stateRefused},
		{runs(1, 7, 7, refused), &head, 0, stateHead}, // an older one
		{runs(1, 7, 7, stale), &head, 0, stateStale},
		{runs(1, 8, 8), &head, 0, stateAhead}, // the streams came back from an old copy
		{runs(2, 1, 8), &head, 0, stateAhead},
		{runs(1, 7, 7), &none, 0, stateAhead}, // another NATS
		{runs(0, 0, 0), &none, 0, stateHead},
		{runs(1, 7, 7), nil, 0, stateHead},                    // of an epoch before
		{runs(1, 7, 7), &head, 51 * time.Second, stateSilent}, // killed
		{runs(1, 6, 6), &head, 51 * time.Second, stateSilent},
		{runs(1, 6, 6, left), &head, 80 * time.Second, stateLeft},
	} {
		if got := stateOf(pap.Status{Received: now.Add(-tt.ago), Report: tt.said}, tt.head, now); got != tt.want {
			t.Errorf("%+v, %s ago, head %v: %s, want %s", tt.said, tt.ago, tt.head, got, tt.want)
		}
	}
}

// A script has to tell who is behind, which is a no, from a server that gives no
// answer, which is an error.
func TestToWaitForSomebodyInVainIsANoAndNoError(t *testing.T) {
	s := newSite(t)
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	s.expect("cart", exitYes, "shop.cart", "status", "shop.cart", "--wait", "30s") // the PDP says something
	conn, err := jetstream.Connect(t.Context(), s.NATS, jetstream.ConnectOptions{})
	s.must(err)
	defer conn.Close()
	now := time.Now()
	body, err := report.Report{Role: "embedded", Trust: 1, Epoch: 1, Revision: 7, Proven: now.Add(-time.Hour), Sent: now}.Encode()
	s.must(err)
	s.must(jetstream.SendStatus(conn, jetstream.Client, "shop", jetstream.Status{Namespace: "shop.cart", Principal: "anonymous", Instance: "late", Body: body}, time.Minute))
	s.must(conn.Flush())
	s.expect("cart", exitNo, "microwall: 1 of 2 do not decide by the newest release after 100ms: late of anonymous in shop.cart (ahead); look at their logs", "status", "shop.cart", "--wait", "100ms")
	// Told apart by epoch, too, and the proof is as old as it was when that was heard.
	s.expect("cart", exitYes, "late      1/7   1/1   1h old", "status", "shop.cart")
	s.expect("cart", exitError, "namespace shop.crat has no release", "status", "shop.crat", "--wait", "100ms")
	s.kill()
	s.expect("cart", exitError, s.GRPC, "status", "shop.cart", "--wait", "100ms", "--timeout", "5s")
}
