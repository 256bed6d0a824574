package main

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
)

// staleLook is how often the log is told of what has become stale.
const staleLook = 5 * time.Second

// ages are metrics of how old what decides is at most, worked out when they are
// asked for.
type ages struct{ state *live.Live }

var (
	proofAge = prometheus.NewDesc("microwall_proof_age_seconds",
		"Time since a beacon proved that the release that decides is the newest; +Inf if none has.", []string{"namespace"}, nil)
	maxStaleness = prometheus.NewDesc("microwall_max_staleness_seconds",
		"Age up to which the release that decides is believed; +Inf if the trust file lists no keys that sign beacons.", []string{"namespace"}, nil)
	beaconsTotal = prometheus.NewDesc("microwall_beacons_total",
		"Beacons by outcome: taken, or ignored (replayed, older than what is held, not believed).", []string{"outcome"}, nil)
	trustVersion = prometheus.NewDesc("microwall_trust_version", "Version of the trust file in force.", nil, nil)
)

// Describe sends what Collect may send.
func (a ages) Describe(to chan<- *prometheus.Desc) {
	to <- proofAge
	to <- maxStaleness
	to <- beaconsTotal
	to <- trustVersion
}

// Collect sends what there is now.
func (a ages) Collect(to chan<- prometheus.Metric) {
	enforced := len(a.state.Trust().Beacons()) > 0
	for _, s := range a.state.Status() {
		if s.Version.Revision == 0 {
			continue
		}
		age, most := math.Inf(1), math.Inf(1)
		if s.Age != live.Forever {
			age = s.Age.Seconds()
		}
		if enforced {
			most = s.MaxStaleness.Seconds()
		}
		to <- prometheus.MustNewConstMetric(proofAge, prometheus.GaugeValue, age, string(s.Namespace))
		to <- prometheus.MustNewConstMetric(maxStaleness, prometheus.GaugeValue, most, string(s.Namespace))
	}
	b := a.state.Beacons()
	to <- prometheus.MustNewConstMetric(beaconsTotal, prometheus.CounterValue, float64(b.Taken), "taken")
	to <- prometheus.MustNewConstMetric(beaconsTotal, prometheus.CounterValue, float64(b.Ignored), "ignored")
	to <- prometheus.MustNewConstMetric(trustVersion, prometheus.GaugeValue, float64(a.state.Trust().Version()))
}

// watchAges logs what becomes stale, and what cannot be decided for want of a
// guardrail, each time that it does, until ctx ends. That a release is fresh again
// is an event.
func (o *observer) watchAges(ctx context.Context, state *live.Live) {
	ticker := time.NewTicker(staleLook)
	defer ticker.Stop()
	said, undecided := make(map[policy.Namespace]bool), make(map[policy.Namespace]bool)
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, s := range state.Status() {
			if s.Stale && !said[s.Namespace] {
				about := []any{"namespace", s.Namespace, "revision", s.Version.Revision, "max_staleness", s.MaxStaleness.String(), "when_stale", s.WhenStale.String()}
				if !s.Proven.IsZero() {
					about = append(about, "proven", s.Proven)
				}
				if s.Unproven != nil {
					about = append(about, "error", s.Unproven)
				}
				o.log.Warn("stale: no beacon has proven in time that this is the newest release; see that NATS is reached, and that a PDP runs with --beacon-key", about...)
			}
			said[s.Namespace] = s.Stale
			switch told := undecided[s.Namespace]; {
			case s.Undecided != nil && !told:
				o.log.Error("every request in this namespace is refused", "namespace", s.Namespace, "error", s.Undecided)
			case s.Undecided == nil && told:
				o.log.Info("requests in this namespace are decided again", "namespace", s.Namespace)
			}
			undecided[s.Namespace] = s.Undecided != nil
		}
	}
}
