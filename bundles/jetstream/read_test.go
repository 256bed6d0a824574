package jetstream_test

import (
	"testing"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

func TestStreamsThatSomebodyRemovesAreMadeAgain(t *testing.T) {
	server := serve(t)
	var remade int
	s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, server.URL()), Domain: domain, Events: func(e jetstream.Event) {
		if _, ok := e.(jetstream.Remade); ok {
			remade++
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	api := admin(t, server.URL())
	for _, tt := range []struct {
		name string
		use  func() error
	}{
		{"head", func() error {
			_, err := s.Head(t.Context(), cart)
			wantKind(t, err, policy.NotFound)
			return nil
		}},
		{"history", func() error {
			all, err := s.History(t.Context(), cart)
			if len(all) > 0 {
				t.Errorf("history is %v", all)
			}
			return err
		}},
		{"list", func() error {
			all, err := s.Namespaces(t.Context())
			if len(all) > 0 {
				t.Errorf("namespaces are %v", all)
			}
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mustPut(t, s, cart, note(cart, 1), random(1, jetstream.MaxInline+1), 0)
			remade = 0
			for name := range streamNames(t, api) {
				if err := api.DeleteStream(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
			if err := tt.use(); err != nil {
				t.Fatal(err)
			}
			if remade != 1 {
				t.Errorf("%d events say that the streams were made again", remade)
			}
		})
	}
	// They are what they were: write-once, compare-and-swap, republished.
	f := startFollower(t, server.URL(), jetstream.FollowConfig{Namespaces: []policy.Namespace{cart}}, nil)
	f.wantSynced(t)
	mustPut(t, s, cart, note(cart, 2), []byte("b"), 0)
	f.wantOffer(t, note(cart, 2), []byte("b"))
	_, err = s.Put(t.Context(), cart, []byte(note(cart, 3)), []byte("c"), 0)
	wantKind(t, err, policy.Conflict)
	if _, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, server.URL()), Domain: domain}); err != nil {
		t.Error(err)
	}
}

// streamNames returns the names of all streams that are there.
func streamNames(t *testing.T, api js.JetStream) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	names := api.StreamNames(t.Context())
	for name := range names.Name() {
		all[name] = true
	}
	if names.Err() != nil || !all["KV_policy"] {
		t.Fatalf("streams are %v, %v", all, names.Err())
	}
	return all
}
