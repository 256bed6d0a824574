//go:build unix

package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/internal/testkit/cluster"
	"github.com/microwall/microwall/policy"
)

const pay = policy.Namespace("boutique.pay")

// The principals of the tests. The thief has the credentials of pay-1.
var principals = []jetstream.Principal{
	{Name: "pdp-1", Kind: jetstream.PDP},
	{Name: "cart-1", Kind: jetstream.Client, Namespaces: []policy.Namespace{cart}, Guardrails: []policy.Namespace{shop}},
	{Name: "pay-1", Kind: jetstream.Client, Namespaces: []policy.Namespace{pay}, Guardrails: []policy.Namespace{shop}},
	{Name: "watcher", Kind: jetstream.Fleet},
}

// guarded is a broker with accounts.
type guarded struct {
	url   string
	creds map[string]jetstream.Credentials
	store *jetstream.Store
	pdp   *user
}

// accounts makes keys for principals, and the configuration that knows them.
func accounts(t *testing.T, a jetstream.Accounts) (config []byte, creds map[string]jetstream.Credentials) {
	t.Helper()
	a.Domain = domain
	creds = map[string]jetstream.Credentials{}
	for _, p := range principals {
		c, err := jetstream.NewCredentials(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		creds[p.Name] = c
		a.Users = append(a.Users, jetstream.User{Principal: p, Key: c.Key()})
	}
	config, err := a.Config()
	if err != nil {
		t.Fatal(err)
	}
	return config, creds
}

// guard runs a broker with accounts and opens the store in it.
func guard(t *testing.T, a jetstream.Accounts) *guarded {
	t.Helper()
	config, creds := accounts(t, a)
	s, err := natsserver.Start(t.Context(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: t.TempDir(), Settings: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return (&guarded{url: s.URL(), creds: creds}).open(t, 1)
}

func (g *guarded) open(t *testing.T, replicas int) *guarded {
	t.Helper()
	g.pdp = g.connect(t, "pdp-1")
	var err error
	g.store, err = jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: g.pdp.Conn, Domain: domain, Replicas: replicas, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// user is a connection of a principal, and what it is told.
type user struct {
	*nats.Conn
	events chan jetstream.Event
}

// connect connects as a principal; "" shows no credentials.
func (g *guarded) connect(t *testing.T, principal string) *user {
	t.Helper()
	u := &user{events: make(chan jetstream.Event, 10_000)}
	var err error
	u.Conn, err = jetstream.Connect(t.Context(), g.url, jetstream.ConnectOptions{Name: principal, Credentials: g.creds[principal], Events: func(e jetstream.Event) { u.events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	wantEvent[jetstream.Connected](t, u.events, nil)
	return u
}

// wantRefused waits until the broker has told the user that it may not use a
// subject.
func (u *user) wantRefused(t *testing.T, verb, subject string) {
	t.Helper()
	wantEvent(t, u.events, func(e jetstream.BrokerError) bool {
		return errors.Is(e.Err, nats.ErrPermissionViolation) && strings.Contains(e.Err.Error(), fmt.Sprintf("%s %q", verb, subject))
	})
}

// answer asks and returns what comes back. A server of a cluster says that nobody
// responds until it has heard from the others who does.
func (u *user) answer(t *testing.T, subject, body string) *nats.Msg {
	t.Helper()
	m, err := u.Request(subject, []byte(body), patience)
	for end := time.Now().Add(patience); errors.Is(err, nats.ErrNoResponders) && time.Now().Before(end); {
		<-time.After(10 * time.Millisecond)
		m, err = u.Request(subject, []byte(body), patience)
	}
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	return m
}

// stored is everything that the streams hold.
func (g *guarded) stored(t *testing.T) string {
	t.Helper()
	api, err := js.New(g.pdp.Conn)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range []string{"KV_policy", "BLOBS", "BEAT", "STATUS"} {
		stream, err := api.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		info, err := stream.Info(t.Context(), js.WithSubjectFilter(">"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, name, info.State.LastSeq, info.State.Msgs, info.State.Consumers, info.State.Subjects, info.Config.MaxMsgsPerSubject, info.Config.Subjects)
	}
	return b.String()
}

// A world is what the attacks are made in: heads, a bundle in chunks, a beacon
// and a status of each of two teams, and a client of one that follows.
type world struct {
	*guarded
	thief  *user
	victim *follow
	seq    uint64 // of the victim's head
	n      int
	before string
	// asked are the questions that reached the PDP.
	asked chan string
	// beats are the beacons that the victim was handed.
	beats chan string
}

func newWorld(t *testing.T, g *guarded) *world {
	t.Helper()
	w := &world{guarded: g, asked: make(chan string, 1000), beats: make(chan string, 1000)}
	api, err := js.New(g.pdp.Conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"$KV.policy.boutique.-tick.head", "$KV.policy.boutique.-trust.head", "pdp.beatin.boutique.boutique_cart", "pdp.beatin.boutique.boutique_pay", "pdp.status.boutique.boutique_cart.cart-1.a"} {
		if _, err := api.Publish(t.Context(), subject, []byte(subject)); err != nil {
			t.Fatal(subject, err)
		}
	}
	mustPut(t, g.store, pay, note(pay, 1), []byte("of pay"), 0)
	mustPut(t, g.store, shop, note(shop, 1), random(3, jetstream.MaxInline+1), 0)
	if _, err := g.pdp.QueueSubscribe("pdp.confirm.boutique.*.*", "pdp", func(m *nats.Msg) {
		w.asked <- m.Subject
		_ = m.Respond([]byte("a beacon"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := g.pdp.Flush(); err != nil {
		t.Fatal(err)
	}
	w.thief = g.connect(t, "pay-1")
	own := g.connect(t, "cart-1")
	w.victim = startFollower(t, "", jetstream.FollowConfig{
		Conn: own.Conn, As: jetstream.Client, Namespaces: []policy.Namespace{cart, shop}, FetchJitter: -1,
		Beacon: func(_ context.Context, _ policy.Namespace, beacon []byte) error {
			w.beats <- string(beacon)
			return nil
		},
	}, nil)
	w.victim.wantOffer(t, note(shop, 1), random(3, jetstream.MaxInline+1))
	w.release(t)
	w.before = w.stored(t)
	return w
}

// release puts a new head of the victim, with a bundle in chunks, and waits
// until it has arrived there.
func (w *world) release(t *testing.T) {
	t.Helper()
	w.n++
	packed := random(uint64(w.n), jetstream.MaxInline+w.n)
	w.seq = mustPut(t, w.store, cart, note(cart, w.n), packed, w.seq)
	w.victim.wantOffer(t, note(cart, w.n), packed)
}

// wantUntouched fails if anything is stored differently than before.
func (w *world) wantUntouched(t *testing.T) {
	t.Helper()
	if after := w.stored(t); after != w.before {
		t.Errorf("the streams held\n%s\nand now\n%s", w.before, after)
	}
}

// forEachBroker runs a test with one server and with three.
func forEachBroker(t *testing.T, test func(*testing.T, *guarded)) {
	t.Run("one server", func(t *testing.T) { test(t, guard(t, jetstream.Accounts{})) })
	t.Run("a cluster", func(t *testing.T) {
		if testing.Short() {
			t.Skip("it builds and runs three servers")
		}
		config, creds := accounts(t, jetstream.Accounts{})
		c := cluster.Start(t, string(config), creds["pdp-1"].Options()...)
		g := (&guarded{url: c.URL(), creds: creds}).open(t, 3)
		c.Settle("KV_policy", "BLOBS", "BEAT", "STATUS")
		test(t, g)
	})
}

func TestAThiefOfCredentialsCanOnlyDoWhatTheirPrincipalDoes(t *testing.T) {
	forEachBroker(t, func(t *testing.T, g *guarded) {
		w := newWorld(t, g)
		t.Run("publish", w.publishElsewhere)
		t.Run("ask", w.askForMore)
		t.Run("subscribe", w.listenElsewhere)
		t.Run("choose where answers go", w.confuseTheDeputy)
		t.Run("headers", w.headers)
		w.wantUntouched(t)

		// What the principal itself does goes on.
		w.release(t)
		for subject, want := range map[string]string{
			"ask.boutique_pay.head":         note(pay, 1) + "\x00Iof pay",
			"ask.-trust.head":               "$KV.policy.boutique.-trust.head",
			"ask.boutique_pay.beat":         "pdp.beatin.boutique.boutique_pay",
			"ask.boutique_pay.confirm.head": "a beacon",
		} {
			if m := w.thief.answer(t, subject, ""); string(m.Data) != want {
				t.Errorf("%s: %q", subject, m.Data)
			}
		}
		if m := w.thief.answer(t, "say.pay-1.boutique_pay.a", "fine"); !strings.Contains(string(m.Data), `"STATUS"`) {
			t.Errorf("its own status was not stored: %s", m.Data)
		}
	})
}

// publishElsewhere publishes what it may not, without asking for an answer.
func (w *world) publishElsewhere(t *testing.T) {
	for _, subject := range []string{
		"$KV.policy.boutique.boutique_cart.head", "$KV.policy.boutique.boutique_pay.head", "$KV.policy.boutique.-tick.head", "$KV.policy.boutique.-trust.head",
		"pdp.blob.boutique.boutique_cart." + strings.Repeat("0", 64), "pdp.blob.boutique.boutique_pay." + strings.Repeat("0", 64),
		"pdp.beatin.boutique.boutique_cart", "pdp.beatin.boutique.boutique_pay",
		"pdp.head.boutique.boutique_cart", "pdp.head.boutique.boutique_pay", "pdp.head.boutique.-trust",
		"pdp.beat.boutique.boutique_cart", "pdp.beat.boutique.boutique_pay",
		"pdp.status.boutique.boutique_cart.cart-1.a", "pdp.status.boutique.boutique_pay.cart-1.a",
		"pdp.status.boutique.boutique_cart.pay-1.a", "pdp.status.boutique.boutique_pay.pay-1", "pdp.status.boutique.boutique_pay.pay-1.a.b",
		"pdp.status.other.boutique_pay.pay-1.a", "pdp.confirm.boutique.boutique_cart.head", "pdp.confirm.boutique.-tick",
		// The streams' own names are not for it, whosever they are.
		"pdp.status.boutique.boutique_pay.pay-1.a", "pdp.confirm.boutique.boutique_pay.head",
		// What others hear, and it itself; what others ask; what they say of themselves.
		"hear.boutique_cart.head", "hear.boutique_cart.beat", "hear.boutique.head", "hear.boutique.beat", "hear.boutique_pay.head", "hear.boutique_pay.beat", "hear.-trust.head", "hear.-tick.head", "hear", "hear.boutique_pay", "hear.boutique_pay.head.a",
		"ask.boutique_cart.head", "ask.boutique_cart.beat", "ask.boutique_cart.confirm.head", "ask.boutique_cart.blob." + strings.Repeat("0", 64), "ask.-tick.head", "ask.-confirm.head", "ask.-tick.confirm.head", "ask", "ask.boutique_pay",
		"say.cart-1.boutique_cart.a", "say.cart-1.boutique_pay.a", "say.pay-1.boutique_cart.a", "say.pay-1.-trust.a", "say.pay-1.boutique_pay", "say.pay-1.boutique_pay.a.b", "say.boutique_pay.pay-1.a", "say.pay-1.a",
		"_INBOX_cart-1.a.b", "_INBOX_pdp-1.a.b", "_INBOX_pay-1.a", "_R_.a.b", "_GR_.a.b", "anything",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.boutique.CONNZ", "$SYS.REQ.USER.INFO", "$SYS.ACCOUNT.boutique.CONNECT", "$SYS.REQ.ACCOUNT.STORE.DISCONNECT",
		"$JS.ACK.KV_policy.a.1.1.1.1.1", "$JS.FC.KV_policy.a.b", "$NRG.V.a",
	} {
		if err := w.thief.Publish(subject, []byte(note(cart, 99))); err != nil {
			t.Fatal(err)
		}
		w.thief.wantRefused(t, "Publish to", subject)
	}
}

// askForMore asks for what it may not know.
func (w *world) askForMore(t *testing.T) {
	for _, q := range [][2]string{
		{"$JS.API.INFO", ""}, {"$JS.API.STREAM.NAMES", ""}, {"$JS.API.STREAM.LIST", ""},
		{"$JS.API.STREAM.INFO.KV_policy", `{"subjects_filter":">"}`}, {"$JS.API.STREAM.CREATE.MINE", `{"name":"MINE","subjects":["mine"]}`},
		{"$JS.API.STREAM.UPDATE.KV_policy", `{"name":"KV_policy"}`}, {"$JS.API.STREAM.DELETE.KV_policy", ""}, {"$JS.API.STREAM.PURGE.BLOBS", ""},
		{"$JS.API.STREAM.MSG.DELETE.KV_policy", `{"seq":1}`}, {"$JS.API.STREAM.MSG.GET.KV_policy", `{"seq":1}`}, {"$JS.API.STREAM.SNAPSHOT.KV_policy", `{"deliver_subject":"a"}`},
		{"$JS.API.STREAM.RESTORE.MINE", "{}"}, {"$JS.API.STREAM.LEADER.STEPDOWN.KV_policy", ""}, {"$JS.API.STREAM.PEER.REMOVE.KV_policy", `{"peer":"n1"}`},
		{"$JS.API.CONSUMER.CREATE.KV_policy", `{"stream_name":"KV_policy","config":{"deliver_subject":"a","ack_policy":"none"}}`},
		{"$JS.API.CONSUMER.CREATE.KV_policy.a.$KV.policy.boutique.boutique_pay.head", `{"stream_name":"KV_policy","config":{"name":"a","filter_subject":"$KV.policy.boutique.boutique_pay.head"}}`},
		{"$JS.API.CONSUMER.LIST.KV_policy", ""}, {"$JS.API.CONSUMER.NAMES.KV_policy", ""}, {"$JS.API.CONSUMER.MSG.NEXT.KV_policy.a", "1"}, {"$JS.API.META.LEADER.STEPDOWN", ""}, {"$JS.API.ACCOUNT.PURGE.STORE", ""},
		// By sequence, the next one, several, in batches: all on one subject.
		{"$JS.API.DIRECT.GET.KV_policy", `{"seq":1}`}, {"$JS.API.DIRECT.GET.KV_policy", `{"last_by_subj":"$KV.policy.boutique.boutique_cart.head"}`},
		{"$JS.API.DIRECT.GET.KV_policy", `{"seq":1,"next_by_subj":"$KV.policy.boutique.*.head"}`}, {"$JS.API.DIRECT.GET.KV_policy", `{"multi_last":["$KV.policy.>"]}`},
		{"$JS.API.DIRECT.GET.KV_policy", `{"seq":1,"batch":100}`}, {"$JS.API.DIRECT.GET.STATUS", `{"multi_last":["pdp.status.>"]}`},
		// What others have, by its own subject or by a wildcard.
		{"$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.boutique_cart.head", ""}, {"$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.*.head", ""}, {"$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.>", ""},
		{"$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.-tick.head", ""}, {"$JS.API.DIRECT.GET.KV_policy.$KV.policy.other.other.head", ""}, {"$JS.API.DIRECT.GET.KV_policy.>", ""},
		{"$JS.API.DIRECT.GET.BLOBS.pdp.blob.boutique.boutique_cart." + policy.DigestOf(random(1, jetstream.MaxInline+1)).Hex(), ""},
		{"$JS.API.DIRECT.GET.BEAT.pdp.beatin.boutique.boutique_cart", ""}, {"$JS.API.DIRECT.GET.STATUS.pdp.status.boutique.boutique_cart.cart-1.a", ""},
		{"$JS.API.DIRECT.GET.STATUS.pdp.status.boutique.boutique_pay.pay-1.a", ""}, {"pdp.confirm.boutique.boutique_cart.head", ""}, {"pdp.confirm.boutique.*", ""}, {"$SYS.REQ.SERVER.PING.VARZ", ""},
		// By the streams' own names not even what is its own.
		{"$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.boutique_pay.head", ""}, {"$JS.API.DIRECT.GET.BEAT.pdp.beatin.boutique.boutique_pay", ""}, {"pdp.confirm.boutique.boutique_pay.head", ""},
		// By the names that it has for the same.
		{"ask.boutique_cart.head", ""}, {"ask.*.head", ""}, {"ask.>", ""}, {"ask.-tick.head", ""}, {"ask.boutique_cart.blob." + policy.DigestOf(random(1, jetstream.MaxInline+1)).Hex(), ""}, {"ask.boutique_cart.beat", ""}, {"ask.boutique_cart.confirm.head", ""}, {"ask.*.confirm.head", ""}, {"ask.$1.head", ""},
	} {
		if err := w.thief.PublishRequest(q[0], "_INBOX_pay-1.answer", []byte(q[1])); err != nil {
			t.Fatal(err)
		}
		w.thief.wantRefused(t, "Publish to", q[0])
	}
	// The form that may be asked looks at the subject alone.
	for _, body := range []string{
		`{"seq":1}`, `{"last_by_subj":"$KV.policy.boutique.boutique_cart.head"}`, `{"seq":1,"next_by_subj":"$KV.policy.boutique.*.head"}`, `{"multi_last":["$KV.policy.>"]}`,
		`{"batch":100,"seq":1}`, `{"start_time":"2020-01-01T00:00:00Z"}`, `{"up_to_seq":100}`,
	} {
		m := w.thief.answer(t, "ask.boutique_pay.head", body)
		if m.Header.Get("Status") != "408" || len(m.Data) > 0 {
			t.Errorf("%s is answered with %v %q", body, m.Header, m.Data)
		}
	}
}

func (w *world) listenElsewhere(t *testing.T) {
	for _, subject := range []string{
		">", "*", "*.>", "_INBOX.>", "_INBOX_cart-1.>", "_INBOX_cart-1.*.*", "_INBOX_pdp-1.>", "*.*.*", "_R_.>",
		"pdp.>", "pdp.head.>", "pdp.head.boutique.*", "pdp.head.boutique.boutique_cart", "pdp.head.boutique.-tick", "pdp.head.other.boutique_pay", "pdp.beat.boutique.*", "pdp.beat.boutique.boutique_cart",
		"pdp.status.>", "pdp.status.boutique.boutique_pay.pay-1.a", "pdp.confirm.>", "pdp.confirm.boutique.boutique_pay.head", "pdp.confirm.boutique.boutique_cart.head", "$KV.>", "pdp.blob.>", "pdp.beatin.>",
		"$SYS.>", "$SYS.ACCOUNT.boutique.>", "$JS.>", "$JS.API.>", "$JS.EVENT.>", "$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.boutique_pay.head",
		"pdp.head.boutique.boutique_pay", "pdp.beat.boutique.boutique_pay",
		// What others hear, ask and say; and what it asks and says itself.
		"hear.>", "hear.*.*", "hear.*.head", "hear.boutique_cart.*", "hear.boutique_cart.head", "hear.boutique_cart.beat", "hear.-tick.*", "hear.-tick.head", "hear.-confirm.head", "*.boutique_pay.*", "*.boutique_pay.head",
		"ask.>", "ask.*.confirm.head", "ask.boutique_cart.>", "ask.boutique_cart.confirm.head", "ask.boutique_cart.head", "ask.boutique_pay.>", "ask.boutique_pay.confirm.head", "ask.-trust.>",
		"say.>", "say.*.*.*", "say.cart-1.boutique_cart.*", "say.cart-1.boutique_cart.a", "say.pay-1.boutique_pay.a",
	} {
		sub, err := w.thief.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		w.thief.wantRefused(t, "Subscription to", subject)
		_ = sub.Unsubscribe() // the broker does not know it
		if sub, err = w.thief.QueueSubscribeSync(subject, "pdp"); err != nil {
			t.Fatal(err)
		}
		w.thief.wantRefused(t, "Subscription to", subject)
		_ = sub.Unsubscribe()
	}
}

// confuseTheDeputy has the broker, or a PDP, answer what may be asked to a
// subject that may not be published to.
func (w *world) confuseTheDeputy(t *testing.T) {
	const ownHead = "ask.boutique_pay.head"
	sum := policy.DigestOf(random(3, jetstream.MaxInline+1)).Hex()
	watcher := w.connect(t, "watcher")
	reported, err := watcher.SubscribeSync("say.*.*.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := watcher.Flush(); err != nil {
		t.Fatal(err)
	}
	replies := []string{
		"$KV.policy.boutique.boutique_cart.head", "$KV.policy.boutique.boutique_pay.head", "$KV.policy.boutique.-tick.head",
		"pdp.blob.boutique.boutique_cart." + sum, "pdp.beatin.boutique.boutique_cart", "pdp.beat.boutique.boutique_cart", "pdp.head.boutique.boutique_cart",
		"pdp.status.boutique.boutique_cart.cart-1.a", "pdp.status.boutique.boutique_cart.cart-1.b", "pdp.confirm.boutique.boutique_cart.head",
		"$JS.API.STREAM.DELETE.KV_policy", "$JS.API.STREAM.PURGE.BLOBS", "$JS.API.STREAM.MSG.GET.KV_policy", "$JS.API.DIRECT.GET.KV_policy", "$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.boutique_cart.head",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.STORE.CONNZ", "_INBOX_cart-1.a.b", "_INBOX_pdp-1.a.b",
		"hear.boutique_cart.head", "hear.boutique_cart.beat", "hear.boutique_cart.other", "hear.-trust.head", "say.cart-1.boutique_cart.a", "say.cart-1.boutique_cart.b", "say.pay-1.boutique_pay.b",
		"ask.boutique_cart.confirm.head", "ask.boutique_pay.confirm.head", "ask.boutique_cart.head", "ask.boutique_pay.head",
		"ask.boutique_pay.confirm", "ask.boutique_pay.confirm.other", "ask.boutique_pay.beat", "ask.boutique_cart.blob." + sum, "say.a.b", "say.a.b.c.d", "ask.a", "hear.a",
	}
	questions := []string{
		ownHead, "ask.boutique.blob." + sum, "ask.boutique_pay.beat", "ask.boutique_pay.confirm.head",
	}
	for _, question := range questions {
		for _, reply := range replies {
			if err := w.thief.PublishRequest(question, reply, nil); err != nil {
				t.Fatal(err)
			}
		}
		w.thief.answer(t, question, "") // which comes after the others were answered
	}
	// A reserved subject of the broker itself is no place for answers.
	for _, reply := range []string{"_R_.a.b", "$JS.ACK.KV_policy.a.1.1.1.1.1"} {
		if err := w.thief.PublishRequest(ownHead, reply, nil); err != nil {
			t.Fatal(err)
		}
		wantEvent(t, w.thief.events, func(e jetstream.BrokerError) bool { return strings.Contains(e.Err.Error(), reply) })
	}
	w.wantUntouched(t)
	for len(w.asked) > 0 {
		if subject := <-w.asked; subject != "pdp.confirm.boutique.boutique_pay.head" {
			t.Errorf("a PDP was asked on %s", subject)
		}
	}
	// What it did deliver is genuine, but in the wrong place. The client ignores
	// it, and counts that.
	// Those that it misdelivered as a head, as a beacon, and as neither.
	for ignored := 0; ignored < 3*len(questions); {
		e := wantEvent(t, w.victim.events, func(e jetstream.Ignored) bool { return policy.KindOf(e.Err) == policy.Denied })
		ignored += 1 + e.More
	}
	for len(w.beats) > 0 {
		if beat := <-w.beats; beat != "pdp.beatin.boutique.boutique_cart" {
			t.Errorf("the client was handed %q for its beacon", beat)
		}
	}
	if m, err := reported.NextMsg(patience); err != nil || string(m.Data) == "fine" {
		t.Errorf("the fleet reader got %v, %v", m, err) // noise, which is no status
	}
}

// headers are instructions to streams.
func (w *world) headers(t *testing.T) {
	const own = "say.pay-1.boutique_pay.a"
	for _, header := range []nats.Header{
		{"Nats-Rollup": {"all"}}, {"Nats-Rollup": {"sub"}}, {"Nats-Batch-Id": {"a"}, "Nats-Batch-Sequence": {"1"}, "Nats-Batch-Commit": {"1"}},
		{"Nats-Incr": {"+1"}}, {"Nats-Schedule": {"@at 2020-01-01T00:00:00Z"}, "Nats-Schedule-Target": {"pdp.status.boutique.boutique_cart.cart-1.a"}},
		{"Nats-Expected-Stream": {"KV_policy"}},
	} {
		m, err := w.thief.RequestMsg(&nats.Msg{Subject: own, Header: header, Data: []byte("mine")}, patience)
		if err != nil || !strings.Contains(string(m.Data), `"error"`) {
			t.Errorf("%v was taken: %v %v", header, m, err)
		}
	}
	w.wantUntouched(t)
	// A trace is a message that the broker publishes.
	heard, err := w.pdp.SubscribeSync("pdp.status.boutique.boutique_cart.cart-1.traced")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.pdp.Flush(); err != nil {
		t.Fatal(err)
	}
	err = w.thief.PublishMsg(&nats.Msg{
		Subject: "ask.boutique_pay.confirm.head", Reply: "_INBOX_pay-1.traced", Data: []byte("mine"),
		Header: nats.Header{"Nats-Trace-Dest": {"pdp.status.boutique.boutique_cart.cart-1.traced"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.thief.answer(t, "ask.boutique_pay.confirm.head", "")
	if err := w.pdp.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := heard.Pending(); n > 0 || err != nil {
		t.Errorf("a trace went to another principal's status: %d %v", n, err)
	}
	for len(w.asked) > 0 {
		<-w.asked
	}
}

func TestNobodyComesInWithoutCredentials(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	stranger, err := jetstream.NewCredentials("cart-1")
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]jetstream.ConnectOptions{"none": {}, "a stranger's": {Credentials: stranger}} {
		events := make(chan jetstream.Event, 1000)
		options.Events = func(e jetstream.Event) { events <- e }
		nc, err := jetstream.Connect(t.Context(), g.url, options)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		wantEvent(t, events, func(e jetstream.BrokerError) bool { return errors.Is(e.Err, nats.ErrAuthorization) })
		if nc.IsConnected() {
			t.Errorf("%s: connected", name)
		}
	}
}

func TestOneDomainsClientsCannotUseUpTheBroker(t *testing.T) {
	g := guard(t, jetstream.Accounts{MaxConnections: 3})
	first := g.connect(t, "pay-1")
	// A report as large as it may be, and one more byte.
	if _, err := first.Request("say.pay-1.boutique_pay.a", make([]byte, 16<<10), patience); err != nil {
		t.Error(err)
	}
	if err := first.Publish("say.pay-1.boutique_pay.a", make([]byte, 16<<10+1)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("a report over the limit: %v", err)
	}
	// As many subscriptions as one connection may have, and one more: the first
	// is for answers.
	for i := range 1024 {
		if _, err := first.Subscribe(fmt.Sprintf("_INBOX_pay-1.%d", i), func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
	}
	wantEvent(t, first.events, func(e jetstream.BrokerError) bool { return errors.Is(e.Err, nats.ErrMaxSubscriptionsExceeded) })
	// As many connections as the account may have, and one more.
	g.connect(t, "pay-1")
	g.connect(t, "cart-1")
	events := make(chan jetstream.Event, 1000)
	nc, err := jetstream.Connect(t.Context(), g.url, jetstream.ConnectOptions{Credentials: g.creds["pay-1"], Events: func(e jetstream.Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	wantEvent(t, events, func(e jetstream.BrokerError) bool { return strings.Contains(e.Err.Error(), "maximum account") })
	// PDPs are in another account.
	mustPut(t, g.store, cart, note(cart, 1), []byte("x"), 0)
	g.connect(t, "pdp-1")
}

func TestWhoeverShowsNoCredentialsReadsOnlyWhereThatIsAllowed(t *testing.T) {
	nobody, err := jetstream.NewCredentials("nobody")
	if err != nil {
		t.Fatal(err)
	}
	g := guard(t, jetstream.Accounts{Anonymous: nobody.Key()})
	mustPut(t, g.store, cart, note(cart, 1), []byte("small"), 0)
	u := g.connect(t, "")
	f := startFollower(t, "", jetstream.FollowConfig{Conn: u.Conn, As: jetstream.Client, Namespaces: []policy.Namespace{cart}}, nil)
	f.wantOffer(t, note(cart, 1), []byte("small"))
	for _, subject := range []string{
		"$KV.policy.boutique.boutique_cart.head", "pdp.head.boutique.boutique_cart", "$JS.API.STREAM.INFO.KV_policy", "$JS.API.STREAM.DELETE.KV_policy", "pdp.status.boutique.boutique_cart.cart-1.a",
		"$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.-tick.head", "$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.-confirm.head", "_INBOX.a.b",
		"ask.-tick.head", "ask.-confirm.head", "ask.-tick.confirm.head", "hear.boutique_cart.head", "hear.-trust.head", "say.cart-1.boutique_cart.a", "say.anonymous.boutique_cart",
	} {
		if err := u.PublishRequest(subject, "_INBOX.a", nil); err != nil {
			t.Fatal(err)
		}
		u.wantRefused(t, "Publish to", subject)
	}
	if m := u.answer(t, "say.anonymous.boutique_cart.a", "fine"); !strings.Contains(string(m.Data), `"STATUS"`) {
		t.Errorf("its status was not stored: %s", m.Data)
	}
}

func TestAFleetReaderSeesAllAndChangesNothing(t *testing.T) {
	w := newWorld(t, guard(t, jetstream.Accounts{}))
	u := w.connect(t, "watcher")
	f := startFollower(t, "", jetstream.FollowConfig{Conn: u.Conn, As: jetstream.Fleet, Namespaces: []policy.Namespace{cart, pay}, FetchJitter: -1}, nil)
	f.wantSynced(t)
	reports, err := u.SubscribeSync("say.*.*.*")
	if err != nil {
		t.Fatal(err)
	}
	ticks, err := u.SubscribeSync("hear.*.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Flush(); err != nil {
		t.Fatal(err)
	}
	w.thief.answer(t, "say.pay-1.boutique_pay.a", "fine")
	if m, err := reports.NextMsg(patience); err != nil || string(m.Data) != "fine" {
		t.Errorf("got %v, %v", m, err)
	}
	w.before = w.stored(t)
	for _, subject := range []string{"pdp.status.boutique.boutique_cart.watcher.a", "pdp.confirm.boutique.boutique_cart.head", "$JS.API.DIRECT.GET.KV_policy.$KV.policy.boutique.-tick.head", "$KV.policy.boutique.boutique_cart.head", "$JS.API.STREAM.INFO.STATUS",
		"say.watcher.boutique_cart.a", "ask.boutique_cart.confirm.head", "ask.-tick.head", "hear.boutique_cart.head",
	} {
		if err := u.PublishRequest(subject, "_INBOX_watcher.a", nil); err != nil {
			t.Fatal(err)
		}
		u.wantRefused(t, "Publish to", subject)
	}
	w.wantUntouched(t)
	// A wildcard that is taken literally cannot be forbidden to it, and finds what is
	// the newest of the domain. The permissions of others do not match it.
	if m := u.answer(t, "ask.*.head", ""); !strings.HasPrefix(m.Header.Get(js.SubjectHeader), "$KV.policy.boutique.") {
		t.Errorf("ask.*.head: %v", m.Header)
	}
	api, err := js.New(w.pdp.Conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"$KV.policy.boutique.-tick.head", "$KV.policy.boutique.boutique_pay.head"} {
		if _, err := api.Publish(t.Context(), subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := ticks.NextMsg(patience); err != nil || m.Subject != "hear.boutique_pay.head" {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestAccountsThatCannotBeAreRefused(t *testing.T) {
	creds, err := jetstream.NewCredentials("a")
	if err != nil {
		t.Fatal(err)
	}
	key := creds.Key()
	other, err := jetstream.NewCredentials("b")
	if err != nil {
		t.Fatal(err)
	}
	user := func(name string, kind jetstream.Kind, key string, ns ...policy.Namespace) jetstream.User {
		return jetstream.User{Principal: jetstream.Principal{Name: name, Kind: kind, Namespaces: ns}, Key: key}
	}
	for name, tt := range map[string]struct {
		a    jetstream.Accounts
		says string
	}{
		"no domain":                     {jetstream.Accounts{}, "namespace"},
		"a domain with a wildcard":      {jetstream.Accounts{Domain: "*"}, `"*"`},
		"a name with a dot":             {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a.b", jetstream.PDP, key)}}, "no name of a principal"},
		"a name with a wildcard":        {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("*", jetstream.PDP, key)}}, "no name of a principal"},
		"a name that ends a line":       {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a\n", jetstream.PDP, key)}}, "no name of a principal"},
		"no kind":                       {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", 0, key)}}, "no kind"},
		"a client of nothing":           {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", jetstream.Client, key)}}, "at least one"},
		"a client of another domain":    {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", jetstream.Client, key, "other.cart")}}, "not in the domain"},
		"a client of a wildcard":        {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", jetstream.Client, key, "boutique.*")}}, "boutique.*"},
		"a client of a reserved token":  {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", jetstream.Client, key, "-tick")}}, "-tick"},
		"a PDP of one namespace":        {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", jetstream.PDP, key, cart)}}, "for a client"},
		"no key":                        {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", jetstream.PDP, "")}}, "public NKey"},
		"a damaged key":                 {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", jetstream.PDP, key[:55]+"!")}}, "public NKey"},
		"one name twice":                {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", jetstream.PDP, key), user("a", jetstream.Fleet, other.Key())}}, "two principals"},
		"one key twice":                 {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("a", jetstream.PDP, key), user("b", jetstream.Fleet, key)}}, "two principals"},
		"the name of those without one": {jetstream.Accounts{Domain: domain, Users: []jetstream.User{user("anonymous", jetstream.PDP, key)}}, "taken"},
		"the key of those without one":  {jetstream.Accounts{Domain: domain, Anonymous: key, Users: []jetstream.User{user("a", jetstream.PDP, key)}}, "two principals"},
		"fewer than no connections":     {jetstream.Accounts{Domain: domain, MaxConnections: -1}, "-1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tt.a.Config()
			wantKind(t, err, policy.BadRequest, tt.says)
		})
	}
}

func TestABrokerInThisProcessIsSpokenToWithoutTheNetwork(t *testing.T) {
	config, creds := accounts(t, jetstream.Accounts{})
	s, err := natsserver.Start(t.Context(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: t.TempDir(), Settings: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	nc, err := jetstream.Connect(ctx, "nats://nowhere.invalid:1", jetstream.ConnectOptions{InProcess: s, Credentials: creds["pdp-1"]})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := jetstream.OpenStore(ctx, jetstream.StoreConfig{Conn: nc, Domain: domain}); err != nil {
		t.Error(err)
	}
}
