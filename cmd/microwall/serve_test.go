package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	natsjetstream "github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// A request that could be read in two ways is refused at each of the three
// doors of the command, in the same words, and not only by one of them.
func TestEveryDoorRefusesTheSameRequests(t *testing.T) {
	s := newSite(t)
	s.push("center", "shop", neverForbidden, "released revision 1")
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	doors := map[string][]string{
		"a PDP":    nil,
		"NATS":     {"--nats", s.NATS},
		"a folder": {"--bundle", s.folder("shop.cart", allowsGet), "--guardrail", s.folder("shop", neverForbidden)},
	}
	request := func(change string) string {
		return `{"subject": {"type": "workload", "id": "x"}, "action": {"name": "Get"}, "resource": {"type": "grpc", "id": "Cart"}` + change + `}`
	}
	for name, test := range map[string]struct{ request, says string }{
		"nothing":                          {``, "request is empty; send an AuthZEN request as JSON"},
		"no JSON":                          {`subject: x`, "request is not JSON as it must be"},
		"no subject":                       {`{"action": {"name": "Get"}, "resource": {"type": "grpc", "id": "Cart"}}`, "subject.type is missing or empty; every request names it"},
		"an empty id":                      {`{"subject": {"type": "workload", "id": ""}, "action": {"name": "Get"}, "resource": {"type": "grpc", "id": "Cart"}}`, "subject.id is missing or empty"},
		"no resource":                      {`{"subject": {"type": "workload", "id": "x"}, "action": {"name": "Get"}}`, "resource.type is missing or empty"},
		"properties that are no object":    {`{"subject": {"type": "workload", "id": "x", "properties": ["admin"]}}`, "subject.properties is an array; it must be an object"},
		"a context that is no object":      {request(`, "context": "x"`), "context is a string; it must be an object"},
		"a whole number beyond 2^53-1":     {request(`, "context": {"n": 9007199254740992.0}`), "context.n is a whole number beyond 2^53-1"},
		"a number beyond any double":       {request(`, "context": {"n": 1e400}`), "context.n is a number beyond the range of a double"},
		"NaN":                              {request(`, "context": {"n": NaN}`), "request is not JSON as it must be"},
		"infinity":                         {request(`, "context": {"n": -Infinity}`), "request is not JSON as it must be"},
		"a member twice":                   {request(`, "action": {"name": "Put"}`), `duplicate object member name "action"`},
		"a member of the context twice":    {request(`, "context": {"a": 1, "a": 2}`), `duplicate object member name "a"`},
		"a name in another case":           {request(`, "Context": {}`), `"Context" is written "context"`},
		"invalid UTF-8":                    {request(`, "context": {"a": "` + "\xff" + `"}`), "invalid UTF-8"},
		"a time":                           {request(`, "time": {"hour": 1}`), ""}, // nobody sets it: it is ignored
		"a namespace that is none":         {request(`, "namespace": "shop/cart"`), `label "shop/cart" must be`},
		"a call path that is none":         {request(`, "context": {"call_path": "x"}`), "context.call_path is not an array"},
		"a call path beyond the limit":     {request(`, "context": {"call_path": ["` + strings.Repeat(`a","`, 32) + `a"]}`), "--max-call-path"},
		"a request beyond the limit":       {request(`, "context": {"a": "` + strings.Repeat("x", 1<<20) + `"}`), "--max-request-bytes"},
		"what nobody knows":                {request(`, "x": {"y": 1}`), ""},
		"nothing besides what must be":     {request(``), ""},
		"an object where a string belongs": {`{"subject": {"type": {}}}`, "subject.type is an object; it must be a string"},
	} {
		t.Run(name, func(t *testing.T) {
			for door, args := range doors {
				stdout, stderr, code := s.run("cart", test.request, append([]string{"authorize", "--namespace", "shop.cart"}, args...)...)
				switch {
				case test.says == "" && (code != exitYes || !strings.HasPrefix(stdout, "allowed\n")):
					t.Errorf("%s: %d, %s%s", door, code, stdout, stderr)
				case test.says != "" && (code != exitError || stdout != "" || !strings.Contains(stderr, test.says)):
					t.Errorf("%s: %d without %q: %s%s", door, code, test.says, stdout, stderr)
				}
			}
		})
	}
}

func TestABatchHasTheLimitOfItsFlag(t *testing.T) {
	s := newSite(t, "--max-batch", "2")
	s.push("center", "shop", neverForbidden, "released revision 1")
	item := &microwallv1.AuthorizeRequest{
		Namespace: "shop", Subject: &microwallv1.Subject{Type: "workload", Id: "x"},
		Action: &microwallv1.Action{Name: "Get"}, Resource: &microwallv1.Resource{Type: "grpc", Id: "Cart"},
	}
	client := microwallv1.NewAuthorizationServiceClient(s.conn)
	batch := &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{item, item}}
	if answer, err := client.AuthorizeBatch(t.Context(), batch); err != nil || len(answer.GetResults()) != 2 {
		t.Errorf("two: %v, %v", answer, err)
	}
	batch.Items = append(batch.Items, item)
	if _, err := client.AuthorizeBatch(t.Context(), batch); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "batch has 3 requests, the limit is 2; split it, or raise --max-batch") {
		t.Errorf("three: %v", err)
	}
}

// A probe is told that a server stops while it still finishes what it took.
func TestAServerThatStopsIsNotReadyAndFinishesWhatItTook(t *testing.T) {
	s := newSite(t)
	stream, err := reflectionv1.NewServerReflectionClient(s.conn).ServerReflectionInfo(t.Context())
	s.must(err)
	ask := func() {
		t.Helper()
		s.must(stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}))
		answer, err := stream.Recv()
		if err != nil || len(answer.GetListServicesResponse().GetService()) == 0 {
			t.Errorf("answered %v, %v", answer, err)
		}
	}
	ask() // so that it was taken
	s.must(s.cmd.Process.Signal(syscall.SIGTERM))
	_, err = s.waitFor(`"msg":"stopping`)
	s.must(err)
	if code, text := s.get("/readyz"); code != http.StatusServiceUnavailable || text != "stopping\n" {
		t.Errorf("readyz says %d, %s", code, text)
	}
	ask()
	s.must(stream.CloseSend())
	s.must(s.wait())
}

// A client whose disk is full decides by the newest release all the same, says
// that it could not keep it, and starts again by what it could keep.
func TestAClientWithAFullDiskDecidesByTheNewestRelease(t *testing.T) {
	volume := t.TempDir()
	t.Cleanup(mountSmall(t, volume, "2m"))
	s := newSite(t)
	s.push("center", "shop", neverForbidden, "released revision 1")
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	kept := make(chan live.Event, 100)
	config := embedded.Config{NATS: s.NATS, TrustFile: s.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}, Dir: filepath.Join(volume, "client"), OnRelease: func(e live.Event) { kept <- e }}
	client, err := embedded.New(t.Context(), config)
	s.must(err)
	decides := func(action string, want bool) {
		t.Helper()
		d, err := client.Authorize(t.Context(), testkit.Request("shop.cart", action))
		if err != nil || d.Allowed != want {
			t.Errorf("%s: %v, %v", action, d.Allowed, err)
		}
	}
	decides("Get", true)
	full := filepath.Join(volume, "full")
	fill(t, full)
	s.push("cart", "shop.cart", allowsPut, "released revision 2")
	for e := range kept {
		if e, ok := e.(live.NotKept); ok {
			if e.Version.Revision != 2 || !errors.Is(e.Err, syscall.ENOSPC) {
				t.Errorf("not kept: %+v", e)
			}
			break
		}
	}
	decides("Put", true)
	decides("Get", false)
	client.Close()

	// With room again and without the broker there is the older one, which was
	// not lost.
	s.must(s.end())
	client, err = embedded.New(t.Context(), config)
	s.must(err)
	defer client.Close()
	decides("Get", true)
}

// fill writes a file until nothing more fits on its volume.
func fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// A store that others have laid out so that releases could be lost in it is not
// used: somebody has to act, and is told how.
func TestAServerEndsWhoseStoreIsNotSafeToUse(t *testing.T) {
	broker := testkit.NATS(t, t.TempDir())
	conn, err := nats.Connect(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	api, err := natsjetstream.New(conn)
	if err == nil {
		_, err = api.CreateStream(t.Context(), natsjetstream.StreamConfig{Name: "KV_policy", Subjects: []string{"$KV.policy.*.*.head"}, Storage: natsjetstream.MemoryStorage})
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := startServing(t.TempDir(), "--trust", testkit.NewDomain(t).TrustFile, "--nats", broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	if err := p.wait(); err == nil {
		t.Error("it ended without an error")
	}
	if _, err := p.waitFor(`^microwall: .*KV_policy is laid out differently, and not safe to use: .*mend it \(nats stream edit KV_policy\), or remove it and push everything again$`); err != nil {
		t.Error(err)
	}
}

// A server sweeps what nobody needs any more, from its start on. Here that cannot
// be done, which it finds out and says.
func TestAServerSweepsFromItsStartOn(t *testing.T) {
	broker, d := testkit.NATS(t, t.TempDir()), testkit.NewDomain(t)
	start := func() *serving {
		t.Helper()
		p, err := startServing(t.TempDir(), "--trust", d.TrustFile, "--nats", broker.URL(), "--max-store", "100000000")
		if err == nil {
			t.Cleanup(p.kill)
			_, err = p.waitFor(`"msg":"ready"`)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.taken = 0
		return p
	}
	if err := start().end(); err != nil { // the streams are there
		t.Fatal(err)
	}
	conn, err := nats.Connect(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	api, err := natsjetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := api.Stream(t.Context(), "BLOBS")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.DenyPurge = true
	if _, err := api.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if _, err := start().waitFor(`"level":"WARN","msg":"old chunks of bundles were not swept; trying again","error":".*denies purging`); err != nil {
		t.Error(err)
	}
}

// On a NATS server without accounts anybody may store and remove what he likes.
func TestANATSServerThatLetsEverybodyInIsWarnedOf(t *testing.T) {
	s := newSite(t, "--nats", testkit.NATS(t, t.TempDir()).URL(), "--max-store", "100000000")
	if !s.logged(`"level":"WARN","msg":"whoever reaches this NATS server may do everything there, .*nats-config.*--nats-creds`) {
		t.Error(s.text())
	}
}
