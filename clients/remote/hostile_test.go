package remote_test

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// hostile is a server that answers every call with the same bytes.
type hostile struct{ answer atomic.Pointer[[]byte] }

func (h *hostile) say(raw []byte) { h.answer.Store(&raw) }

// Marshal and Unmarshal make it a codec that hands bytes through.
func (h *hostile) Marshal(any) ([]byte, error) { return *h.answer.Load(), nil }
func (h *hostile) Unmarshal([]byte, any) error { return nil }
func (h *hostile) Name() string                { return "proto" }

func (h *hostile) serve(t testing.TB) server {
	t.Helper()
	h.say(nil)
	return serve(t, "127.0.0.1:0", grpc.NewServer(grpc.ForceServerCodec(h), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if err := s.RecvMsg(&struct{}{}); err != nil {
			return err
		}
		return s.SendMsg(struct{}{})
	})))
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func version(n string) *microwallv1.Version {
	return &microwallv1.Version{Namespace: n, Epoch: 1, Revision: 7, Digest: policy.DigestOf([]byte(n)).String()}
}

func allow() *microwallv1.Decision { return &microwallv1.Decision{Allowed: true} }

func TestAnAnswerThatMakesNoSenseAllowsNothing(t *testing.T) {
	h := &hostile{}
	c := client(t, remote.Config{Servers: []string{h.serve(t).addr}})
	obligation := func(v *structpb.Value) *microwallv1.Decision {
		return &microwallv1.Decision{Allowed: true, Obligations: &structpb.Struct{Fields: map[string]*structpb.Value{"o": v}}}
	}
	cart := []*microwallv1.Version{version("shop"), version("shop.cart")}
	for name, m := range map[string]*microwallv1.AuthorizeResponse{
		"nothing":                         {},
		"versions without a decision":     {Versions: cart},
		"an allow by nobody":              {Decision: allow()},
		"an allow by another namespace":   {Decision: allow(), Versions: []*microwallv1.Version{version("shop.pay")}},
		"an allow by the guardrail alone": {Decision: allow(), Versions: cart[:1]},
		"an allow by a child":             {Decision: allow(), Versions: []*microwallv1.Version{version("shop"), version("shop.cart.eu")}},
		"two versions of one namespace":   {Decision: allow(), Versions: append(cart, version("shop.cart"))},
		"a version without namespace":     {Decision: allow(), Versions: append(cart, version(""))},
		"a version without digest":        {Decision: allow(), Versions: []*microwallv1.Version{{Namespace: "shop.cart"}}},
		"a version of another digest":     {Decision: allow(), Versions: []*microwallv1.Version{{Namespace: "shop.cart", Digest: "sha256:yes"}}},
		"an obligation that is NaN":       {Decision: obligation(structpb.NewNumberValue(math.NaN())), Versions: cart},
		"an obligation beyond 2^53-1":     {Decision: obligation(structpb.NewNumberValue(1 << 60)), Versions: cart},
		"an obligation without a value":   {Decision: obligation(&structpb.Value{}), Versions: cart},
		"stale is who has not decided":    {Decision: &microwallv1.Decision{Allowed: true, Stale: []string{"shop.pay"}}, Versions: cart},
		"a reason of nobody":              {Decision: &microwallv1.Decision{Allowed: true, Reasons: []*microwallv1.Reason{{Text: "x"}}}, Versions: cart},
	} {
		t.Run(name, func(t *testing.T) {
			h.say(marshal(t, m))
			d, err := c.Authorize(t.Context(), request("shop.cart", "Add"))
			if d.Allowed || policy.KindOf(err) != policy.Internal || !strings.Contains(err.Error(), "PDP at 127.0.0.1:") {
				t.Error(spelling(d, err))
			}
			// The same in a batch, beside a result that is in order.
			result := &microwallv1.BatchResult{}
			for i := range m.GetVersions() {
				result.Path = append(result.Path, uint32(i))
			}
			if m.GetDecision() != nil {
				result.Result = &microwallv1.BatchResult_Decision{Decision: m.GetDecision()}
			}
			h.say(marshal(t, &microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{result}, Versions: m.GetVersions()}))
			results, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add")})
			if err == nil {
				d, err = results[0].Decision, results[0].Err
			}
			if d.Allowed || policy.KindOf(err) != policy.Internal {
				t.Errorf("in a batch: %s", spelling(d, err))
			}
		})
	}
	for name, raw := range map[string][]byte{"no protobuf": []byte("yes"), "a cut-off answer": marshal(t, &microwallv1.AuthorizeResponse{Decision: allow(), Versions: cart})[:20]} {
		t.Run(name, func(t *testing.T) {
			h.say(raw)
			d, err := c.Authorize(t.Context(), request("shop.cart", "Add"))
			if d.Allowed || policy.KindOf(err) != policy.Internal {
				t.Error(spelling(d, err))
			}
		})
	}
	t.Run("and one that does, allows", func(t *testing.T) {
		h.say(marshal(t, &microwallv1.AuthorizeResponse{Decision: allow(), Versions: cart}))
		if d, err := c.Authorize(t.Context(), request("shop.cart", "Add")); err != nil || !d.Allowed || len(d.Versions) != 2 {
			t.Error(spelling(d, err))
		}
	})
}

func TestAResultOfABatchIsNeverThatOfAnotherRequest(t *testing.T) {
	h := &hostile{}
	c := client(t, remote.Config{Servers: []string{h.serve(t).addr}})
	by := func(d *microwallv1.Decision, path ...uint32) *microwallv1.BatchResult {
		return &microwallv1.BatchResult{Result: &microwallv1.BatchResult_Decision{Decision: d}, Path: path}
	}
	cart, pay := by(allow(), 0, 1), by(allow(), 0, 2)
	bad := func(code codes.Code) *microwallv1.BatchResult {
		return &microwallv1.BatchResult{Result: &microwallv1.BatchResult_Error{Error: &microwallv1.BatchError{Code: int32(code), Message: "sorry"}}}
	}
	all := []*microwallv1.Version{version("shop"), version("shop.cart"), version("shop.pay"), version("shop.cart.eu")}
	// Two requests are sent; the second of these cannot be.
	rs := []policy.Request{request("shop.cart", "Add"), {}, request("shop.pay", "Charge")}
	for name, test := range map[string]struct {
		m    *microwallv1.AuthorizeBatchResponse
		want string // of the three requests: allowed, denied, error; or that of the batch
	}{
		"in order":                     {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{by(&microwallv1.Decision{}, 0, 1), pay}, Versions: all}, "denied error allowed"},
		"none":                         {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{}, Versions: all}, "0 results for 2 requests"},
		"one too few":                  {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{cart}, Versions: all}, "1 results for 2 requests"},
		"one too many":                 {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{cart, pay, pay}, Versions: all}, "3 results for 2 requests"},
		"one that is unset":            {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{{Path: []uint32{0, 1}}, pay}, Versions: all}, "error error allowed"},
		"an error without a code":      {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{bad(codes.OK), pay}, Versions: all}, "error error allowed"},
		"an error of no known code":    {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{cart, bad(4711)}, Versions: all}, "allowed error error"},
		"a version of one is missing":  {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{cart, pay}, Versions: all[:2]}, "allowed error error"},
		"results that are swapped":     {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{pay, cart}, Versions: all}, "error error error"},
		"a path that is missing":       {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{by(allow()), pay}, Versions: all}, "error error allowed"},
		"a path without its own end":   {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{by(allow(), 0), pay}, Versions: all}, "error error allowed"},
		"a path that goes on":          {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{by(allow(), 0, 1, 3), pay}, Versions: all}, "error error allowed"},
		"a path by a stranger":         {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{by(allow(), 2, 1), pay}, Versions: all}, "error error allowed"},
		"a version twice":              {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{by(allow(), 0, 0, 1), pay}, Versions: all}, "error error allowed"},
		"two versions of a namespace":  {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{by(allow(), 0, 4, 1), pay}, Versions: append(all, version("shop"))}, "error error allowed"},
		"a place beyond the end":       {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{cart, by(allow(), 0, 4294967295)}, Versions: all}, "allowed error error"},
		"versions of nobody who asked": {&microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{by(allow(), 0), by(allow(), 0)}, Versions: all[3:]}, "error error error"},
	} {
		t.Run(name, func(t *testing.T) {
			h.say(marshal(t, test.m))
			results, err := c.AuthorizeBatch(t.Context(), rs)
			if err != nil {
				if results != nil || policy.KindOf(err) != policy.Internal || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, %v", results, err)
				}
				return
			}
			var got []string
			for i, r := range results {
				switch {
				case r.Err != nil:
					got = append(got, "error")
					if r.Decision.Allowed || len(r.Decision.Versions) > 0 {
						t.Errorf("an error came with %+v", r.Decision)
					}
				case r.Decision.Allowed:
					got = append(got, "allowed")
				default:
					got = append(got, "denied")
				}
				for _, v := range r.Decision.Versions {
					if !rs[i].Namespace.Within(v.Namespace) {
						t.Errorf("decision in %s by %s", rs[i].Namespace, v.Namespace)
					}
				}
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %v, want %s", got, test.want)
			}
		})
	}
}

func TestAServersMessageIsPassedOnOnlySoFar(t *testing.T) {
	h := &hostile{}
	c := client(t, remote.Config{Servers: []string{h.serve(t).addr}})
	h.say(marshal(t, &microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{
		{Result: &microwallv1.BatchResult_Error{Error: &microwallv1.BatchError{Code: int32(codes.NotFound), Message: strings.Repeat("ü", 1<<20)}}},
	}}))
	results, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add")})
	if err != nil || policy.KindOf(results[0].Err) != policy.NotFound || len(results[0].Err.Error()) > 100<<10 {
		t.Errorf("%d results, %.100v", len(results), err)
	}
	s := serve(t, "127.0.0.1:0", grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return status.Error(codes.NotFound, strings.Repeat("\xff", 100<<10))
	})))
	d, err := client(t, remote.Config{Servers: []string{s.addr}}).Authorize(t.Context(), request("shop.cart", "Add"))
	if d.Allowed || err == nil || policy.KindOf(err) != policy.NotFound || len(err.Error()) > 100<<10 || strings.Contains(err.Error(), "\xff") {
		t.Errorf("%.100s", spelling(d, err))
	}
}

// FuzzHostileAnswer lets a server answer anything over a real connection.
func FuzzHostileAnswer(f *testing.F) {
	cart := []*microwallv1.Version{version("shop"), version("shop.cart")}
	f.Add([]byte{}, false)
	f.Add(marshal(f, &microwallv1.AuthorizeResponse{Decision: allow(), Versions: cart}), false)
	f.Add(marshal(f, &microwallv1.AuthorizeBatchResponse{Results: []*microwallv1.BatchResult{
		{Result: &microwallv1.BatchResult_Decision{Decision: allow()}},
		{Result: &microwallv1.BatchResult_Error{Error: &microwallv1.BatchError{Code: 5, Message: "x"}}},
	}, Versions: cart}), true)
	h := &hostile{}
	c := client(f, remote.Config{Servers: []string{h.serve(f).addr}})
	f.Fuzz(func(t *testing.T, raw []byte, batch bool) {
		h.say(raw)
		r := request("shop.cart", "Add")
		if !batch {
			d, err := c.Authorize(t.Context(), r)
			var m microwallv1.AuthorizeResponse
			said := proto.Unmarshal(raw, &m) == nil && m.GetDecision().GetAllowed()
			sound(t, r, d, err, said)
			return
		}
		results, err := c.AuthorizeBatch(t.Context(), []policy.Request{r, {}, r})
		if err != nil {
			if results != nil {
				t.Fatal("an error came with results")
			}
			return
		}
		var m microwallv1.AuthorizeBatchResponse
		if err := proto.Unmarshal(raw, &m); err != nil || len(m.GetResults()) != 2 || len(results) != 3 {
			t.Fatalf("%d results of %v, %v", len(results), &m, err)
		}
		sound(t, r, results[0].Decision, results[0].Err, m.GetResults()[0].GetDecision().GetAllowed())
		sound(t, policy.Request{}, results[1].Decision, results[1].Err, false)
		sound(t, r, results[2].Decision, results[2].Err, m.GetResults()[1].GetDecision().GetAllowed())
	})
}

// sound fails unless a decision is one that the server has made of r.
func sound(t *testing.T, r policy.Request, d policy.Decision, err error, said bool) {
	t.Helper()
	if err != nil {
		if got, zero := fmt.Sprintf("%+v", d), fmt.Sprintf("%+v", policy.Decision{}); got != zero {
			t.Fatalf("an error came with %s", got)
		}
		return
	}
	if d.Allowed != said {
		t.Fatalf("allowed is %v, the server said %v", d.Allowed, said)
	}
	if len(d.Versions) == 0 || d.Versions[len(d.Versions)-1].Namespace != r.Namespace {
		t.Fatalf("decided by %v", d.Versions)
	}
	for _, v := range d.Versions {
		if !r.Namespace.Within(v.Namespace) {
			t.Fatalf("decided by %v", d.Versions)
		}
	}
}
