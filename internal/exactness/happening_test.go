package exactness_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// happen makes all happen that can, until ctx ends: for a while anything, and then,
// once all is mended, for a while only what explains no error.
func (m *model) happen(ctx context.Context) {
	harmless, anything := newDecks()
	for ctx.Err() == nil {
		m.several(ctx, time.Duration(500+m.random.IntN(1000))*time.Millisecond, func() { anything.deal(m.random)(m, ctx) })
		m.mend(ctx)
		if !m.settle(ctx) {
			return
		}
		m.calm.Add(1)
		m.note("calm")
		m.several(ctx, time.Duration(1500+m.random.IntN(1500))*time.Millisecond, func() { harmless.deal(m.random)(m, ctx) })
		m.calm.Add(1)
	}
}

// several does something again and again: for a while, and ten times at least.
func (m *model) several(ctx context.Context, d time.Duration, do func()) {
	for n, end := 0, time.Now().Add(d); n < 10 || time.Now().Before(end); n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(m.random.IntN(60)) * time.Millisecond):
			do()
		}
	}
}

// deck deals what may happen in random order, each as often as it is in it: so all
// happens, and soon.
type deck struct{ all, left []happening }

type happening func(*model, context.Context)

func (d *deck) deal(r *rand.Rand) happening {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.all)
		r.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	h := d.left[0]
	d.left = d.left[1:]
	return h
}

// often returns a happening several times.
func often(n int, h happening) []happening { return slices.Repeat([]happening{h}, n) }

// newDecks returns what no caller gets an error from, and what makes others fail.
func newDecks() (harmless, anything deck) {
	push := func(m *model, ctx context.Context) { m.push(ctx, m.namespace(), false) }
	harmless.all = slices.Concat(
		often(6, push),
		often(4, func(m *model, ctx context.Context) {
			m.push(ctx, oneOf(m.random, []policy.Namespace{cart, cart, m.namespace()}), true)
		}),
		often(2, func(m *model, _ context.Context) { m.replay() }),
		often(1, func(m *model, _ context.Context) { m.setClock() }),
		often(1, func(m *model, ctx context.Context) {
			s := m.subject(func(*subject) bool { return true })
			s.close()
			s.open(ctx)
			m.note("client started again")
		}),
	)
	anyNode := func(do func(*node)) happening {
		return func(m *model, _ context.Context) { do(oneOf(m.random, m.nodes)) }
	}
	anything.all = slices.Concat(
		often(5, push),
		often(1, func(m *model, ctx context.Context) { m.push(ctx, cart, true) }),
		often(2, func(m *model, _ context.Context) {
			m.subject((*subject).isEmbedded).way.Cut()
			m.note("client cut off")
		}),
		often(1, func(m *model, _ context.Context) { m.subject((*subject).isEmbedded).way.Mend() }),
		often(1, anyNode(func(n *node) { n.way.Cut(); n.note("PDP cut off") })),
		often(1, anyNode(func(n *node) { n.way.Mend() })),
		often(1, anyNode(func(n *node) { n.kill(); n.note("PDP killed") })),
		often(1, anyNode(func(n *node) { n.hold(true); n.note("PDP held up") })),
		often(2, anyNode(func(n *node) { n.hold(false) })),
		often(1, func(m *model, _ context.Context) { m.setAllClocks() }),
		often(1, (*model).changeTrust),
	)
	return harmless, anything
}

func (m *model) namespace() policy.Namespace {
	return oneOf(m.random, []policy.Namespace{shop, cart, cart, cart, pay, deep, deep})
}

func (m *model) subject(which func(*subject) bool) *subject {
	return oneOf(m.random, slices.DeleteFunc(slices.Clone(m.clients), func(s *subject) bool { return !which(s) }))
}

// setClock sets the clock of a client that has a bad one.
func (m *model) setClock() {
	s := m.subject(func(s *subject) bool { return !s.near })
	own := oneOf(m.random, []time.Duration{-25 * time.Hour, -time.Hour, -4 * time.Minute, -40 * time.Second, 0, 10 * time.Second, 65 * time.Second, 16 * time.Minute, 59 * time.Minute, 2 * time.Hour, 26 * time.Hour})
	m.moveClocks(func() {
		s.own.Store(int64(own))
		s.clock.set(time.Duration(m.clock.ahead.Load()) + own)
	})
	m.note("clock set")
}

// setAllClocks lets time pass, for everybody.
func (m *model) setAllClocks() {
	passes := oneOf(m.random, []time.Duration{20 * time.Second, time.Minute, 10 * time.Minute, 30 * time.Minute, 70 * time.Minute, 5 * time.Hour})
	m.moveClocks(func() {
		ahead := time.Duration(m.clock.ahead.Load()) + passes
		for _, s := range m.clients {
			s.clock.set(ahead + time.Duration(s.own.Load()))
		}
		m.clock.set(ahead)
	})
	m.note("all clocks set")
}

func (m *model) moveClocks(how func()) {
	for range 2 { // before and after
		m.mu.Lock()
		m.moved = time.Now()
		m.mu.Unlock()
		if how != nil {
			how()
			how = nil
		}
	}
}

// overhear keeps the heads that the broker hands out.
func (m *model) overhear(url string) {
	var err error
	m.conn, err = jetstream.Connect(m.t.Context(), url, m.d.Broker)
	m.must(err)
	m.t.Cleanup(m.conn.Close)
	_, err = m.conn.Subscribe("pdp.head.shop.>", func(msg *nats.Msg) {
		if strings.Contains(msg.Subject, "shop.-") {
			return // no head of a namespace
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.sent = append(m.sent, msg); len(m.sent) > 60 {
			m.sent = slices.Delete(m.sent, 0, 20)
		}
	})
	m.must(err)
	m.must(m.conn.Flush())
}

// replay sends an old head again, as a broker may that lags behind or is hostile.
func (m *model) replay() {
	m.mu.Lock()
	msg := oneOf(m.random, m.sent)
	m.mu.Unlock()
	m.must(m.conn.PublishMsg(&nats.Msg{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}))
	m.note("old head sent again")
}

// author returns an author who reaches a PDP, if there is one.
func (m *model) author() *pap.Client {
	for _, i := range m.random.Perm(len(m.nodes)) {
		if p := m.nodes[i].running(); p != nil {
			return pap.New(p.Conn, p.Addr, m.trust)
		}
	}
	return nil
}

// changeTrust pushes a trust file by which shop.cart is a guardrail, or none, whichever
// it is not now.
func (m *model) changeTrust(ctx context.Context) {
	author := m.author()
	if author == nil {
		return
	}
	signed := m.d.SignTrust(trustOptions(m.trust.Version()+1), "ann")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	m.moveClocks(nil)
	if _, err := author.PushTrust(ctx, signed); err != nil {
		return // it may have been stored all the same, which is learned later
	}
	m.moveClocks(nil)
	var err error
	m.trust, err = m.trust.Next(signed)
	m.must(err)
	m.note("trust file")
}

// push releases another policy, or an old one again.
func (m *model) push(ctx context.Context, n policy.Namespace, back bool) {
	author := m.author()
	if author == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	key := map[policy.Namespace]string{shop: "center", cart: "cart", deep: "cart", pay: "pay"}[n]
	d := pap.Draft{Namespace: n, Signers: []note.Signer{m.d.Signer(key)}, Created: testkit.Created, Author: key}
	head := m.heads[n]
	what := "push"
	if back && head.Revision > 1 {
		what = "rollback"
		var err error
		if d, err = author.Restore(ctx, d, 1, 1+m.random.Uint64N(head.Revision-1), bundles.Limits{}); err != nil {
			return
		}
	} else {
		text, data := m.policies.next(m.random, n), newData(m.random)
		file, err := json.Marshal(data)
		m.must(err)
		d.Bundle = m.d.Bundle(map[string]string{"authz.rego": text, "data.json": string(file)})
		m.written[d.Bundle.Digest()] = newSource(context.WithoutCancel(ctx), text, data)
	}
	_, proposal, sealed, err := author.Sign(ctx, d)
	if err != nil || proposal == nil {
		return
	}
	signed, err := m.trust.Open(proposal.Note())
	m.must(err)
	m.judge.signed(signed.Version(), m.written[signed.Release().Bundle])
	result, err := author.Release(ctx, sealed, bundles.Limits{})
	if err != nil {
		if k := policy.KindOf(err); k != policy.Unavailable && k != policy.Conflict {
			m.fail("push to %s: %v\n%s", n, err, m.written[signed.Release().Bundle].text)
		}
		return
	}
	m.note(what)
	m.known(result.Release.Version())
}

// known takes a release that is known to be the head.
func (m *model) known(head policy.Version) {
	now := m.worldAt(time.Now())
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.pushed {
		if _, ok := m.replaced[v.Digest]; v.Namespace == head.Namespace && v != head && !ok {
			m.replaced[v.Digest] = now
		}
	}
	if m.heads[head.Namespace] != head {
		m.heads[head.Namespace] = head
		m.pushed = append(m.pushed, head)
	}
}

// learn finds out what became of what was pushed, and not acknowledged.
func (m *model) learn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	p := m.nodes[0].running()
	trust, _, err := pap.FollowTrust(ctx, p.Conn, p.Addr, m.trust)
	if err != nil {
		return err
	}
	if trust.Version() != m.trust.Version() {
		m.moveClocks(nil) // now at the latest
		m.trust = trust
	}
	author := m.author()
	for _, n := range namespaces {
		head, err := author.Head(ctx, n)
		if err != nil {
			return err
		}
		m.known(head.Version())
	}
	return nil
}

// newData returns data of some size, for policies that are dear.
func newData(r *rand.Rand) map[string]any {
	sum := sha256.Sum256([]byte{byte(r.IntN(4))})
	return map[string]any{"blob": strings.Repeat(hex.EncodeToString(sum[:]), []int{50, 200, 600}[r.IntN(3)])}
}

// mend mends all that is broken.
func (m *model) mend(ctx context.Context) {
	for _, n := range m.nodes {
		n.hold(false)
		n.way.Mend()
		if n.running() == nil {
			n.start(ctx)
		}
	}
	for _, s := range m.clients {
		if s.way != nil {
			s.way.Mend()
		}
		if s.asks() == nil { // it is only ever opened and closed by happenings
			s.open(ctx)
		}
	}
}

// settle waits until everybody has what is newest, which must come, and soon.
func (m *model) settle(ctx context.Context) bool {
	var last string
	for end := time.After(patience); ; {
		if err := m.learn(ctx); err != nil {
			last = err.Error()
		} else if last = m.unsettled(); last == "" {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-end:
			m.fail("all is mended, and %s", last)
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// unsettled returns who has not what is newest, "" if all have.
func (m *model) unsettled() string {
	for _, n := range m.nodes {
		if held := n.running().Live.Snapshot().Versions(); len(held) < len(namespaces) || !m.isNewest(held) {
			return fmt.Sprintf("PDP %s has %v, and the newest are %v", n.name, held, m.heads)
		}
	}
	for _, s := range m.clients {
		switch {
		case s.embedded != nil:
			status := s.embedded.Status()
			for _, one := range status.Namespaces {
				if !m.isNewest([]policy.Version{one.Version}) || !status.Connected || status.TrustVersion != m.trust.Version() || s.near && one.Age > 5*time.Minute {
					return fmt.Sprintf("%s is behind in %s: %+v by version %d of the trust file; %d is the newest, and the head is %v", s.name, one.Namespace, one, status.TrustVersion, m.trust.Version(), m.heads[one.Namespace])
				}
			}
		case s.remote != nil:
			status := s.remote.Status()
			for _, p := range status.PDPs {
				if p.LeftAlone || p.Connection != "READY" {
					return s.name + " does not ask " + p.Server
				}
			}
			for _, one := range status.Namespaces {
				if !one.Remembered || !m.isNewest(one.Versions) || s.near && one.Stale {
					return fmt.Sprintf("%s is behind in %s: %+v; watches %s (%v)", s.name, one.Namespace, one, status.Watched, status.WatchEnded)
				}
			}
		}
	}
	return ""
}

func (m *model) isNewest(versions []policy.Version) bool {
	return !slices.ContainsFunc(versions, func(v policy.Version) bool { return v != m.heads[v.Namespace] })
}
