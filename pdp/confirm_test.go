package pdp_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
)

func TestAConfirmedHeadIsNeverOlderThanAPushBeforeIt(t *testing.T) {
	d, p, url := startBeacons(t)
	q := d.StartPDP(url, t.TempDir())
	startIssuer(t, d, p, "beat", "one")
	startIssuer(t, d, q, "beat2", "two")
	client, err := jetstream.Connect(t.Context(), url, jetstream.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	confirm := func(ns policy.Namespace) (policy.Version, error) {
		begun := time.Now()
		note, err := jetstream.Confirm(t.Context(), client, jetstream.PDP, "shop", ns)
		if err != nil {
			return policy.Version{}, err
		}
		b, err := d.Trust().OpenBeacon(note)
		if err != nil {
			return policy.Version{}, err
		}
		if b.Time().Before(begun.Truncate(time.Millisecond)) || len(b.Heads()) != 1 {
			t.Errorf("confirmed since %v by a beacon of %v: %v", begun, b.Time(), b.Heads())
		}
		head, _ := b.Head(ns)
		return head, nil
	}
	if _, err := confirm("shop.cart"); policy.KindOf(err) != policy.NotFound {
		t.Errorf("a head that is not there: %v", err)
	}
	var work sync.WaitGroup
	for key, at := range map[string]*testkit.PDP{"cart": p, "pay": q} {
		work.Go(func() {
			ns := policy.Namespace("shop." + key)
			for n := range 15 {
				pushed := d.Push(at, key, ns, allowsAdd+strings.Repeat(" ", n)).Release
				// By whichever of the two, several at once.
				var asking sync.WaitGroup
				for range 8 {
					asking.Go(func() {
						if head, err := confirm(ns); err != nil || head != pushed.Version() {
							t.Errorf("after %v was pushed, %v is confirmed, %v", pushed.Version(), head, err)
						}
					})
				}
				asking.Wait()
			}
		})
	}
	work.Wait()
}

func TestAllWhoWaitShareOneTick(t *testing.T) {
	d, p, url := startBeacons(t)
	cart := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	i := startIssuer(t, d, p, "beat", "one")
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ticks, err := nc.SubscribeSync("pdp.head.shop.-confirm")
	if err != nil {
		t.Fatal(err)
	}
	const many = 500
	var work sync.WaitGroup
	for range many {
		work.Go(func() {
			note, err := i.Confirm(t.Context(), "shop.cart")
			if err != nil {
				t.Error(err)
				return
			}
			if b, err := d.Trust().OpenBeacon(note); err != nil || b.Heads()[0] != cart.Version() {
				t.Errorf("%v, %v", b, err)
			}
		})
	}
	work.Wait()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := ticks.Pending(); err != nil || n == 0 || n > many/2 {
		t.Errorf("%d ticks for %d who asked at once, %v", n, many, err)
	} else {
		t.Logf("%d ticks for %d who asked at once", n, many)
	}
}

func TestNobodyConfirms(t *testing.T) {
	d, p, url := startBeacons(t)
	client, err := jetstream.Connect(t.Context(), url, jetstream.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := jetstream.Confirm(ctx, client, jetstream.PDP, "shop", "shop.cart"); policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), "--beacon-key") {
		t.Errorf("without a PDP: %v", err)
	}
	if _, err := jetstream.Confirm(t.Context(), client, jetstream.PDP, "shop", "other.cart"); policy.KindOf(err) != policy.BadRequest {
		t.Errorf("of another domain: %v", err)
	}
	// Whoever asks cannot have the answer stored as a head.
	d.Push(p, "cart", "shop.cart", allowsAdd)
	before, err := p.Store.Head(t.Context(), "shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	ignored := make(chan jetstream.Event, 10)
	ctx, end := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- jetstream.ServeConfirm(ctx, jetstream.ConfirmConfig{
			Conn: p.NATSConn, Domain: "shop", Events: func(e jetstream.Event) { ignored <- e },
			Confirm: func(context.Context, policy.Namespace) ([]byte, error) { return []byte("evil"), nil },
		})
	}()
	if note, err := jetstream.Confirm(t.Context(), client, jetstream.PDP, "shop", "shop.cart"); err != nil || string(note) != "evil" {
		t.Errorf("%q, %v", note, err)
	}
	for _, reply := range []string{"$KV.policy.shop.shop_cart.head", "pdp.beatin.shop.shop_cart", ""} {
		if err := client.PublishMsg(&nats.Msg{Subject: "pdp.confirm.shop.shop_cart.head", Reply: reply}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ignored:
		case <-time.After(patience):
			t.Errorf("a request with the reply subject %q was not ignored", reply)
		}
	}
	// Everybody else is answered, as the broker keeps in mind who is not.
	if m, err := client.Request("pdp.confirm.shop.-none.head", nil, patience); err != nil || m.Header.Get("Microwall-Error") == "" {
		t.Errorf("%v, %v", m, err)
	}
	end()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if after, err := p.Store.Head(t.Context(), "shop.cart"); err != nil || after.Seq != before.Seq {
		t.Errorf("the head is %+v, %v", after, err)
	}
}

func TestAClientHearsAndConfirmsWithinItsAccount(t *testing.T) {
	d, dir := testkit.NewDomain(t), t.TempDir()
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	url := d.GuardedNATS(dir, jetstream.Principal{Name: "cart-1", Kind: jetstream.Client, Namespaces: []policy.Namespace{"shop.cart"}}).URL()
	p := d.StartPDP(url, t.TempDir())
	cart := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	d.Push(p, "pay", "shop.pay", allowsAdd)
	i := startIssuer(t, d, p, "beat", "one")
	wantIssuer[pdp.Issued](i)
	creds, err := jetstream.LoadCredentials(filepath.Join(dir, "cart-1.nkey"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := jetstream.Connect(t.Context(), url, jetstream.ConnectOptions{Credentials: creds})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if m, err := client.Request("ask.shop_cart.beat", nil, patience); err != nil {
		t.Error(err)
	} else if b, err := d.Trust().OpenBeacon(m.Data); err != nil || b.Heads()[0] != cart.Version() {
		t.Errorf("got %v, %v", b, err)
	}
	heard, err := client.SubscribeSync("hear.shop_cart.beat")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Flush(); err != nil {
		t.Fatal(err)
	}
	i.round()
	if m, err := heard.NextMsg(patience); err != nil {
		t.Error(err)
	} else if b, err := d.Trust().OpenBeacon(m.Data); err != nil || b.Heads()[0] != cart.Version() {
		t.Errorf("heard %v, %v", b, err)
	}
	note, err := jetstream.Confirm(t.Context(), client, jetstream.Client, "shop", "shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := d.Trust().OpenBeacon(note); err != nil || b.Heads()[0] != cart.Version() {
		t.Errorf("confirmed %v, %v", b, err)
	}
	// Of what is none of its business it is told nothing.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if note, err := jetstream.Confirm(ctx, client, jetstream.Client, "shop", "shop.pay"); policy.KindOf(err) != policy.Unavailable {
		t.Errorf("another team's head is confirmed: %s, %v", note, err)
	}
	// Nor does it issue beacons, or tick.
	for _, subject := range []string{"pdp.beatin.shop.shop_cart", "pdp.beat.shop.shop_cart", "$KV.policy.shop.-tick.head", "$KV.policy.shop.-confirm.head", "hear.shop_cart.beat"} {
		if m, err := client.Request(subject, []byte("evil"), 200*time.Millisecond); err == nil {
			t.Errorf("%s is answered %s", subject, m.Data)
		}
	}
	i.round()
	wantBeacon(t, d, p.NATSConn, "shop_cart", cart.Version(), time.Time{})
}
