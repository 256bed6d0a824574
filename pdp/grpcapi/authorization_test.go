package grpcapi_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// cart is what shop.cart says unless a test says otherwise.
const cart = `
	default allow := false
	allow if input.action.name == "Add"
	allow if input.context.mfa == true
	allow if input.resource.properties.public == true
	deny contains "frozen" if input.subject.properties.frozen
	reasons contains "carts are for all" if allow
	obligations["mfa"] := {"max_age": 300} if input.action.name == "Add"
`

// shop is a snapshot of the namespaces shop, a guardrail, shop.cart and
// shop.broken.
func shop(t testing.TB, cart string) *live.Snapshot {
	t.Helper()
	d := testkit.NewDomain(t)
	s, err := live.NewLocal(t.Context(), map[policy.Namespace]*bundles.Bundle{
		"shop":        d.Rego(`deny contains "outside" if not startswith(input.subject.id, "spiffe://shop/")`),
		"shop.cart":   d.Rego(cart),
		"shop.broken": d.Rego(`allow if to_number(input.action.name) > 1`),
		"shop.slow":   d.Rego(`allow if { some a in numbers.range(1, 30000); some b in numbers.range(1, 30000); a + b < 0 }`),
		// Of shop.slow, only the deadline of the call is the end.
	}, []policy.Namespace{"shop"}, rego.Options{Budget: time.Minute, Steps: math.MaxInt64, Bytes: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decider(t testing.TB, limits policy.Limits) policy.Authorizer {
	t.Helper()
	return pdp.New(pdp.Config{Source: shop(t, cart), Limits: limits})
}

// question is a request that shop.cart allows, and what a test makes of it.
func question(change ...func(*microwallv1.AuthorizeRequest)) *microwallv1.AuthorizeRequest {
	m := &microwallv1.AuthorizeRequest{
		Namespace: "shop.cart",
		Subject:   &microwallv1.Subject{Type: "workload", Id: "spiffe://shop/frontend"},
		Action:    &microwallv1.Action{Name: "Add"},
		Resource:  &microwallv1.Resource{Type: "grpc", Id: "shop.Cart"},
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func object(name string, v *structpb.Value) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{name: v}}
}

func frozen(m *microwallv1.AuthorizeRequest) {
	m.Subject.Properties = object("frozen", structpb.NewBoolValue(true))
}
func outside(m *microwallv1.AuthorizeRequest) { m.Subject.Id = "spiffe://elsewhere/frontend" }
func drop(m *microwallv1.AuthorizeRequest)    { m.Action.Name = "Drop" }

// said is all that a decision says, in one way.
func said(d *microwallv1.Decision) string {
	var reasons []string
	for _, r := range d.GetReasons() {
		reasons = append(reasons, r.GetNamespace()+": "+r.GetText())
	}
	return fmt.Sprintf("%v %q %v", d.GetAllowed(), reasons, d.GetObligations().AsMap())
}

func namespaces(vs []*microwallv1.Version) (all []string) {
	for _, v := range vs {
		all = append(all, v.GetNamespace())
	}
	return all
}

func TestARequestIsDecidedByItsWholePath(t *testing.T) {
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{})}).conn)
	for name, test := range map[string]struct {
		m    *microwallv1.AuthorizeRequest
		want string
	}{
		"allowed":               {question(), `true ["shop.cart: carts are for all"] map[mfa:map[max_age:300]]`},
		"denied by default":     {question(drop), `false [] map[]`},
		"denied by the team":    {question(frozen), `false ["shop.cart: frozen"] map[]`},
		"denied from above":     {question(outside), `false ["shop: outside"] map[]`},
		"denied by both":        {question(outside, frozen), `false ["shop: outside" "shop.cart: frozen"] map[]`},
		"empty properties":      {question(func(m *microwallv1.AuthorizeRequest) { m.Context = &structpb.Struct{} }), `true ["shop.cart: carts are for all"] map[mfa:map[max_age:300]]`},
		"an unknown field":      {withUnknownField(t, question()), `true ["shop.cart: carts are for all"] map[mfa:map[max_age:300]]`},
		"numbers up to 2^53-1":  {question(context_(structpb.NewNumberValue(1<<53 - 1))), `true ["shop.cart: carts are for all"] map[mfa:map[max_age:300]]`},
		"numbers of any length": {question(context_(structpb.NewNumberValue(5e-324))), `true ["shop.cart: carts are for all"] map[mfa:map[max_age:300]]`},
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := c.Authorize(t.Context(), test.m)
			if err != nil {
				t.Fatal(err)
			}
			if got := said(answer.GetDecision()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if got := namespaces(answer.GetVersions()); !slices.Equal(got, []string{"shop", "shop.cart"}) || answer.GetVersions()[0].GetDigest() == "" {
				t.Errorf("decided by %v", answer.GetVersions())
			}
		})
	}
}

// context_ sets one member of the context.
func context_(v *structpb.Value) func(*microwallv1.AuthorizeRequest) {
	return func(m *microwallv1.AuthorizeRequest) { m.Context = object("n", v) }
}

// withUnknownField adds what a newer client may send.
func withUnknownField(t *testing.T, m *microwallv1.AuthorizeRequest) *microwallv1.AuthorizeRequest {
	t.Helper()
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 100, protowire.VarintType), 1))
	return m
}

// faults are requests that are refused: here, and as the item of a batch.
func faults() map[string]struct {
	m    *microwallv1.AuthorizeRequest
	code codes.Code
	says string
} {
	type change = func(*microwallv1.AuthorizeRequest)
	callPath := func(vs ...*structpb.Value) change {
		return func(m *microwallv1.AuthorizeRequest) {
			m.Context = object("call_path", structpb.NewListValue(&structpb.ListValue{Values: vs}))
		}
	}
	deep := structpb.NewNumberValue(1)
	for range 100 {
		deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
	}
	return map[string]struct {
		m    *microwallv1.AuthorizeRequest
		code codes.Code
		says string
	}{
		"nothing":                {&microwallv1.AuthorizeRequest{}, codes.InvalidArgument, "namespace is empty"},
		"no namespace":           {question(func(m *microwallv1.AuthorizeRequest) { m.Namespace = "" }), codes.InvalidArgument, "namespace is empty"},
		"a bad namespace":        {question(func(m *microwallv1.AuthorizeRequest) { m.Namespace = "shop/cart" }), codes.InvalidArgument, `label "shop/cart"`},
		"a wildcard":             {question(func(m *microwallv1.AuthorizeRequest) { m.Namespace = "shop.*" }), codes.InvalidArgument, `label "*"`},
		"an unknown namespace":   {question(func(m *microwallv1.AuthorizeRequest) { m.Namespace = "shop.other" }), codes.NotFound, "shop.other"},
		"a child of a namespace": {question(func(m *microwallv1.AuthorizeRequest) { m.Namespace = "shop.cart.eu" }), codes.NotFound, "shop.cart.eu"},
		"no subject":             {question(func(m *microwallv1.AuthorizeRequest) { m.Subject = nil }), codes.InvalidArgument, "subject.type is missing"},
		"no subject type":        {question(func(m *microwallv1.AuthorizeRequest) { m.Subject.Type = "" }), codes.InvalidArgument, "subject.type is missing"},
		"no subject id":          {question(func(m *microwallv1.AuthorizeRequest) { m.Subject.Id = "" }), codes.InvalidArgument, "subject.id is missing"},
		"no action":              {question(func(m *microwallv1.AuthorizeRequest) { m.Action = nil }), codes.InvalidArgument, "action.name is missing"},
		"no resource":            {question(func(m *microwallv1.AuthorizeRequest) { m.Resource = nil }), codes.InvalidArgument, "resource.type is missing"},
		"no resource id":         {question(func(m *microwallv1.AuthorizeRequest) { m.Resource.Id = "" }), codes.InvalidArgument, "resource.id is missing"},
		"NaN":                    {question(context_(structpb.NewNumberValue(math.NaN()))), codes.InvalidArgument, "context.n is not a finite number"},
		"infinity":               {question(context_(structpb.NewNumberValue(math.Inf(-1)))), codes.InvalidArgument, "context.n is not a finite number"},
		"2^53":                   {question(context_(structpb.NewNumberValue(1 << 53))), codes.InvalidArgument, "context.n is a whole number beyond 2^53-1"},
		"-2^53":                  {question(context_(structpb.NewNumberValue(-1 << 53))), codes.InvalidArgument, "context.n is a whole number beyond 2^53-1"},
		"no value":               {question(context_(&structpb.Value{})), codes.InvalidArgument, "context.n has no value"},
		"NaN in the subject": {question(func(m *microwallv1.AuthorizeRequest) {
			m.Subject.Properties = object("n", structpb.NewNumberValue(math.NaN()))
		}), codes.InvalidArgument, "subject.properties.n"},
		"NaN in the action": {question(func(m *microwallv1.AuthorizeRequest) {
			m.Action.Properties = object("n", structpb.NewNumberValue(math.NaN()))
		}), codes.InvalidArgument, "action.properties.n"},
		"NaN in the resource": {question(func(m *microwallv1.AuthorizeRequest) {
			m.Resource.Properties = object("n", structpb.NewNumberValue(math.NaN()))
		}), codes.InvalidArgument, "resource.properties.n"},
		"nesting":                      {question(context_(deep)), codes.InvalidArgument, "nested deeper"},
		"a call path that is none":     {question(func(m *microwallv1.AuthorizeRequest) { m.Context = object("call_path", structpb.NewStringValue("x")) }), codes.InvalidArgument, "context.call_path"},
		"a number in the call path":    {question(callPath(structpb.NewStringValue("a"), structpb.NewNumberValue(1))), codes.InvalidArgument, "context.call_path[1]"},
		"a call path that is too long": {question(callPath(structpb.NewStringValue("a"), structpb.NewStringValue("b"), structpb.NewStringValue("c"))), codes.ResourceExhausted, "--max-call-path"},
		"a request that is too large":  {question(func(m *microwallv1.AuthorizeRequest) { m.Action.Name = strings.Repeat("x", 2000) }), codes.ResourceExhausted, "--max-request-bytes"},
		"a policy that fails":          {question(func(m *microwallv1.AuthorizeRequest) { m.Namespace = "shop.broken" }), codes.FailedPrecondition, "shop.broken"},
	}
}

// tight are limits that faults() break.
var tight = policy.Limits{RequestBytes: 2000, BatchItems: 50, CallPath: 2}

func TestABadRequestIsRefusedWithItsField(t *testing.T) {
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: decider(t, tight), Limits: tight}).conn)
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			answer, err := c.Authorize(t.Context(), f.m)
			if answer.GetDecision().GetAllowed() || status.Code(err) != f.code || !strings.Contains(err.Error(), f.says) {
				t.Errorf("%v, %v", answer, err)
			}
		})
	}
}

func TestABadItemDoesNotSpoilTheOthers(t *testing.T) {
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: decider(t, tight), Limits: tight}).conn)
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{question(drop), f.m, question()}})
			if err != nil || len(answer.GetResults()) != 3 {
				t.Fatalf("%v, %v", answer, err)
			}
			first, bad, last := answer.GetResults()[0], answer.GetResults()[1], answer.GetResults()[2]
			if first.GetDecision() == nil || first.GetDecision().GetAllowed() || !last.GetDecision().GetAllowed() {
				t.Errorf("the others: %v, %v", first, last)
			}
			if bad.GetDecision() != nil || codes.Code(bad.GetError().GetCode()) != f.code || !strings.Contains(bad.GetError().GetMessage(), f.says) {
				t.Errorf("the bad one: %v", bad)
			}
			want, by := []string{"shop", "shop.cart"}, []uint32(nil)
			if name == "a policy that fails" { // and says which
				want, by = []string{"shop", "shop.broken", "shop.cart"}, []uint32{0, 1}
			}
			if got := namespaces(answer.GetVersions()); !slices.Equal(got, want) || !slices.Equal(bad.GetPath(), by) {
				t.Errorf("decided by %v, the bad one by %v", got, bad.GetPath())
			}
		})
	}
}

func TestABatchOfNothingButBadItemsIsAnswered(t *testing.T) {
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: decider(t, tight), Limits: tight}).conn)
	bad := faults()["NaN"].m
	answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{bad, bad}})
	if err != nil || len(answer.GetResults()) != 2 || answer.GetResults()[1].GetError() == nil || len(answer.GetVersions()) != 0 {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestABatchHasItsLimits(t *testing.T) {
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: decider(t, tight), Limits: tight}).conn)
	many := make([]*microwallv1.AuthorizeRequest, tight.BatchItems)
	for i := range many {
		many[i] = question()
	}
	if answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: many}); err != nil || len(answer.GetResults()) != len(many) {
		t.Errorf("as many as allowed: %v", err)
	}
	for name, test := range map[string]struct {
		items []*microwallv1.AuthorizeRequest
		code  codes.Code
		says  string
	}{
		"one too many": {slices.Concat(many, many[:1]), codes.ResourceExhausted, "--max-batch"},
		"none":         {nil, codes.InvalidArgument, "at least one"},
	} {
		if answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Namespace: "shop.cart", Items: test.items}); answer != nil || status.Code(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
	}
	huge := question(func(m *microwallv1.AuthorizeRequest) { m.Action.Name = strings.Repeat("x", 16*tight.RequestBytes) })
	if answer, err := c.Authorize(t.Context(), huge); answer != nil || status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message that is too large: %v, %v", answer, err)
	}
}

func TestItemsTakeWhatTheyLeaveOutFromTheBatch(t *testing.T) {
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{})}).conn)
	yes := structpb.NewBoolValue(true)
	whole := question(drop)
	for name, test := range map[string]struct {
		batch *microwallv1.AuthorizeBatchRequest // its items are asked for
		want  string                             // of each item: allowed, denied, or the code of its error
	}{
		"everything": {&microwallv1.AuthorizeBatchRequest{
			Namespace: "shop.cart", Subject: whole.GetSubject(), Action: &microwallv1.Action{Name: "Add"}, Resource: whole.GetResource(),
			Items: []*microwallv1.AuthorizeRequest{{}, {Action: &microwallv1.Action{Name: "Drop"}}, {Namespace: "shop.other"}, {Subject: &microwallv1.Subject{Type: "workload"}}},
		}, "allowed denied NotFound InvalidArgument"},
		"a context, of which {} is one": {&microwallv1.AuthorizeBatchRequest{
			Context: object("mfa", yes),
			Items:   []*microwallv1.AuthorizeRequest{question(drop), question(drop, func(m *microwallv1.AuthorizeRequest) { m.Context = &structpb.Struct{} })},
		}, "allowed denied"},
		"a resource with its properties, never merged": {&microwallv1.AuthorizeBatchRequest{
			Resource: &microwallv1.Resource{Type: "grpc", Id: "shop.Cart", Properties: object("public", yes)},
			Items: []*microwallv1.AuthorizeRequest{
				question(drop), question(drop, func(m *microwallv1.AuthorizeRequest) { m.Resource = nil }),
				question(drop, func(m *microwallv1.AuthorizeRequest) { m.Resource.Properties = &structpb.Struct{} }),
			},
		}, "denied allowed denied"},
		"a default that is bad, where it is taken": {&microwallv1.AuthorizeBatchRequest{
			Context: object("n", structpb.NewNumberValue(math.NaN())),
			Items:   []*microwallv1.AuthorizeRequest{question(), question(func(m *microwallv1.AuthorizeRequest) { m.Context = &structpb.Struct{} })},
		}, "InvalidArgument allowed"},
		"nothing, where there is nothing": {&microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{{}, question()}}, "InvalidArgument allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := c.AuthorizeBatch(t.Context(), test.batch)
			if err != nil {
				t.Fatal(err)
			}
			if got := outcomes(answer); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// outcomes says how each item ended.
func outcomes(m *microwallv1.AuthorizeBatchResponse) string {
	var all []string
	for _, r := range m.GetResults() {
		switch {
		case r.GetError() != nil:
			all = append(all, codes.Code(r.GetError().GetCode()).String())
		case r.GetDecision().GetAllowed():
			all = append(all, "allowed")
		default:
			all = append(all, "denied")
		}
	}
	return strings.Join(all, " ")
}

func TestResultsHaveTheOrderOfTheItemsAndEachVersionOnce(t *testing.T) {
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{})}).conn)
	var items []*microwallv1.AuthorizeRequest
	var want []string
	for i := range 300 {
		switch i % 4 {
		case 0:
			items, want = append(items, question()), append(want, "allowed")
		case 1:
			items, want = append(items, question(drop)), append(want, "denied")
		case 2:
			items, want = append(items, question(func(m *microwallv1.AuthorizeRequest) { m.Namespace = "shop" })), append(want, "denied")
		case 3:
			items, want = append(items, faults()["2^53"].m), append(want, "InvalidArgument")
		}
	}
	answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: items})
	if err != nil {
		t.Fatal(err)
	}
	if got := outcomes(answer); got != strings.Join(want, " ") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := namespaces(answer.GetVersions()); !slices.Equal(got, []string{"shop", "shop.cart"}) {
		t.Errorf("decided by %v", got)
	}
}

// swapping is a source whose snapshot changes all the time.
type swapping struct{ now atomic.Pointer[live.Snapshot] }

func (s *swapping) Snapshot() *live.Snapshot { return s.now.Load() }

func TestABatchIsDecidedByOneSnapshotAtOneTime(t *testing.T) {
	// Each snapshot says which one it is, and when it was asked.
	const says = `reasons contains sprintf("%%s at %%d", ["%s", input.time.unix]) if input.action.name == "Add"
		allow if input.action.name == "Add"`
	snapshots := map[string]*live.Snapshot{"red": shop(t, fmt.Sprintf(says, "red")), "blue": shop(t, fmt.Sprintf(says, "blue"))}
	digests := map[string]string{}
	for name, s := range snapshots {
		path, err := s.Path("shop.cart")
		if err != nil {
			t.Fatal(err)
		}
		digests[name] = path.Versions()[1].Digest.String()
	}
	source := &swapping{}
	source.now.Store(snapshots["red"])
	var seconds atomic.Int64 // the clock goes on whenever it is looked at
	service := pdp.New(pdp.Config{Source: source, Now: func() time.Time { return time.Unix(seconds.Add(1), 0) }})
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: service}).conn)

	ctx, stop := context.WithCancel(t.Context())
	var swap sync.WaitGroup
	swap.Go(func() {
		for ctx.Err() == nil {
			source.now.Store(snapshots["blue"])
			source.now.Store(snapshots["red"])
		}
	})
	defer swap.Wait()
	defer stop()
	batch := &microwallv1.AuthorizeBatchRequest{
		Namespace: "shop.cart", Subject: question().GetSubject(), Resource: question().GetResource(), Action: question().GetAction(),
		Items: slices.Repeat([]*microwallv1.AuthorizeRequest{{}}, 20),
	}
	seen := map[string]bool{}
	for n := 0; len(seen) < 2 || n < 20; n++ {
		answer, err := c.AuthorizeBatch(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		first := answer.GetResults()[0].GetDecision().GetReasons()
		if len(first) != 1 {
			t.Fatal(answer)
		}
		name, _, _ := strings.Cut(first[0].GetText(), " ")
		seen[name] = true
		for i, r := range answer.GetResults() {
			if got := r.GetDecision().GetReasons(); len(got) != 1 || got[0].GetText() != first[0].GetText() {
				t.Fatalf("the first item was decided by %v, item %d by %v", first, i, got)
			}
		}
		if vs := answer.GetVersions(); len(vs) != 2 || vs[1].GetDigest() != digests[name] {
			t.Fatalf("decided by %s, says %v", name, vs)
		}
		if n > 10000 {
			t.Fatalf("only %v was ever seen", seen)
		}
	}
}

// raw sends and takes bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = slices.Clone(data); return nil }
func (raw) Name() string                       { return "proto" }

func TestBytesThatAreNoRequestAreRefused(t *testing.T) {
	s := serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{})})
	whole, err := proto.Marshal(question())
	if err != nil {
		t.Fatal(err)
	}
	field := func(to []byte, n protowire.Number, content []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(to, n, protowire.BytesType), content)
	}
	// A map entry whose name is not UTF-8, in the Struct of the context.
	badName := field(nil, 1, field(field(nil, 1, []byte("\xff")), 2, nil))
	for _, method := range []string{microwallv1.AuthorizationService_Authorize_FullMethodName, microwallv1.AuthorizationService_AuthorizeBatch_FullMethodName} {
		for name, question := range map[string][]byte{
			"garbage":                           []byte("may I?"),
			"a request that is cut off":         whole[:len(whole)-1],
			"a namespace that is not UTF-8":     field(slices.Clone(whole), 1, []byte("shop.\xff")),
			"a subject that is not UTF-8":       field(slices.Clone(whole), 2, field(nil, 2, []byte("\xff"))),
			"an action that is not UTF-8":       field(slices.Clone(whole), 3, field(nil, 1, []byte("\xed\xa0\x80"))),
			"a property's name that is no text": field(slices.Clone(whole), 5, badName),
		} {
			var answer []byte
			err := s.conn.Invoke(t.Context(), method, &question, &answer, grpc.ForceCodec(raw{}))
			if len(answer) > 0 || status.Code(err) != codes.Internal && status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s, %s: %q, %v", method, name, answer, err)
			}
		}
	}
	// What repeats a field is a request like any other: the last one counts, and
	// parts of messages are merged (protobuf's encoding, "Last One Wins").
	twice := append(slices.Clone(whole), field(nil, 3, field(nil, 1, []byte("Drop")))...)
	var answer []byte
	if err := s.conn.Invoke(t.Context(), microwallv1.AuthorizationService_Authorize_FullMethodName, &twice, &answer, grpc.ForceCodec(raw{})); err != nil {
		t.Fatal(err)
	}
	var m microwallv1.AuthorizeResponse
	if err := proto.Unmarshal(answer, &m); err != nil || m.GetDecision().GetAllowed() {
		t.Errorf("%v, %v", &m, err)
	}
}

func TestADecisionStopsAtTheDeadlineOfItsCall(t *testing.T) {
	failed := make(chan grpcapi.CallFailed, 2)
	s := serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{}), Events: func(e grpcapi.CallFailed) { failed <- e }})
	c := microwallv1.NewAuthorizationServiceClient(s.conn)
	slow := question(func(m *microwallv1.AuthorizeRequest) { m.Namespace = "shop.slow" })
	for name, ask := range map[string]func(context.Context) error{
		"Authorize": func(ctx context.Context) error {
			_, err := c.Authorize(ctx, slow)
			return err
		},
		"AuthorizeBatch": func(ctx context.Context) error {
			_, err := c.AuthorizeBatch(ctx, &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{question(), slow, question()}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // long enough to get there
			defer cancel()
			if err := ask(ctx); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("the client was told %v", err)
			}
			// The policy would go on for minutes.
			select {
			case e := <-failed:
				if !policy.Ended(e.Err) {
					t.Errorf("the server says %v", e.Err)
				}
			case <-time.After(30 * time.Second):
				t.Error("the server still evaluates")
			}
		})
	}
}

// Bare results of a batch are encoded once. One that is stale is not bare.
func TestWhatIsStaleIsSaidOfEveryResult(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	now := testkit.Created
	clock := func() time.Time { return now }
	state, err := live.New(t.Context(), live.Config{Trust: d.Trust(), Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	var heads []policy.Version
	for key, n := range map[string]policy.Namespace{"center": "shop", "cart": "shop.cart"} {
		r := d.Release(key, n, nil, d.Rego(`allow if input.action.name == "Add"`))
		if err := state.Offer(t.Context(), r.Note(), func(context.Context) ([]byte, error) { return r.Packed, nil }); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, r.Version())
	}
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: pdp.New(pdp.Config{Source: state, Now: clock})}).conn)
	expect := func(what string, want ...string) {
		t.Helper()
		one, err := c.Authorize(t.Context(), question())
		if err != nil || !one.GetDecision().GetAllowed() || !slices.Equal(one.GetDecision().GetStale(), want) {
			t.Errorf("%s: got %v, %v", what, one.GetDecision(), err)
		}
		made := policy.Evaluation{Time: now.Unix(), Engine: rego.Engine(), Trust: 1}
		if got := wire.Evaluation(one.GetEvaluation()); got != made {
			t.Errorf("%s: made by %+v", what, got)
		}
		all, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{question(), question(drop), question()}})
		if err != nil {
			t.Fatal(err)
		}
		if got := wire.Evaluation(all.GetEvaluation()); got != made {
			t.Errorf("%s: a batch is made by %+v", what, got)
		}
		for i, r := range all.GetResults() {
			if r.GetDecision().GetAllowed() != (i != 1) || !slices.Equal(r.GetDecision().GetStale(), want) {
				t.Errorf("%s, result %d: got %v", what, i, r)
			}
		}
	}
	expect("never proven", "shop", "shop.cart")
	for _, head := range heads {
		if err := state.Prove(d.Beacon("beat", now, head)); err != nil {
			t.Fatal(err)
		}
	}
	expect("proven")
	now = now.Add(2 * time.Hour)
	expect("proven two hours ago", "shop", "shop.cart")
}
