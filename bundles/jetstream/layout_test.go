package jetstream_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

func TestNATSKeyValueToolsReadTheHeads(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	first := mustPut(t, s, cart, "first", nil, 0)
	mustPut(t, s, cart, "second", nil, first)
	kv, err := admin(t, url).KeyValue(t.Context(), "policy")
	if err != nil {
		t.Fatal(err)
	}
	const key = "boutique.boutique_cart.head"
	if e, err := kv.Get(t.Context(), key); err != nil || string(e.Value()) != "second" {
		t.Errorf("get: %v, %v", e, err)
	}
	if h, err := kv.History(t.Context(), key); err != nil || len(h) != 2 {
		t.Errorf("history: %v, %v", h, err)
	}
	if keys, err := kv.Keys(t.Context()); err != nil || !slices.Equal(keys, []string{key}) {
		t.Errorf("keys: %v, %v", keys, err)
	}
	if _, err := kv.Put(t.Context(), "something.else", nil); err == nil {
		t.Error("a key that is no head was stored")
	}
	if err := kv.Purge(t.Context(), key); err == nil {
		t.Error("the history of a head was purged")
	}
}

func TestARollupHeaderOverwritesNothing(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	packed := random(13, 100_000)
	mustPut(t, s, cart, "note", packed, 0)
	for _, subject := range []string{
		"pdp.blob.boutique.boutique_cart." + policy.DigestOf(packed).Hex(),
		"$KV.policy.boutique.boutique_cart.head",
	} {
		for _, rollup := range []string{"sub", "all"} {
			m := &nats.Msg{Subject: subject, Data: []byte("forged"), Header: nats.Header{js.MsgRollup: {rollup}}}
			if _, err := admin(t, url).PublishMsg(t.Context(), m); err == nil {
				t.Errorf("a rollup of %s of %s went in", rollup, subject)
			}
		}
	}
	h, err := s.Head(t.Context(), cart)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Bundle(t.Context(), h); err != nil || !bytes.Equal(got, packed) {
		t.Errorf("bundle has %d bytes, %v", len(got), err)
	}
}

func TestAStoreLargerThanTheBrokerIsRefused(t *testing.T) {
	server := serve(t)
	_, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, server.URL()), Domain: domain, MaxBytes: 2*server.MaxBytes() + 4})
	wantKind(t, err, policy.Exhausted, "storage")
}

func TestStreamsThatAreLaidOutDifferentlyAreRefused(t *testing.T) {
	server := serve(t)
	url := server.URL()
	api := admin(t, url)
	open := func() error {
		_, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain})
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	good := map[string]js.StreamConfig{}
	for _, name := range []string{"KV_policy", "BLOBS", "BEAT", "STATUS"} {
		stream, err := api.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		good[name] = stream.CachedInfo().Config
	}
	for _, tt := range []struct {
		stream, name string
		change       func(*js.StreamConfig)
		ok           bool
	}{
		{"BLOBS", "discard_new_per_subject", func(c *js.StreamConfig) { c.DiscardNewPerSubject = false }, false},
		{"BLOBS", "max_msgs_per_subject", func(c *js.StreamConfig) { c.MaxMsgsPerSubject = 2 }, false},
		{"BLOBS", "discard is", func(c *js.StreamConfig) { c.Discard, c.DiscardNewPerSubject = js.DiscardOld, false }, false},
		{"BLOBS", "allow_rollup_hdrs", func(c *js.StreamConfig) { c.AllowRollup = true }, false},
		{"BLOBS", "allow_direct", func(c *js.StreamConfig) { c.AllowDirect = false }, false},
		{"BLOBS", "max_age", func(c *js.StreamConfig) { c.MaxAge = time.Hour }, false},
		{"BLOBS", "storage", func(c *js.StreamConfig) { c.Storage, c.MaxBytes = js.MemoryStorage, -1 }, false},
		{"BLOBS", "subjects", func(c *js.StreamConfig) { c.Subjects = []string{"pdp.blob.*.*"} }, false},
		{"BLOBS", "max_msg_size", func(c *js.StreamConfig) { c.MaxMsgSize = 1000 }, false},
		{"BLOBS", "retention", func(c *js.StreamConfig) { c.Retention = js.WorkQueuePolicy }, false},
		{"BLOBS", "no_ack", func(c *js.StreamConfig) { c.NoAck = true }, false},
		{"BLOBS", "allow_msg_ttl", func(c *js.StreamConfig) { c.AllowMsgTTL = true }, false},
		{"BLOBS", "persist_mode", func(c *js.StreamConfig) { c.PersistMode = js.AsyncPersistMode }, false},
		{"KV_policy", "republish is none", func(c *js.StreamConfig) { c.RePublish = nil }, false},
		{"KV_policy", "republish", func(c *js.StreamConfig) { c.RePublish.Destination = "other.{{wildcard(1)}}.{{wildcard(2)}}" }, false},
		{"KV_policy", "republish", func(c *js.StreamConfig) { c.RePublish.HeadersOnly = true }, false},
		{"KV_policy", "allow_direct", func(c *js.StreamConfig) { c.AllowDirect = false }, false},
		{"KV_policy", "deny_purge", func(c *js.StreamConfig) { c.DenyPurge = false }, false},
		{"KV_policy", "deny_delete", func(c *js.StreamConfig) { c.DenyDelete = false }, false},
		{"KV_policy", "allow_rollup_hdrs", func(c *js.StreamConfig) { c.DenyPurge, c.AllowRollup = false, true }, false},
		{"KV_policy", "max_msgs_per_subject", func(c *js.StreamConfig) { c.MaxMsgsPerSubject = 1 }, false},
		{"KV_policy", "max_age", func(c *js.StreamConfig) { c.MaxAge = time.Hour }, false},
		{"KV_policy", "discard", func(c *js.StreamConfig) { c.Discard = js.DiscardOld }, false},
		{"KV_policy", "a KV tool's subjects and history", func(c *js.StreamConfig) {
			c.Subjects, c.MaxMsgsPerSubject, c.MaxMsgSize = []string{"$KV.policy.>"}, 64, -1
		}, true},
		{"KV_policy", "more of everything", func(c *js.StreamConfig) {
			c.MaxMsgsPerSubject, c.MaxBytes, c.MaxMsgSize, c.Compression = -1, -1, 1<<20, js.S2Compression
		}, true},
		{"BLOBS", "more of everything", func(c *js.StreamConfig) {
			c.MaxBytes, c.MaxMsgSize, c.DenyPurge, c.Duplicates = -1, -1, true, time.Minute
		}, true},
		{"BEAT", "republish is none", func(c *js.StreamConfig) { c.RePublish = nil }, false},
		{"BEAT", "allow_direct", func(c *js.StreamConfig) { c.AllowDirect = false }, false},
		{"BEAT", "discard is", func(c *js.StreamConfig) { c.Discard = js.DiscardNew }, false},
		{"BEAT", "max_age", func(c *js.StreamConfig) { c.MaxAge = time.Hour }, false},
		{"STATUS", "max_msgs_per_subject", func(c *js.StreamConfig) { c.MaxMsgsPerSubject = 2 }, false},
		{"STATUS", "max_age", func(c *js.StreamConfig) { c.MaxAge = 0 }, false},
		{"STATUS", "allow_msg_ttl", func(c *js.StreamConfig) { c.AllowMsgTTL = false }, false},
		{"STATUS", "more of everything", func(c *js.StreamConfig) { c.MaxBytes, c.MaxMsgSize, c.DenyPurge = 200<<20, -1, true }, true},
	} {
		t.Run(tt.stream+" "+tt.name, func(t *testing.T) {
			c := good[tt.stream]
			if c.RePublish != nil {
				r := *c.RePublish
				c.RePublish = &r
			}
			tt.change(&c)
			if err := api.DeleteStream(t.Context(), tt.stream); err != nil {
				t.Fatal(err)
			}
			if _, err := api.CreateStream(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = api.DeleteStream(context.Background(), tt.stream)
				if _, err := api.CreateStream(context.Background(), good[tt.stream]); err != nil {
					t.Error(err)
				}
			}()
			err := open()
			if tt.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantKind(t, err, policy.Failed, "stream "+tt.stream+" is laid out differently", tt.name, "nats stream edit "+tt.stream)
			// Only this is wrong.
			if n := strings.Count(err.Error(), ";"); n > 2 {
				t.Errorf("says more than is wrong: %v", err)
			}
		})
	}
}

func TestOpenStoreRaisesTheBoundAndNeverLowersIt(t *testing.T) {
	url := serve(t).URL()
	for _, tt := range []struct{ ask, want int64 }{{4 << 20, 2 << 20}, {8 << 20, 4 << 20}, {4 << 20, 4 << 20}, {0, 4 << 20}} {
		if _, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, MaxBytes: tt.ask}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"KV_policy", "BLOBS"} {
			stream, err := admin(t, url).Stream(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if got := stream.CachedInfo().Config.MaxBytes; got != tt.want {
				t.Errorf("asked for %d, %s has %d, want %d", tt.ask, name, got, tt.want)
			}
		}
	}
}

func TestReservedTokensAreNoNamespaces(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	var ignored []jetstream.Event
	s2, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, Events: func(e jetstream.Event) { ignored = append(ignored, e) }})
	if err != nil {
		t.Fatal(err)
	}
	f := startFollower(t, url, jetstream.FollowConfig{List: s2.Namespaces}, nil)
	f.wantSynced(t)
	for _, token := range []string{"-tick", "-confirm", "-trust"} {
		if _, err := admin(t, url).Publish(t.Context(), "$KV.policy.boutique."+token+".head", []byte("ours")); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, s, cart, note(cart, 1), random(1, 10), 0)
	f.wantOffer(t, note(cart, 1), random(1, 10))
	if all, err := s2.Namespaces(t.Context()); err != nil || !slices.Equal(all, []policy.Namespace{cart}) {
		t.Errorf("namespaces are %v, %v", all, err)
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	for _, e := range append(drain(f.events), ignored...) {
		if i, is := e.(jetstream.Ignored); is {
			t.Errorf("an event says %+v", i)
		}
	}
}

func TestTheNewestBeaconOfANamespaceIsKeptAndHeard(t *testing.T) {
	url := serve(t).URL()
	openStore(t, url)
	nc := connect(t, url)
	heard, err := nc.SubscribeSync("pdp.beat.boutique.boutique_cart")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil { // what is published comes over another connection
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if _, err := admin(t, url).Publish(t.Context(), "pdp.beatin.boutique.boutique_cart", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if m, err := heard.NextMsg(patience); err != nil || string(m.Data) != text {
			t.Errorf("heard %v, %v", m, err)
		}
	}
	m, err := nc.Request("$JS.API.DIRECT.GET.BEAT.pdp.beatin.boutique.boutique_cart", nil, patience)
	if err != nil || string(m.Data) != "two" {
		t.Errorf("got %v, %v", m, err)
	}
}
