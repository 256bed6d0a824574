package main

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/microwall/microwall/bundles/live"
)

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
)

// Describe sends what Collect may send.
func (a ages) Describe(to chan<- *prometheus.Desc) {
	to <- proofAge
	to <- maxStaleness
	to <- beaconsTotal
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
}
