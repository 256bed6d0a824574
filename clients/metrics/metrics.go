// Package metrics collects for Prometheus what a client and an enforcer say of
// themselves:
//
//	registry.MustRegister(metrics.OfClient(wall), metrics.OfEnforcer(enforcer))
//
// It asks when Prometheus asks, and keeps nothing. Labels are namespaces that are
// held, the release that decides there, PDPs as they are configured, and outcomes:
// nothing that a caller sends. A metric that the PDP has as well
// has the same name and means the same. The hit ratio is
//
//	rate(microwall_cache_hits_total[5m]) / (rate(microwall_cache_hits_total[5m]) + rate(microwall_cache_misses_total[5m]))
//
// A process with two clients, or two enforcers, registers each with a label of its
// own, by prometheus.WrapRegistererWith.
//
// Who imports this links neither OPA nor NATS nor gRPC by it: what is measured is
// known by its methods alone.
package metrics

import (
	"iter"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/policy"
)

// Status is what every client's Status says.
type Status interface {
	// CacheStats counts what the decision cache did.
	CacheStats() cache.Stats
	// Releases yields the releases that decide and the age of their proof, negative
	// if there is none.
	Releases() iter.Seq2[policy.Version, time.Duration]
	// Staleness yields whether what decides in a namespace is older than it is
	// believed without proof.
	Staleness() iter.Seq2[policy.Namespace, bool]
}

// asking is what the Status of a client says that asks others.
type asking interface {
	// Asking counts the requests that wait for an answer now, those that were asked
	// and failed since the start, and those that another one's answer was for.
	Asking() (waiting int, asked, failed, coalesced uint64)
	// Breakers calls yield for each one that can be asked: whether it is left alone
	// now, how often that began, and whether there is a connection to it.
	Breakers(yield func(server string, open bool, opened uint64, connected bool))
}

var (
	hits      = desc("microwall_cache_hits_total", "Decisions that were found in the cache.")
	misses    = desc("microwall_cache_misses_total", "Decisions that were looked up in the cache and not found.")
	evictions = desc("microwall_cache_evictions_total", "Decisions that the cache let go of to make room.")
	entries   = desc("microwall_cache_entries", "Decisions in the cache.")
	bytes     = desc("microwall_cache_bytes", "Bytes that the cache takes, roughly.")
	waiting   = desc("microwall_requests_in_flight", "Calls that wait for an answer of a PDP.")
	asked     = desc("microwall_requests_asked_total", "Requests that were put to a PDP, each one of a batch.")
	failed    = desc("microwall_requests_failed_total", "Requests that were put to a PDP and got an error instead of a decision.")
	coalesced = desc("microwall_requests_coalesced_total", "Requests that were answered by the call of another one that was the same.")
	open      = desc("microwall_breaker_open", "1 while a PDP is left alone, as it has not answered lately.", "server")
	opened    = desc("microwall_breaker_opened_total", "How often it began that a PDP was left alone.", "server")
	connected = desc("microwall_pdp_connected", "1 while there is a connection to a PDP.", "server")
	info      = desc("microwall_release_info", "1 for the release that decides.", "namespace", "epoch", "revision", "digest")
	revision  = desc("microwall_release_revision", "Revision of the release that decides.", "namespace", "epoch")
	age       = desc("microwall_proof_age_seconds", "Time since a beacon proved that the release that decides is the newest; +Inf if none has.", "namespace")
	stale     = desc("microwall_stale", "1 while the release that decides, or a guardrail above it where that is known, has been without proof for longer than it is believed.", "namespace")
	enforced  = desc("microwall_enforced_calls_total", "Calls by what became of them: allowed, denied or failed; denied_and_passed and failed_and_passed where the enforcer only reports.", "outcome")

	ofClient   = []*prometheus.Desc{hits, misses, evictions, entries, bytes, waiting, asked, failed, coalesced, open, opened, connected, info, revision, age, stale}
	ofEnforcer = []*prometheus.Desc{enforced}
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// OfClient returns a collector of what a client says: an embedded or a remote one.
func OfClient[S Status](client interface{ Status() S }) prometheus.Collector {
	return collector{ofClient, func(to chan<- prometheus.Metric) {
		status := client.Status()
		c := status.CacheStats()
		counter(to, hits, c.Hits)
		counter(to, misses, c.Misses)
		counter(to, evictions, c.Evictions)
		gauge(to, entries, float64(c.Entries))
		gauge(to, bytes, float64(c.Bytes))
		if a, ok := any(status).(asking); ok {
			w, n, f, shared := a.Asking()
			gauge(to, waiting, float64(w))
			counter(to, asked, n)
			counter(to, failed, f)
			counter(to, coalesced, shared)
			a.Breakers(func(server string, isOpen bool, n uint64, isConnected bool) {
				gauge(to, open, one(isOpen), server)
				counter(to, opened, n, server)
				gauge(to, connected, one(isConnected), server)
			})
		}
		for v, old := range status.Releases() {
			namespace, epoch := string(v.Namespace), strconv.FormatUint(v.Epoch, 10)
			gauge(to, info, 1, namespace, epoch, strconv.FormatUint(v.Revision, 10), v.Digest.String())
			gauge(to, revision, float64(v.Revision), namespace, epoch)
			seconds := old.Seconds()
			if old < 0 {
				seconds = math.Inf(1)
			}
			gauge(to, age, seconds, namespace)
		}
		for n, is := range status.Staleness() {
			gauge(to, stale, one(is), string(n))
		}
	}}
}

// OfEnforcer returns a collector of what an enforcer counts.
func OfEnforcer[S interface {
	Outcomes() iter.Seq2[string, uint64]
}](enforcer interface{ Stats() S }) prometheus.Collector {
	return collector{ofEnforcer, func(to chan<- prometheus.Metric) {
		for outcome, n := range enforcer.Stats().Outcomes() {
			counter(to, enforced, n, outcome)
		}
	}}
}

// collector sends what there is now, of what it describes.
type collector struct {
	descs   []*prometheus.Desc
	collect func(chan<- prometheus.Metric)
}

// Describe sends what Collect may send.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect sends what there is now.
func (c collector) Collect(to chan<- prometheus.Metric) { c.collect(to) }

func counter(to chan<- prometheus.Metric, d *prometheus.Desc, n uint64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func gauge(to chan<- prometheus.Metric, d *prometheus.Desc, n float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
