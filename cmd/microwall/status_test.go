package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
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
		s.must(jetstream.SendStatus(conn, "shop", jetstream.Status{
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
