//go:build unix

package jetstream_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

func TestNobodysStatusKeepsThoseOfOthersFromBeingListed(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	mine, thief := g.connect(t, "cart-1"), g.connect(t, "pay-1")
	const instances = 2500 // more than are asked for at once
	var want []string
	for i := range instances {
		s := jetstream.Status{Namespace: cart, Principal: "cart-1", Instance: fmt.Sprint("i", i), Body: []byte("fine")}
		if err := jetstream.SendStatus(mine.Conn, jetstream.Client, domain, s, time.Minute); err != nil {
			t.Fatal(err)
		}
		want = append(want, s.Instance)
	}
	if err := mine.Flush(); err != nil {
		t.Fatal(err)
	}
	// To clients of NATS, a message without a body is the broker's own word if it
	// has a status.
	for i, header := range []nats.Header{{"Status": {"503"}}, {"Status": {"404"}}, {"Status": {"409"}, "Description": {"Consumer Deleted"}}, {"Status": {"100"}}} {
		header["Nats-TTL"] = []string{"never"}
		m := &nats.Msg{Subject: fmt.Sprint("say.pay-1.boutique_pay.i", i), Header: header}
		if answer, err := thief.RequestMsg(m, patience); err != nil {
			t.Fatalf("%v: %v %v", header, answer, err)
		}
	}
	for range 2 {
		all, err := g.store.Statuses(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range all {
			got = append(got, s.Instance)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%d statuses are listed, not %d", len(got), len(want))
		}
	}
	if all, err := g.store.Statuses(t.Context(), pay); len(all) > 0 || err != nil {
		t.Errorf("%v %v", all, err)
	}
}

// There is room for so many reports. Who takes it all with reports of instances that
// there are not pushes out those of others: then it is said that some are missing.
func TestAFloodOfReportsDoesNotHideThatOthersAreMissing(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	victim, thief := g.connect(t, "cart-1"), g.connect(t, "pay-1")
	report := jetstream.Status{Namespace: cart, Principal: "cart-1", Instance: "late", Body: []byte("behind")}
	say := func() {
		t.Helper()
		if err := jetstream.SendStatus(victim.Conn, jetstream.Client, domain, report, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := victim.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	forged := func(i, size int) *nats.Msg {
		return &nats.Msg{Subject: fmt.Sprint("say.pay-1.boutique_pay.i", i), Data: make([]byte, size), Header: nats.Header{"Nats-TTL": {"never"}}}
	}
	say()
	if all, err := g.store.Statuses(t.Context(), cart); len(all) != 1 || err != nil {
		t.Fatalf("%v, %v", all, err)
	}
	for name, m := range map[string]*nats.Msg{
		"a large report": forged(0, jetstream.MaxStatus+300),
		"large headers":  {Subject: forged(0, 1).Subject, Data: []byte("x"), Header: nats.Header{"Large": {strings.Repeat("x", jetstream.MaxStatus+300)}}},
	} {
		if answer, err := thief.RequestMsg(m, patience); err != nil || !strings.Contains(string(answer.Data), "message size exceeds maximum") {
			t.Errorf("%s: %v %v", name, answer, err)
		}
	}
	const flood = 30_000
	for i := range flood {
		if err := thief.PublishMsg(forged(i, jetstream.MaxStatus)); err != nil {
			t.Fatal(err)
		}
		if i%500 == 0 { // no faster than the broker reads
			if _, err := thief.RequestMsg(forged(i, 1), patience); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := thief.RequestMsg(forged(flood, 1), patience); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		all, err := g.store.Statuses(t.Context(), cart)
		if policy.KindOf(err) != policy.Exhausted || err == nil || !strings.Contains(err.Error(), "incomplete") {
			t.Errorf("%d statuses, %v", len(all), err)
		}
		say() // it gets in
	}
}

// The broker keeps the identities of messages (Nats-Msg-Id) as long as it looks
// for duplicates, in memory that no limit of the stream bounds.
func TestIdentitiesOfStatusesAreForgottenAtOnce(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	api, err := js.New(g.pdp.Conn)
	if err != nil {
		t.Fatal(err)
	}
	window := func() time.Duration {
		stream, err := api.Stream(t.Context(), "STATUS")
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().Config.Duplicates
	}
	if got := window(); got > 100*time.Millisecond {
		t.Errorf("they are kept for %s", got)
	}
	// So they are where the stream was made by an older PDP.
	stream, err := api.Stream(t.Context(), "STATUS")
	if err != nil {
		t.Fatal(err)
	}
	old := stream.CachedInfo().Config
	old.Duplicates = 2 * time.Minute
	if _, err := api.UpdateStream(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	g.open(t, 1)
	if got := window(); got > 100*time.Millisecond {
		t.Errorf("in a stream that was there they are kept for %s", got)
	}
}
