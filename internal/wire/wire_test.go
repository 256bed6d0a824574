package wire_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// number, text and so on keep the messages below readable.
func number(f float64) *structpb.Value { return structpb.NewNumberValue(f) }
func text(s string) *structpb.Value    { return structpb.NewStringValue(s) }
func list(vs ...*structpb.Value) *structpb.Value {
	return structpb.NewListValue(&structpb.ListValue{Values: vs})
}

func object(members ...any) *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for i := 0; i < len(members); i += 2 {
		v, _ := members[i+1].(*structpb.Value)
		s.Fields[members[i].(string)] = v
	}
	return s
}

func properties(t testing.TB, m map[string]any) policy.Properties {
	t.Helper()
	p, err := policy.NewProperties(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// spelling says all that a request says, in one way.
func spelling(r policy.Request) string {
	return fmt.Sprintf("%q %q %q %s %q %s %q %q %s %s", r.Namespace, r.Subject.Type, r.Subject.ID, r.Subject.Properties,
		r.Action.Name, r.Action.Properties, r.Resource.Type, r.Resource.ID, r.Resource.Properties, r.Context)
}

func TestARequestCrossesTheWireUnchanged(t *testing.T) {
	rich := map[string]any{
		"": 0, "a.b": -0.5, "ü\u2028": "\x00\n\"", "null": nil, "yes": true, "no": false, "empty": map[string]any{}, "none": []any{},
		"list": []any{1, "1", nil, []any{map[string]any{"deep": []any{}}}}, "names": []string{"x", ""}, "int": 1<<53 - 1, "tiny": 5e-324,
		"fraction": math.MaxFloat64 / 1e300, "number": json.Number("1e2"), "u": uint8(255),
	}
	for name, r := range map[string]policy.Request{
		"all empty": {},
		"no properties": {
			Namespace: "boutique.cart", Subject: policy.Entity{Type: "workload", ID: "spiffe://boutique.example/frontend"},
			Action: policy.Action{Name: "AddItem"}, Resource: policy.Entity{Type: "grpc", ID: "hipstershop.CartService"},
		},
		"properties everywhere": {
			Namespace: "a", Subject: policy.Entity{Type: "t", ID: "i", Properties: properties(t, rich)},
			Action:   policy.Action{Name: "n", Properties: properties(t, map[string]any{"action": rich})},
			Resource: policy.Entity{Type: "rt", ID: "ri", Properties: properties(t, map[string]any{"resource": []any{rich}})},
			Context:  properties(t, map[string]any{"call_path": []string{"a", "b"}}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := wire.RequestProto(&r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.Request(throughBytes(t, m))
			if err != nil {
				t.Fatal(err)
			}
			if spelling(got) != spelling(r) {
				t.Errorf("sent %s\nread %s", spelling(r), spelling(got))
			}
		})
	}
}

func throughBytes[M proto.Message](t testing.TB, m M) M {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	read := m.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(raw, read); err != nil {
		t.Fatal(err)
	}
	return read.(M)
}

func TestARequestWithoutItsPartsIsEmptyNotAPanic(t *testing.T) {
	for _, m := range []*microwallv1.AuthorizeRequest{nil, {}, {Subject: &microwallv1.Subject{}, Context: &structpb.Struct{}}} {
		r, err := wire.Request(m)
		if err != nil || spelling(r) != spelling(policy.Request{}) {
			t.Errorf("%v: %s, %v", m, spelling(r), err)
		}
		if err := (policy.Limits{}).Check(&r); policy.KindOf(err) != policy.BadRequest {
			t.Errorf("%v: limits say %v", m, err)
		}
	}
}

func TestWhatIsNotTheSameAtEveryDoorIsRefusedByItsPath(t *testing.T) {
	deep := text("x")
	for range 100 {
		deep = list(deep)
	}
	for name, c := range map[string]struct {
		value *structpb.Value
		says  string
	}{
		"NaN":                     {number(math.NaN()), "is not a finite number"},
		"infinity":                {number(math.Inf(1)), "is not a finite number"},
		"minus infinity":          {number(math.Inf(-1)), "is not a finite number"},
		"2^53":                    {number(1 << 53), "beyond 2^53-1"},
		"-2^53":                   {number(-1 << 53), "beyond 2^53-1"},
		"the largest double":      {number(math.MaxFloat64), "beyond 2^53-1"},
		"a value without a kind":  {&structpb.Value{}, "has no value"},
		"no value":                {nil, "has no value"},
		"a struct that is absent": {&structpb.Value{Kind: &structpb.Value_StructValue{}}, "has no value"},
		"a list that is absent":   {&structpb.Value{Kind: &structpb.Value_ListValue{}}, "has no value"},
		"invalid UTF-8":           {text("\xff"), "is not valid UTF-8"},
		"nesting":                 {deep, "nested deeper than"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := object("outer", list(text("fine"), structpb.NewStructValue(object("inner", c.value))))
			for path, m := range map[string]*microwallv1.AuthorizeRequest{
				"subject.properties.":  {Subject: &microwallv1.Subject{Properties: bad}},
				"action.properties.":   {Action: &microwallv1.Action{Properties: bad}},
				"resource.properties.": {Resource: &microwallv1.Resource{Properties: bad}},
				"context.":             {Context: bad},
			} {
				r, err := wire.Request(m)
				if policy.KindOf(err) != policy.BadRequest || !strings.HasPrefix(err.Error(), path+"outer[1].inner") || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want %souter[1].inner ... %s", err, path, c.says)
				}
				if spelling(r) != spelling(policy.Request{}) {
					t.Errorf("a refused request says %s", spelling(r))
				}
			}
		})
	}
	t.Run("invalid UTF-8 in a name", func(t *testing.T) {
		if _, err := wire.Request(&microwallv1.AuthorizeRequest{Context: object("\xff", number(1))}); policy.KindOf(err) != policy.BadRequest ||
			err.Error() != "context has a member whose name is not valid UTF-8" {
			t.Error(err)
		}
	})
}

func TestNumbersThatADoubleCannotSayAreNotSent(t *testing.T) {
	for _, n := range []any{int64(1 << 53), int64(-1 << 53), uint64(math.MaxUint64), int64(math.MinInt64), json.Number("9007199254740993"), json.Number(strings.Repeat("9", 40))} {
		r := policy.Request{Context: properties(t, map[string]any{"order": []any{0, n}})}
		m, err := wire.RequestProto(&r)
		if m != nil || policy.KindOf(err) != policy.BadRequest || !strings.HasPrefix(err.Error(), fmt.Sprintf("context.order[1] is %v", n)) || !strings.Contains(err.Error(), "as a string") {
			t.Errorf("%v: %v, %v", n, m, err)
		}
	}
}

func TestAFaultTellsAHostileSenderOnlySoMuch(t *testing.T) {
	long := strings.Repeat("ü", 1<<20)
	_, err := wire.Request(&microwallv1.AuthorizeRequest{Context: object(long, number(math.NaN()))})
	if err == nil || len(err.Error()) > 1000 || !strings.HasPrefix(err.Error(), "context.ü") || !strings.HasSuffix(err.Error(), "is not a finite number") {
		t.Errorf("%.2000v", err)
	}
	if strings.ToValidUTF8(err.Error(), "") != err.Error() {
		t.Error("the text was cut inside a character")
	}
	r := policy.Request{Context: properties(t, map[string]any{long: json.Number(strings.Repeat("9", 300))})}
	if _, err := wire.RequestProto(&r); err == nil || len(err.Error()) > 1000 || !strings.HasSuffix(err.Error(), "send it as a string") {
		t.Errorf("%.2000v", err)
	}
}

func TestPropertiesInProtobufAreReadAsGoMapsAre(t *testing.T) {
	s := object("n", number(1), "s", text("x"), "o", structpb.NewStructValue(object("inner", text("y"))), "l", list(number(2), text("z")),
		"null", structpb.NewNullValue(), "no", structpb.NewBoolValue(false))
	read, err := wire.Properties(s)
	if err != nil {
		t.Fatal(err)
	}
	made := properties(t, s.AsMap())
	if read.String() != made.String() || read.Len() != made.Len() {
		t.Errorf("read %s, made %s", read, made)
	}
	for _, p := range []policy.Properties{read, made} {
		o, _ := p.Get("o")
		l, _ := p.Get("l")
		null, ok := p.Get("null")
		if o.Get("inner").Text() != "y" || l.Len() != 2 || l.Index(1).Text() != "z" || !ok || null.Type() != policy.Null {
			t.Errorf("%s is read as something else", p)
		}
		// What is not there is absent, whatever it is asked of.
		if _, ok := p.Get("N"); ok || o.Get("other").Type() != policy.Absent || l.Get("0").Type() != policy.Absent || o.Len() != 1 {
			t.Errorf("%s has what it does not have", p)
		}
		for range l.Names() {
			t.Error("an array has names")
		}
	}
}

func TestABatchSendsOnceWhatItsItemsShare(t *testing.T) {
	request := func(action string, context map[string]any) policy.Request {
		return policy.Request{Namespace: "a.b", Subject: policy.Entity{Type: "t", ID: "i", Properties: properties(t, map[string]any{"role": "clerk"})},
			Action: policy.Action{Name: action}, Resource: policy.Entity{Type: "grpc", ID: "r"}, Context: properties(t, context)}
	}
	for name, c := range map[string]struct {
		rs     []policy.Request
		shared string // the default fields that are set: namespace, subject, action, resource, context
	}{
		"one alone":                       {[]policy.Request{request("x", map[string]any{"k": 1})}, ""},
		"the same twice":                  {[]policy.Request{request("x", map[string]any{"k": 1}), request("x", map[string]any{"k": 1})}, "nsarc"},
		"another action":                  {[]policy.Request{request("x", map[string]any{"k": 1}), request("y", map[string]any{"k": 1})}, "nsrc"},
		"no context":                      {[]policy.Request{request("x", nil), request("y", nil)}, "nsr"},
		"an empty context beside another": {[]policy.Request{request("x", map[string]any{"mfa": true}), request("x", nil)}, "nsar"},
		"an empty context before another": {[]policy.Request{request("x", nil), request("x", map[string]any{"mfa": true})}, "nsar"},
		"a context that differs last":     {[]policy.Request{request("x", map[string]any{"k": 1}), request("x", map[string]any{"k": 1}), request("x", map[string]any{"k": 2})}, "nsar"},
	} {
		t.Run(name, func(t *testing.T) {
			var items []*microwallv1.AuthorizeRequest
			for _, r := range c.rs {
				m, err := wire.RequestProto(&r)
				if err != nil {
					t.Fatal(err)
				}
				items = append(items, m)
			}
			m := throughBytes(t, wire.BatchProto(items))
			if got := defaults(m); got != c.shared {
				t.Errorf("shares %q, want %q", got, c.shared)
			}
			for i, r := range c.rs {
				if got, err := wire.ReadBatch(m).Request(i); err != nil || spelling(got) != spelling(r) {
					t.Errorf("item %d: sent %s\nread %s, %v", i, spelling(r), spelling(got), err)
				}
			}
		})
	}
}

func defaults(m *microwallv1.AuthorizeBatchRequest) (set string) {
	for _, f := range []struct {
		name string
		set  bool
	}{{"n", m.GetNamespace() != ""}, {"s", m.GetSubject() != nil}, {"a", m.GetAction() != nil}, {"r", m.GetResource() != nil}, {"c", m.GetContext() != nil}} {
		if f.set {
			set += f.name
		}
	}
	return set
}

func TestADefaultIsTakenWholeAndOnlyWhereAnItemSaysNothing(t *testing.T) {
	m := &microwallv1.AuthorizeBatchRequest{
		Namespace: "default",
		Subject:   &microwallv1.Subject{Type: "dt", Id: "di", Properties: object("role", text("admin"))},
		Action:    &microwallv1.Action{Name: "da", Properties: object("break_glass", structpb.NewBoolValue(true))},
		Resource:  &microwallv1.Resource{Type: "drt", Id: "dri", Properties: object("public", structpb.NewBoolValue(true))},
		Context:   object("mfa", structpb.NewBoolValue(true)),
		Items: []*microwallv1.AuthorizeRequest{
			{},
			{Namespace: "own"},
			{Subject: &microwallv1.Subject{Type: "t", Id: "i"}},
			{Subject: &microwallv1.Subject{}},
			{Action: &microwallv1.Action{Name: "a"}, Resource: &microwallv1.Resource{Id: "ri"}, Context: &structpb.Struct{}},
		},
	}
	const subject, action, resource, context = `"dt" "di" {"role":"admin"}`, `"da" {"break_glass":true}`, `"drt" "dri" {"public":true}`, `{"mfa":true}`
	for i, want := range []string{
		`"default" ` + subject + " " + action + " " + resource + " " + context,
		`"own" ` + subject + " " + action + " " + resource + " " + context,
		`"default" "t" "i" {} ` + action + " " + resource + " " + context,
		`"default" "" "" {} ` + action + " " + resource + " " + context,
		`"default" ` + subject + ` "a" {} "" "ri" {} {}`,
	} {
		if got, err := wire.ReadBatch(throughBytes(t, m)).Request(i); err != nil || spelling(got) != want {
			t.Errorf("item %d: %s, %v\nwant %s", i, spelling(got), err, want)
		}
	}
}

func TestALargeDefaultCostsNoMoreForEachItemThatTakesIt(t *testing.T) {
	var members []any
	for i := range 1000 {
		members = append(members, fmt.Sprint(i), structpb.NewStructValue(object("n", number(1))))
	}
	m := &microwallv1.AuthorizeBatchRequest{Context: object(members...)}
	once := testing.AllocsPerRun(5, func() { wire.ReadBatch(m) })
	for range 100 {
		m.Items = append(m.Items, &microwallv1.AuthorizeRequest{Namespace: "a"})
	}
	all := testing.AllocsPerRun(5, func() {
		b := wire.ReadBatch(m)
		for i := range b.Len() {
			if r, err := b.Request(i); err != nil || r.Context.Len() != 1000 {
				t.Fatal(r.Context.Len(), err)
			}
		}
	})
	if once < 1000 || all > 2*once {
		t.Errorf("reading the default takes %v allocations, and with 100 items that take it %v", once, all)
	}
}

func TestADecisionCrossesTheWireUnchanged(t *testing.T) {
	versions := []policy.Version{{Namespace: "a", Epoch: 1, Revision: math.MaxUint64, Digest: policy.DigestOf([]byte("1"))}, {Namespace: "a.b", Digest: policy.DigestOf([]byte("2"))}}
	for name, d := range map[string]policy.Decision{
		"the zero decision": {},
		"a denial":          {Reasons: []policy.Reason{{Namespace: "a", Text: ""}, {Namespace: "a.b", Text: "ü\x00\n"}}, Versions: versions},
		"a stale denial":    {Reasons: []policy.Reason{{Namespace: "a.b", Text: "stale"}}, Versions: versions, Stale: []policy.Namespace{"a.b"}, StaleDenied: true, Evaluation: policy.Evaluation{Time: 1, Engine: "e"}},
		"a stale allow":     {Allowed: true, Versions: versions, Stale: []policy.Namespace{"a", "a.b"}},
		"an allow":          {Allowed: true, Obligations: properties(t, map[string]any{"mfa": map[string]any{"max_age": 300}}), Versions: versions},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := wire.DecisionProto(&d)
			if err != nil {
				t.Fatal(err)
			}
			answer := throughBytes(t, &microwallv1.AuthorizeResponse{Decision: m, Versions: wire.VersionsProto(d.Versions), Evaluation: wire.EvaluationProto(d.Evaluation)})
			read, err := wire.Versions(answer.GetVersions())
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.Decision(answer.GetDecision(), read)
			if err != nil {
				t.Fatal(err)
			}
			got.Evaluation = wire.Evaluation(answer.GetEvaluation())
			if got.Allowed != d.Allowed || got.StaleDenied != d.StaleDenied || got.Evaluation != d.Evaluation || fmt.Sprint(got.Stale) != fmt.Sprint(d.Stale) || fmt.Sprint(got.Reasons) != fmt.Sprint(d.Reasons) || got.Obligations.String() != d.Obligations.String() ||
				fmt.Sprint(got.Versions) != fmt.Sprint(append([]policy.Version{}, d.Versions...)) {
				t.Errorf("sent %+v\nread %+v", d, got)
			}
		})
	}
}

func TestADecisionThatProtobufCannotCarryIsAFailureOfThePolicy(t *testing.T) {
	for name, c := range map[string]struct {
		d    policy.Decision
		says string
	}{
		"a large number":              {policy.Decision{Allowed: true, Obligations: properties(t, map[string]any{"max": []any{int64(1 << 60)}})}, "obligations.max[0] is 1152921504606846976"},
		"a reason of arbitrary bytes": {policy.Decision{Allowed: true, Reasons: []policy.Reason{{Namespace: "a.b", Text: "\xff"}}}, `namespace a.b: reason "\xff" is not valid UTF-8`},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := wire.DecisionProto(&c.d)
			if m != nil || policy.KindOf(err) != policy.Failed || !strings.HasPrefix(err.Error(), c.says) {
				t.Errorf("%v, %v", m, err)
			}
		})
	}
}

func TestAnAnswerOfAnotherKindIsRefused(t *testing.T) {
	good := policy.DigestOf(nil).String()
	for name, v := range map[string]*microwallv1.Version{
		"nothing":             nil,
		"no namespace":        {Digest: good},
		"no valid namespace":  {Namespace: "A", Digest: good},
		"no digest":           {Namespace: "a"},
		"none for a digest":   {Namespace: "a", Digest: "-"},
		"zeros for a digest":  {Namespace: "a", Digest: "sha256:" + strings.Repeat("0", 64)},
		"another hash":        {Namespace: "a", Digest: "md5:" + good[7:]},
		"upper case":          {Namespace: "a", Digest: strings.ToUpper(good)},
		"more than a digest":  {Namespace: "a", Digest: good + "0"},
		"no hexadecimal text": {Namespace: "a", Digest: good[:70] + "g"},
	} {
		t.Run(name, func(t *testing.T) {
			if vs, err := wire.Versions([]*microwallv1.Version{{Namespace: "a", Digest: good}, v}); vs != nil || policy.KindOf(err) != policy.BadRequest {
				t.Errorf("%v, %v", vs, err)
			}
		})
	}
	for name, m := range map[string]*microwallv1.Decision{
		"an obligation that is NaN":   {Allowed: true, Obligations: object("n", number(math.NaN()))},
		"an obligation that is void":  {Allowed: true, Obligations: object("n", nil)},
		"a reason without namespace":  {Allowed: true, Reasons: []*microwallv1.Reason{{Text: "x"}}},
		"a reason that is nothing":    {Allowed: true, Reasons: []*microwallv1.Reason{nil}},
		"a reason of a bad namespace": {Allowed: true, Reasons: []*microwallv1.Reason{{Namespace: "a..b"}}},
		"stale is who did not decide": {Allowed: true, Stale: []string{"c"}},
		"stale is nobody":             {Allowed: true, Stale: []string{""}},
		"stale is there twice":        {Allowed: true, Stale: []string{"a", "a"}},
		"stale is out of order":       {Allowed: true, Stale: []string{"a.b", "a"}},
		"stale and allowed":           {Allowed: true, Stale: []string{"a"}, StaleDenied: true},
		"denied, and nobody is stale": {StaleDenied: true},
		"stale is more than decided":  {Allowed: true, Stale: []string{"a", "a.b", "a.b.c"}},
	} {
		t.Run(name, func(t *testing.T) {
			if d, err := wire.Decision(m, []policy.Version{{Namespace: "a"}, {Namespace: "a.b"}}); d.Allowed || policy.KindOf(err) != policy.BadRequest {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}
