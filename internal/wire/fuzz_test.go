package wire_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

var version = policy.Version{Namespace: "boutique.cart", Epoch: 1, Revision: 300, Digest: policy.Digest{1}}

func seeds(f *testing.F) []*microwallv1.AuthorizeRequest {
	r := policy.Request{
		Namespace: "boutique.cart", Subject: policy.Entity{Type: "workload", ID: "x", Properties: properties(f, map[string]any{"n": 1.5, "l": []any{nil, true}})},
		Action: policy.Action{Name: "AddItem"}, Resource: policy.Entity{Type: "grpc", ID: "y"}, Context: properties(f, map[string]any{"o": map[string]any{"i": "j"}}),
	}
	m, err := wire.RequestProto(&r)
	if err != nil {
		f.Fatal(err)
	}
	return []*microwallv1.AuthorizeRequest{
		m, {}, {Namespace: "a"},
		{Namespace: "a", Freshness: wire.FreshnessProto(policy.AtLeast(version.Token()).And(policy.Head).NotBefore(version))}, {Freshness: &microwallv1.Freshness{AtLeast: []string{"x"}}},
		{Context: object("n", number(math.NaN()))}, {Context: object("n", number(1<<53))}, {Context: object("n", number(math.Copysign(0, -1)))},
		{Context: object("n", &structpb.Value{}, "l", list(), "o", structpb.NewStructValue(object()))},
	}
}

// FuzzRequestRoundTrip reads what anyone may send. What is accepted must mean
// the same as the same JSON from a Go map, and the same again after it was
// written and read once more.
func FuzzRequestRoundTrip(f *testing.F) {
	for _, m := range seeds(f) {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m microwallv1.AuthorizeRequest
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		r, err := wire.Request(&m)
		if _, wrong := wire.Freshness(m.GetFreshness()); wrong != nil {
			if err == nil {
				t.Fatalf("accepted with a freshness that is none: %v", wrong)
			}
			return
		}
		made, same := fromGo(&m)
		if (err == nil) != same {
			t.Fatalf("protobuf says %v, a Go map %v: %v", err, same, &m)
		}
		if err != nil {
			if policy.KindOf(err) != policy.BadRequest || len(err.Error()) > 1000 {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if spelling(made) != spelling(r) {
			t.Fatalf("protobuf says %s\na Go map  %s", spelling(r), spelling(made))
		}
		for _, p := range []policy.Properties{r.Subject.Properties, r.Action.Properties, r.Resource.Properties, r.Context} {
			if !json.Valid([]byte(p.String())) {
				t.Fatalf("%s is no JSON", p)
			}
		}
		// Limits see the same size, wherever the properties came from.
		for _, limits := range []policy.Limits{{}, {RequestBytes: 50, CallPath: 1}} {
			if a, b := limits.Check(&r), limits.Check(&made); policy.KindOf(a) != policy.KindOf(b) || (a == nil) != (b == nil) {
				t.Fatalf("protobuf is checked as %v, a Go map as %v", a, b)
			}
		}
		again, err := wire.RequestProto(&r)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		read, err := wire.Request(throughBytes(t, again))
		if err != nil || spelling(read) != spelling(r) {
			t.Fatalf("read %s\nthen %s, %v", spelling(r), spelling(read), err)
		}
	})
}

// fromGo makes the request that m means of Go maps.
func fromGo(m *microwallv1.AuthorizeRequest) (policy.Request, bool) {
	r := policy.Request{
		Namespace: policy.Namespace(m.GetNamespace()),
		Subject:   policy.Entity{Type: m.GetSubject().GetType(), ID: m.GetSubject().GetId()},
		Action:    policy.Action{Name: m.GetAction().GetName()},
		Resource:  policy.Entity{Type: m.GetResource().GetType(), ID: m.GetResource().GetId()},
	}
	ok := true
	read := func(s *structpb.Struct) policy.Properties {
		p, err := policy.NewProperties(goMap(s))
		ok = ok && err == nil
		return p
	}
	r.Subject.Properties = read(m.GetSubject().GetProperties())
	r.Action.Properties = read(m.GetAction().GetProperties())
	r.Resource.Properties = read(m.GetResource().GetProperties())
	r.Context = read(m.GetContext())
	return r, ok
}

// goMap is s in Go, without what structpb's AsMap makes up: text for NaN, and
// null where there is no value.
func goMap(s *structpb.Struct) map[string]any {
	m := make(map[string]any)
	for name, v := range s.GetFields() {
		m[name] = goValue(v)
	}
	return m
}

func goValue(v *structpb.Value) any {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_NullValue:
		return nil
	case *structpb.Value_NumberValue:
		return kind.NumberValue
	case *structpb.Value_StringValue:
		return kind.StringValue
	case *structpb.Value_BoolValue:
		return kind.BoolValue
	case *structpb.Value_StructValue:
		return goMap(kind.StructValue)
	case *structpb.Value_ListValue:
		all := make([]any, len(kind.ListValue.GetValues()))
		for i, v := range kind.ListValue.GetValues() {
			all[i] = goValue(v)
		}
		return all
	}
	return struct{}{} // no JSON value
}

// FuzzBatchRoundTrip holds that sharing fields changes no item.
func FuzzBatchRoundTrip(f *testing.F) {
	for i, m := range seeds(f) {
		batch := &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{m, {Namespace: "b"}, m}}
		if i%2 == 1 {
			batch = &microwallv1.AuthorizeBatchRequest{Namespace: "d", Context: m.GetContext(), Items: []*microwallv1.AuthorizeRequest{{}, {Context: &structpb.Struct{}}, m}}
		}
		raw, err := proto.Marshal(batch)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m microwallv1.AuthorizeBatchRequest
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		var rs []policy.Request
		var items []*microwallv1.AuthorizeRequest
		for i := range m.GetItems() {
			r, err := wire.ReadBatch(&m).Request(i)
			if err != nil {
				continue
			}
			item, err := wire.RequestProto(&r)
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			rs, items = append(rs, r), append(items, item)
		}
		batch := throughBytes(t, wire.BatchProto(items))
		if len(batch.GetItems()) != len(rs) {
			t.Fatalf("%d items became %d", len(rs), len(batch.GetItems()))
		}
		for i, r := range rs {
			got, err := wire.ReadBatch(batch).Request(i)
			if err != nil || spelling(got) != spelling(r) {
				t.Fatalf("item %d: %s\nbecame %s, %v", i, spelling(r), spelling(got), err)
			}
		}
	})
}

// FuzzAnswer reads what a hostile PDP may send.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{})
	for _, d := range []policy.Decision{{}, {Allowed: true, Reasons: []policy.Reason{{Namespace: "a", Text: "b"}}, Obligations: properties(f, map[string]any{"n": 1}), Stale: []policy.Namespace{"a"}}} {
		m, err := wire.DecisionProto(&d)
		if err != nil {
			f.Fatal(err)
		}
		raw, err := proto.Marshal(&microwallv1.AuthorizeResponse{Decision: m, Versions: wire.VersionsProto([]policy.Version{{Namespace: "a", Revision: 1, Digest: policy.DigestOf(nil)}})})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m microwallv1.AuthorizeResponse
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		versions, err := wire.Versions(m.GetVersions())
		if err != nil {
			return
		}
		d, err := wire.Decision(m.GetDecision(), versions)
		if err != nil {
			if d.Allowed {
				t.Fatal("an error came with an allow")
			}
			return
		}
		if d.Allowed != m.GetDecision().GetAllowed() {
			t.Fatal("allowed was read as something else")
		}
		for _, v := range d.Versions {
			if _, err := policy.ParseNamespace(string(v.Namespace)); err != nil || v.Digest.IsZero() {
				t.Fatalf("version %+v was accepted", v)
			}
		}
		for _, n := range d.Stale {
			if !slices.ContainsFunc(d.Versions, func(v policy.Version) bool { return v.Namespace == n }) {
				t.Fatalf("%s is stale and has not decided", n)
			}
		}
		again, err := wire.DecisionProto(&d)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		read, err := wire.Decision(throughBytes(t, again), versions)
		if err != nil || read.Allowed != d.Allowed || read.Obligations.String() != d.Obligations.String() || spellReasons(read) != spellReasons(d) || !slices.Equal(read.Stale, d.Stale) || read.StaleDenied != d.StaleDenied {
			t.Fatalf("read %+v\nthen %+v, %v", d, read, err)
		}
	})
}

func spellReasons(d policy.Decision) string {
	var b strings.Builder
	for _, r := range d.Reasons {
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}
