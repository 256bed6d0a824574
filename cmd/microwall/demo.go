package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/examples/boutique"
)

func newDemo(w world) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:     "demo",
		GroupID: groupServe,
		Short:   "Show the whole story on this machine, in under a minute",
		Long: `Show the whole story on this machine, from nothing, in a temporary folder: a
server, two clients in processes of their own, keys, policies of the Online
Boutique, a release that takes a right away, attacks, and a server that is killed.

Everything is real and everything that is said is checked: exit code 1 if one
claim is false.`,
		Example: `  microwall demo
  microwall demo --keep`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo(cmd.Context(), w, keep) },
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the server running at the end, and print commands to try")
	return cmd
}

// story tells the demo, and keeps count of what did not hold.
type story struct {
	out   io.Writer
	world *boutiqueWorld
	graph boutique.CallGraph
	false int
}

func demo(ctx context.Context, w world, keep bool) (err error) {
	start := time.Now()
	dir, err := os.MkdirTemp("", "microwall-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }() // there are private keys in it
	s := &story{out: w.stdout, graph: boutique.Graph(), world: &boutiqueWorld{dir: dir}}
	defer s.world.stop()
	for _, chapter := range []func(context.Context) error{
		s.setUp, s.pushAll, s.askEverything, s.takeARightAway, s.loosenAGuardrail, s.attack, s.killTheServer,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	if s.false > 0 {
		s.say("\n%d claims are FALSE.", s.false)
		return errNo
	}
	s.say("\nEvery claim held. %.1f s.", time.Since(start).Seconds())
	if keep {
		return s.keepRunning(ctx)
	}
	return nil
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s *story) chapter(format string, args ...any) { s.say("\n== "+format, args...) }

// claim says something and whether it is true.
func (s *story) claim(holds bool, format string, args ...any) {
	mark := "  ok     "
	if !holds {
		mark = "  FALSE  "
		s.false++
	}
	s.say(mark+format, args...)
}

// setUp makes keys, the trust file, and the three processes.
func (s *story) setUp(ctx context.Context) error {
	s.chapter("A shop of %d services, a team each, and a server from nothing", len(s.graph.Services))
	if err := s.world.setUp(s.graph); err != nil {
		return err
	}
	s.say("  %d keys, one a team and one for the guardrails; trust.yaml says who may sign what", len(s.graph.Services)+1)
	if err := s.world.startServer(ctx); err != nil {
		return err
	}
	s.say("  PDP at %s, NATS inside it at %s, pid %d", s.world.grpc, s.world.nats, s.world.server.cmd.Process.Pid)
	if err := s.world.startClients(ctx); err != nil {
		return err
	}
	s.say("  embedded client, decides by itself, pid %d; remote client, asks the PDP, pid %d",
		s.world.embedded.cmd.Process.Pid, s.world.remote.cmd.Process.Pid)
	return nil
}

// pushAll releases every policy of the boutique.
func (s *story) pushAll(ctx context.Context) error {
	s.chapter("Every team pushes its policy: checked, tested, built, signed, released")
	entries, err := boutique.FS.ReadDir(".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		text, err := s.world.push(ctx, e.Name(), s.world.folder(e.Name()))
		first, _, _ := strings.Cut(text, "\n")
		s.claim(err == nil, "%s", first)
	}
	return nil
}

// askEverything asks both clients for the whole matrix.
func (s *story) askEverything(context.Context) error {
	calls := s.graph.Calls()
	s.chapter("Every caller x every method: %d questions to each client", len(calls))
	// The last release may still be on its way to the embedded client.
	for _, c := range calls {
		if !c.Allowed {
			continue
		}
		if _, err := s.world.embedded.until(c, true); err != nil {
			return err
		}
	}
	var matrices []string
	for _, client := range []*demoProcess{s.world.embedded, s.world.remote} {
		m, err := client.matrix()
		if err != nil {
			return err
		}
		matrices = append(matrices, m)
	}
	s.drawMatrix(matrices[0])
	for i, name := range []string{"embedded", "remote"} {
		s.claim(matrices[i] == s.wanted(nil), "the %s client's answers are the call graph's, all %d", name, len(calls))
	}
	return nil
}

// wanted returns the matrix that the call graph demands, with changes.
func (s *story) wanted(denied func(boutique.Call) bool) string {
	var letters []byte
	for _, c := range s.graph.Calls() {
		letter := byte(letterDenied)
		if c.Allowed && (denied == nil || !denied(c)) {
			letter = letterAllowed
		}
		letters = append(letters, letter)
	}
	return string(letters)
}

// drawMatrix prints a matrix: a line a method, a column a caller.
func (s *story) drawMatrix(letters string) {
	callers := s.graph.Callers
	for i, caller := range callers {
		s.say("  %42s%s%s", "", strings.Repeat("| ", i), caller)
	}
	i := 0
	for _, service := range s.graph.Services {
		for _, m := range service.Methods {
			name := strings.TrimPrefix(service.Name, "hipstershop.") + "/" + m.Name
			if service.Name == "" {
				name = "frontend " + m.Name + " " + m.Route
			}
			row := strings.Split(letters[i:i+len(callers)], "")
			s.say("  %-42s%s", name, strings.Join(row, " "))
			i += len(callers)
		}
	}
	s.say("  %c allowed, %c denied", letterAllowed, letterDenied)
}

// What the cart team edits: its data, its test and its decisions.
const (
	emptyCartBefore = `"EmptyCart": [
      "spiffe://boutique.example/ns/default/sa/frontend",
      "spiffe://boutique.example/ns/default/sa/checkoutservice"
    ]`
	emptyCartAfter    = `"EmptyCart": ["spiffe://boutique.example/ns/default/sa/frontend"]`
	emptyCartDecision = `  - name: checkout may call EmptyCart
    request:
      subject: {type: workload, id: "spiffe://boutique.example/ns/default/sa/checkoutservice"}
      action: {name: EmptyCart}
      resource: {type: grpc, id: hipstershop.CartService}
      context:
        call_path:
          - "spiffe://boutique.example/ns/default/sa/loadgenerator"
          - "spiffe://boutique.example/ns/default/sa/frontend"
          - "spiffe://boutique.example/ns/default/sa/checkoutservice"
    want:
      allowed: `
)

// isEmptyCart picks the call whose right is taken away.
func isEmptyCart(c boutique.Call) bool {
	return c.Action == "EmptyCart" && c.Caller == "checkoutservice"
}

// takeARightAway releases a stricter policy and times the clients.
func (s *story) takeARightAway(ctx context.Context) error {
	s.chapter("The cart team takes checkout's right to EmptyCart away")
	call := s.find(isEmptyCart)
	folder, err := s.world.edit("cart", map[string][]replacement{
		"data.json":       {{emptyCartBefore, emptyCartAfter}},
		"authz_test.rego": {{"\t\t[\"checkoutservice\", \"EmptyCart\"],\n", ""}},
		"decisions.yaml":  {{emptyCartDecision + "true", strings.Replace(emptyCartDecision, "checkout may", "checkout may not", 1) + "false"}},
	})
	if err != nil {
		return err
	}
	waits := make(map[string]func() (time.Time, error))
	for name, client := range s.clients() {
		if waits[name], err = client.watch(call, false); err != nil {
			return err
		}
	}
	pushed, err := s.world.pushTimed(ctx, "cart", folder)
	if err != nil {
		return err
	}
	for _, name := range []string{"embedded", "remote"} {
		at, err := waits[name]()
		if err != nil {
			return err
		}
		s.claim(at.After(pushed), "the %s client denied it %.1f ms after the push began, its checks and tests included", name, float64(at.Sub(pushed).Microseconds())/1000)
	}
	for name, client := range s.clients() {
		m, err := client.matrix()
		if err != nil {
			return err
		}
		s.claim(m == s.wanted(isEmptyCart), "everything else is as before for the %s client", name)
	}
	return nil
}

func (s *story) clients() map[string]*demoProcess {
	return map[string]*demoProcess{"embedded": s.world.embedded, "remote": s.world.remote}
}

func (s *story) find(pick func(boutique.Call) bool) boutique.Call {
	for _, c := range s.graph.Calls() {
		if pick(c) {
			return c
		}
	}
	panic("the boutique has no such call")
}

// loosenAGuardrail lets the payment team allow everything.
func (s *story) loosenAGuardrail(ctx context.Context) error {
	s.chapter("The payment team allows everybody everything; the guardrails do not")
	folder, err := s.world.write("payment-open", map[string]string{
		".manifest":  `{"metadata":{"microwall":{"namespace":"boutique.payment"}}}`,
		"authz.rego": "package authz\n\nallow := true\n",
	})
	if err != nil {
		return err
	}
	text, err := s.world.push(ctx, "payment", folder)
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(text, "\n")
	s.claim(true, "the team may do that to its own service: %s", first)

	honest := s.find(func(c boutique.Call) bool { return c.Action == "Charge" && c.Caller == "checkoutservice" })
	// A call that the open policy alone allows shows that it has arrived.
	lenient := honest
	lenient.Action = "Refund"
	for _, client := range s.clients() {
		if _, err := client.until(lenient, true); err != nil {
			return err
		}
	}
	stranger := honest
	stranger.Subject = "spiffe://boutique.example.evil/ns/default/sa/checkoutservice"
	stranger.Context = map[string]any{"call_path": []string{stranger.Subject}, "amount": honest.Context["amount"]}
	past := s.find(func(c boutique.Call) bool { return c.Action == "Charge" && c.Caller == "frontend" })
	large := honest
	large.Context = map[string]any{"call_path": honest.Context["call_path"], "amount": map[string]any{"currency_code": "USD", "value": 1_000_000}}
	for _, attempt := range []struct {
		what string
		call boutique.Call
	}{{"a charge from another trust domain", stranger}, {"a charge past checkout", past}, {"a charge of a million", large}} {
		for _, name := range []string{"embedded", "remote"} {
			a, err := s.clients()[name].ask(attempt.call)
			if err != nil {
				return err
			}
			s.claim(!a.Allowed && a.Error == "" && len(a.Reasons) > 0, "%s, %s client: denied: %s", attempt.what, name, strings.Join(a.Reasons, "; "))
		}
	}
	text, err = s.world.push(ctx, "payment", s.world.folder("payment"))
	first, _, _ = strings.Cut(text, "\n")
	s.claim(err == nil, "the team takes it back: %s", first)
	for _, client := range s.clients() {
		if _, err := client.until(lenient, false); err != nil {
			return err
		}
	}
	return nil
}
