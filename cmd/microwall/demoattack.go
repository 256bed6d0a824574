package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/dial"
	"github.com/microwall/microwall/internal/pap"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// attack tries what a thief or a hostile broker would, at the PDP's door and
// directly on NATS.
func (s *story) attack(ctx context.Context) error {
	s.chapter("Attacks: at the PDP's door, and past it, directly on NATS")
	conn, err := dial.Dial(dial.Config{Server: s.world.grpc})
	if err != nil {
		return err
	}
	defer conn.Close()
	refused := make(chan error, 100)
	anybody, err := s.world.connectNATS(ctx, jetstream.Credentials{}, refused)
	if err != nil {
		return err
	}
	defer anybody.Close()
	stolen, err := jetstream.LoadCredentials(s.world.creds(thief))
	if err != nil {
		return err
	}
	broker, err := s.world.connectNATS(ctx, stolen, nil)
	if err != nil {
		return err
	}
	defer broker.Close()
	attempts, err := s.forgeries(ctx, conn)
	if err != nil {
		return err
	}
	for _, a := range attempts {
		err := pushRaw(ctx, conn, a.note, a.packed)
		s.claim(err != nil, "%s, pushed: %s", a.what, status.Convert(err).Message())
		if err := publishRaw(ctx, anybody, "hear.boutique_cart.head", a.note, a.packed); err != nil {
			return err
		}
		select {
		case err := <-refused:
			s.claim(errors.Is(err, nats.ErrPermissionViolation), "published on NATS, as if it were the head of boutique.cart: NATS refuses it")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := publishRaw(ctx, broker, "pdp.head.boutique.boutique_cart", a.note, a.packed); err != nil {
			return err
		}
		s.say("         and published with a PDP's stolen credentials, which NATS lets through")
	}
	// A release that is good overtakes what was forged: when it is there, the
	// clients have looked at the forgeries.
	if text, err := s.world.push(ctx, "cart", s.world.folder("cart"), "--source", "after the attacks"); err != nil {
		return fmt.Errorf("push after the attacks: %w: %s", err, text)
	}
	for name, client := range s.clients() {
		if _, err := client.until(s.find(isEmptyCart), true); err != nil {
			return err
		}
		m, err := client.matrix()
		if err != nil {
			return err
		}
		s.claim(m == s.wanted(nil), "the %s client took none of it: its answers are the call graph's, and the next good release arrived", name)
	}
	return nil
}

type forgery struct {
	what         string
	note, packed []byte
}

// forgeries makes releases that must not be taken.
func (s *story) forgeries(ctx context.Context, conn *grpc.ClientConn) ([]forgery, error) {
	trust, err := bundles.LoadTrust(s.world.trust)
	if err != nil {
		return nil, err
	}
	history, err := pap.New(conn, s.world.grpc, trust).History(ctx, "boutique.cart")
	if err != nil {
		return nil, err
	}
	if len(history) != 2 || history[0].Err != nil || history[1].Err != nil {
		return nil, fmt.Errorf("boutique.cart has %d releases, two were pushed", len(history))
	}
	head, first := history[0].Signed, history[1].Signed
	evil, err := s.world.bundle("cart-evil", "package authz\n\nallow := true\n")
	if err != nil {
		return nil, err
	}
	next := bundles.Release{
		Namespace: "boutique.cart", Epoch: 1, Revision: 3, Previous: head.Digest(), Created: time.Now(),
		Bundle: evil.Digest(), Size: int64(len(evil.Tar())),
	}
	packed := bundles.Pack(evil.Tar())
	sign := func(r bundles.Release, key string) ([]byte, error) {
		signer, err := bundles.LoadSigner(s.world.key(key))
		if err != nil {
			return nil, err
		}
		return bundles.Sign(r, signer)
	}
	foreign, err := sign(next, "payment")
	if err != nil {
		return nil, err
	}
	honest, err := bundles.Read(os.DirFS(s.world.folder("cart")))
	if err != nil {
		return nil, err
	}
	next.Bundle, next.Size = honest.Digest(), int64(len(honest.Tar()))
	good, err := sign(next, "cart")
	if err != nil {
		return nil, err
	}
	return []forgery{
		{"the payment team's key under the cart's policy", foreign, packed},
		{"a good signature with a tampered bundle", good, packed},
		{"the old first release, replayed", first.Note(), bundles.Pack(honest.Tar())},
	}, nil
}

// pushRaw hands a release to the PDP without any of the command's checks.
func pushRaw(ctx context.Context, conn *grpc.ClientConn, signed, packed []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := microwallv1.NewPolicyServiceClient(conn).Push(ctx)
	if err != nil {
		return err
	}
	// The server may answer before it has read everything.
	_ = stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Release{Release: signed}})
	_ = stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Chunk{Chunk: packed}})
	_, err = stream.CloseAndRecv()
	return err
}

// connectNATS connects to NATS. What it refuses goes to refused, if that is not
// nil.
func (w *boutiqueWorld) connectNATS(ctx context.Context, creds jetstream.Credentials, refused chan<- error) (*nats.Conn, error) {
	return jetstream.Connect(ctx, w.nats, jetstream.ConnectOptions{Name: "attacker", Credentials: creds, Events: func(e jetstream.Event) {
		if e, ok := e.(jetstream.BrokerError); ok && refused != nil {
			select {
			case refused <- e.Err:
			default: // more than anybody waits for
			}
		}
	}})
}

// publishRaw writes a head where clients listen, or where what they hear comes
// from, as somebody can who reaches the broker.
func publishRaw(ctx context.Context, broker *nats.Conn, subject string, signed, packed []byte) error {
	head := append(append([]byte{}, signed...), 0, 'I')
	m := &nats.Msg{
		Subject: subject, Data: append(head, packed...),
		Header: nats.Header{"Nats-Subject": {"$KV.policy.boutique.boutique_cart.head"}}, // as if it were stored
	}
	if err := broker.PublishMsg(m); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return broker.FlushWithContext(ctx)
}

// killTheServer shows who decides on without it.
func (s *story) killTheServer(ctx context.Context) error {
	s.chapter("The server is killed (SIGKILL)")
	before, err := s.world.embedded.age()
	if err != nil {
		return err
	}
	s.claim(before < 10*time.Second, "by the server's signed beacons, the embedded client has proof %.1f s old at most that it is not behind", before.Seconds())
	if err := s.world.server.kill(); err != nil {
		return err
	}
	m, err := s.world.embedded.matrix()
	if err != nil {
		return err
	}
	s.claim(m == s.wanted(nil), "the embedded client decides on, all %d answers", len(m))
	after, err := s.world.embedded.age()
	if err != nil {
		return err
	}
	s.claim(after > 0 && after < time.Minute, "and says how old its proof is, %.1f s and growing; from an hour on, unless a team said otherwise, its answers say that they are stale", after.Seconds())
	a, err := s.world.remote.ask(s.find(isEmptyCart))
	if err != nil {
		return err
	}
	s.claim(!a.Allowed && a.Error != "", "the remote client allows nothing: %s", a.Error)

	if err := s.world.embedded.kill(); err != nil {
		return err
	}
	start := time.Now()
	if err := s.world.startEmbedded(ctx); err != nil {
		return err
	}
	m, err = s.world.embedded.matrix()
	if err != nil {
		return err
	}
	s.claim(m == s.wanted(nil), "killed and started again without any server, it decides from its disk, verified again (%d ms)", time.Since(start).Milliseconds())

	if err := s.world.startServer(ctx); err != nil {
		return err
	}
	if err := s.world.startRemote(ctx); err != nil {
		return err
	}
	m, err = s.world.remote.matrix()
	if err != nil {
		return err
	}
	s.claim(m == s.wanted(nil), "the server, started again, has lost no release")
	return nil
}

// keepRunning leaves the server to be played with until it is interrupted.
func (s *story) keepRunning(ctx context.Context) error {
	g := s.graph
	s.say(`
The server runs on until you press Ctrl-C, which ends it and removes its folder,
%[1]s. Try:

  microwall authorize --server %[2]s --namespace boutique.cart --action AddItem \
      --subject workload:%[3]s --resource grpc:hipstershop.CartService
  microwall history boutique.cart --server %[2]s --trust %[4]s
  microwall push %[5]s --server %[2]s --trust %[4]s --key %[6]s
  microwall authorize --nats %[7]s --trust %[4]s --namespace boutique.cart --action EmptyCart \
      --subject workload:%[8]s --resource grpc:hipstershop.CartService`,
		s.world.dir, s.world.grpc, g.SPIFFE("frontend"), s.world.trust, s.world.folder("cart"), s.world.key("cart"), s.world.nats, g.SPIFFE("checkoutservice"))
	select {
	case <-ctx.Done():
	case <-s.world.server.done:
	}
	return nil
}

// bundle returns a bundle of one module, written to a folder of its own.
func (w *boutiqueWorld) bundle(name, module string) (*bundles.Bundle, error) {
	folder, err := w.write(name, map[string]string{"authz.rego": module})
	if err != nil {
		return nil, err
	}
	return bundles.Read(os.DirFS(folder))
}

// key returns the file of a team's private key.
func (w *boutiqueWorld) key(team string) string { return filepath.Join(w.dir, "keys", team+".key") }
