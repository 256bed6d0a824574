package metrics_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/grpc"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/clients/metrics"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

const rules = `
allow if { some i in numbers.range(1, 200); i == 150; input.action.name == "Add" }
`

// What Prometheus is told of an embedded client is what the client did.
func TestAnEmbeddedClientIsMeasured(t *testing.T) {
	d := testkit.NewDomain(t)
	url := d.ServeNATS(t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "center", "shop", `deny contains "never" if input.action.name == "Never"`)
	v := d.Push(p, "cart", "shop.cart", rules).Release.Version()
	activated := make(chan struct{})
	wall, err := embedded.New(t.Context(), embedded.Config{
		NATS: url, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}, Cache: cache.Config{Entries: 64},
		OnRelease: func(e live.Event) {
			if a, ok := e.(live.Activated); ok && a.Version == v {
				close(activated)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer wall.Close()
	select {
	case <-activated:
	case <-time.After(20 * time.Second):
		t.Fatal("the policy never arrived")
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.OfClient(wall))
	for range 100 {
		if _, err := wall.Authorize(t.Context(), testkit.Request("shop.cart", "Add")); err != nil {
			t.Fatal(err)
		}
	}
	stats := wall.Status().Cache
	if stats.Hits == 0 || stats.Misses == 0 {
		t.Fatalf("the cache was not used: %+v", stats)
	}
	got := gather(t, registry)
	for name, want := range map[string]float64{
		"microwall_cache_hits_total": float64(stats.Hits), "microwall_cache_misses_total": float64(stats.Misses),
		"microwall_cache_entries": 1, "microwall_cache_evictions_total": 0,
		"microwall_release_info shop.cart 1 1 " + v.Digest.String(): 1,
		"microwall_release_revision shop.cart 1":                    1,
		"microwall_release_revision shop 1":                         1,
		"microwall_stale shop.cart":                                 0, // no beacons are listed
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, want %v; of %v", name, value, want, got)
		}
	}
	if age := got["microwall_proof_age_seconds shop.cart"]; age < 1e300 { // no beacon was issued
		t.Errorf("age of what was never proven: %v", age)
	}
	if _, ok := got["microwall_requests_in_flight"]; ok {
		t.Error("an embedded client asks nobody")
	}
}

// Where beacons are listed and nobody issues them, it is seen at both clients.
func TestWhatIsStaleIsMeasured(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	url := d.ServeNATS(t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "center", "shop", `deny contains "never" if input.action.name == "Never"`)
	d.Push(p, "cart", "shop.cart", rules)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	inside, err := embedded.New(ctx, embedded.Config{NATS: url, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}})
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	asks, err := remote.New(ctx, remote.Config{Servers: []string{p.Addr}, Namespaces: []policy.Namespace{"shop.cart"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = asks.Close() }()
	for name, client := range map[string]prometheus.Collector{"embedded": metrics.OfClient(inside), "remote": metrics.OfClient(asks)} {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(client)
		testkit.Until(t, func() bool { _, ok := gather(t, registry)["microwall_stale shop.cart"]; return ok })
		if got := gather(t, registry)["microwall_stale shop.cart"]; got != 1 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A client that asks is measured as well, and it is seen that the PDP is dead.
func TestARemoteClientIsMeasured(t *testing.T) {
	d := testkit.NewDomain(t)
	p := d.StartPDP(d.ServeNATS(t.TempDir()).URL(), t.TempDir())
	d.Push(p, "center", "shop", `deny contains "never" if input.action.name == "Never"`)
	v := d.Push(p, "cart", "shop.cart", rules).Release.Version()
	wall, err := remote.New(t.Context(), remote.Config{Servers: []string{p.Addr}, Namespaces: []policy.Namespace{"shop.cart"}})
	if err != nil {
		t.Fatal(err)
	}
	defer wall.Close()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.OfClient(wall))
	add := func() {
		if _, err := wall.Authorize(t.Context(), testkit.Request("shop.cart", "Add")); err != nil {
			t.Fatal(err)
		}
	}
	// Until the watch has told what decides, decisions are not remembered.
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(20 * time.Second)
	for add(); wall.Status().Cache.Hits == 0; add() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("nothing is remembered: %+v", wall.Status())
		}
	}
	asked := wall.Status().Asked
	if _, err := wall.Authorize(t.Context(), testkit.Request("shop.nothing", "Add")); err == nil {
		t.Fatal("a namespace without a release was decided")
	}
	stats := wall.Status().Cache
	got := gather(t, registry)
	for name, want := range map[string]float64{
		"microwall_cache_hits_total": float64(stats.Hits), "microwall_cache_misses_total": float64(stats.Misses),
		"microwall_release_info shop.cart 1 1 " + v.Digest.String(): 1,
		"microwall_requests_asked_total":                            float64(asked) + 1, "microwall_requests_failed_total": 1, "microwall_requests_in_flight": 0, "microwall_requests_coalesced_total": 0} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, want %v; of %v", name, value, want, got)
		}
	}
}

// Of several PDPs it is seen which one is left alone, and how many calls wait.
func TestDeadAndHangingPDPsAreMeasured(t *testing.T) {
	d := testkit.NewDomain(t)
	p := d.StartPDP(d.ServeNATS(t.TempDir()).URL(), t.TempDir())
	d.Push(p, "center", "shop", `deny contains "never" if input.action.name == "Never"`)
	d.Push(p, "cart", "shop.cart", rules)
	dead := testkit.Listen(t)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	wall, err := remote.New(t.Context(), remote.Config{Servers: []string{p.Addr, dead.Addr().String()}, Cache: cache.Config{Entries: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer wall.Close()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.OfClient(wall))
	lives, died := " "+p.Addr, " "+dead.Addr().String()
	testkit.Until(t, func() bool {
		if _, err := wall.Authorize(t.Context(), testkit.Request("shop.cart", "Add")); err != nil {
			t.Fatal(err)
		}
		got := gather(t, registry)
		return got["microwall_breaker_open"+died] == 1 && got["microwall_breaker_opened_total"+died] >= 1 && got["microwall_pdp_connected"+lives] == 1
	})
	got := gather(t, registry)
	for name, want := range map[string]float64{"microwall_breaker_open" + lives: 0, "microwall_breaker_opened_total" + lives: 0, "microwall_pdp_connected" + died: 0} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, %t, want %v", name, value, ok, want)
		}
	}

	hanging := testkit.Listen(t) // takes connections, and says nothing
	defer hanging.Close()
	waits, err := remote.New(t.Context(), remote.Config{Servers: []string{hanging.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Close()
	registry = prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.OfClient(waits))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := waits.Authorize(ctx, testkit.Request("shop.cart", "Add"))
		ended <- err
	}()
	testkit.Until(t, func() bool { return gather(t, registry)["microwall_requests_in_flight"] == 1 })
	cancel()
	if err := <-ended; err == nil {
		t.Error("who says nothing has decided")
	}
	testkit.Until(t, func() bool { return gather(t, registry)["microwall_requests_in_flight"] == 0 })
}

// What would have been refused is counted apart from what was.
func TestAnEnforcerThatOnlyReportsIsMeasured(t *testing.T) {
	d := testkit.NewDomain(t)
	p := d.StartPDP(d.ServeNATS(t.TempDir()).URL(), t.TempDir())
	d.Push(p, "center", "shop", `deny contains "never" if input.action.name == "Never"`)
	d.Push(p, "cart", "shop.cart", rules)
	registry := prometheus.NewPedanticRegistry()
	for _, n := range []policy.Namespace{"shop.cart", "shop.nothing"} {
		e, err := enforce.New(enforce.Config{
			Authorizer: p.Service, Namespace: n, ReportOnly: true,
			Subject: func(context.Context, enforce.Call) (policy.Entity, error) {
				return policy.Entity{Type: "user", ID: "ann"}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		prometheus.WrapRegistererWith(prometheus.Labels{"namespace": string(n)}, registry).MustRegister(metrics.OfEnforcer(e))
		for _, method := range []string{"/shop.Cart/Add", "/shop.Cart/Remove", "/shop.Cart/Remove"} {
			if _, err := e.UnaryServer()(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := gather(t, registry)
	for name, want := range map[string]float64{
		"shop.cart allowed": 1, "shop.cart denied": 0, "shop.cart failed": 0, "shop.cart denied_and_passed": 2, "shop.cart failed_and_passed": 0,
		"shop.nothing allowed": 0, "shop.nothing failed": 0, "shop.nothing denied_and_passed": 0, "shop.nothing failed_and_passed": 3,
	} {
		if value, ok := got["microwall_enforced_calls_total "+name]; !ok || value != want {
			t.Errorf("%s: %v, %t, want %v", name, value, ok, want)
		}
	}
}

func TestAnEnforcerIsMeasured(t *testing.T) {
	d := testkit.NewDomain(t)
	p := d.StartPDP(d.ServeNATS(t.TempDir()).URL(), t.TempDir())
	d.Push(p, "center", "shop", `deny contains "never" if input.action.name == "Never"`)
	d.Push(p, "cart", "shop.cart", rules)
	who := policy.Entity{Type: "user", ID: "ann"}
	e, err := enforce.New(enforce.Config{
		Authorizer: p.Service, Namespace: "shop.cart",
		Subject: func(context.Context, enforce.Call) (policy.Entity, error) { return who, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.OfEnforcer(e))
	call := func(method string) {
		_, _ = e.UnaryServer()(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, nil })
	}
	call("/shop.Cart/Add")
	call("/shop.Cart/Remove")
	call("/shop.Cart/Remove")
	who = policy.Entity{}
	call("/shop.Cart/Add")
	got := gather(t, registry)
	for outcome, want := range map[string]float64{"allowed": 1, "denied": 2, "failed": 1, "denied_and_passed": 0, "failed_and_passed": 0} {
		if value, ok := got["microwall_enforced_calls_total "+outcome]; !ok || value != want {
			t.Errorf("%s: %v, want %v", outcome, value, want)
		}
	}
}

// gather returns each metric by its name and the values of its labels.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("names: %v %v", problems, err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := []string{f.GetName()}
			values := map[string]string{}
			for _, l := range m.GetLabel() {
				values[l.GetName()] = l.GetValue()
			}
			for _, l := range []string{"namespace", "epoch", "revision", "digest", "outcome", "server"} {
				if v, ok := values[l]; ok {
					name = append(name, v)
				}
			}
			value := m.GetGauge().GetValue()
			if m.GetCounter() != nil {
				value = m.GetCounter().GetValue()
			}
			all[strings.Join(name, " ")] = value
		}
	}
	return all
}
