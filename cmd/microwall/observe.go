package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/loglimit"
	"github.com/microwall/microwall/internal/tlsfiles"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
)

// observer makes logs and metrics of the events that packages report.
type observer struct {
	log       *slog.Logger
	registry  *prometheus.Registry
	decisions *prometheus.CounterVec
	stale     *prometheus.CounterVec
	seconds   prometheus.Histogram
	revision  *prometheus.GaugeVec
	refused   *prometheus.CounterVec
	pushes    *prometheus.CounterVec
	calls     *prometheus.CounterVec
	issued    prometheus.Gauge
	doubted   prometheus.Counter
	ignored   loglimit.Limiter

	mu   sync.Mutex
	said map[string]time.Time // of what NATS says, when it was logged last
}

// mostSaid bounds what is remembered of that.
const mostSaid = 100

func newObserver(log *slog.Logger) *observer {
	o := &observer{
		log:      log,
		said:     make(map[string]time.Time),
		registry: prometheus.NewRegistry(),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "microwall_decisions_total", Help: "Decisions by namespace and outcome: allowed, denied, or the kind of error.",
		}, []string{"namespace", "outcome"}),
		stale: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "microwall_stale_decisions_total", Help: "Decisions by releases of which it was not proven in time that they are the newest, by namespace and outcome.",
		}, []string{"namespace", "outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "microwall_decision_seconds", Help: "Time that a decision took, without the call around it.",
			Buckets: prometheus.ExponentialBuckets(2e-6, 4, 10),
		}),
		revision: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "microwall_release_revision", Help: "Revision of the release that decides.",
		}, []string{"namespace", "epoch"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "microwall_releases_refused_total", Help: "Releases that were offered and refused, by kind of error.",
		}, []string{"kind"}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "microwall_pushes_total", Help: "Pushes by outcome: released, or the kind of error.",
		}, []string{"outcome"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "microwall_calls_failed_total", Help: "gRPC calls that ended with an error, by method and status code.",
		}, []string{"method", "code"}),
		issued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "microwall_beacons_issued_timestamp_seconds", Help: "Time of the beacons that this process issued last, in seconds of Unix time; 0 if it has issued none.",
		}),
		doubted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "microwall_heads_doubted_total", Help: "Alarms about heads in the store that are unsigned, older than what was there, or forks.",
		}),
	}
	o.registry.MustRegister(o.issued, o.doubted, o.decisions, o.stale, o.seconds, o.revision, o.refused, o.pushes, o.calls,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return o
}

func (o *observer) pdp(e pdp.Event) {
	switch e := e.(type) {
	case *pdp.Decided:
		// A namespace that decided, or whose policy failed, is one that exists: a
		// label for every name that somebody asks for would let strangers fill
		// the memory.
		failed := policy.KindOf(e.Err) == policy.Failed
		namespace := ""
		if failed || len(e.Decision.Versions) > 0 {
			namespace = string(e.Request.Namespace)
		}
		outcome := "denied"
		switch {
		case e.Err != nil:
			outcome = policy.KindOf(e.Err).String()
		case e.Decision.Allowed:
			outcome = "allowed"
		}
		o.decisions.WithLabelValues(namespace, outcome).Inc()
		if len(e.Decision.Stale) > 0 {
			o.stale.WithLabelValues(namespace, outcome).Inc()
		}
		o.seconds.Observe(e.Took.Seconds())
		if failed {
			o.log.Error("policy failed", "namespace", e.Request.Namespace, "error", e.Err)
		}
	case pdp.Pushed:
		o.pushes.WithLabelValues("released").Inc()
		o.log.Info("released", "namespace", e.Version.Namespace, "epoch", e.Version.Epoch, "revision", e.Version.Revision, "digest", e.Version.Digest, "signers", e.Signers, "took", e.Took)
	case pdp.TrustPushed:
		o.log.Info("trust file pushed", "version", e.Version, "digest", e.Digest)
	case pdp.Issuing:
		o.log.Info("issuing beacons")
	case pdp.StandingBy:
		o.log.Info("another PDP issues beacons; standing by", "issuer", e.Issuer)
	case pdp.Issued:
		o.issued.Set(float64(e.Time.Unix()))
	case pdp.IssueFailed:
		o.log.Warn("no beacons are issued; what clients hold grows older unless another PDP issues; trying again", "error", e.Err)
	case pdp.ClockOff:
		o.log.Error("the clock here differs from that of NATS by more than clients bear; beacons are left to other PDPs, if there are any; set the clock right", "ahead", e.Ahead.String())
	case pdp.HeadDoubted:
		o.doubted.Inc()
		o.log.Error("what the store has as the head of this namespace cannot be it", "namespace", e.Namespace, "error", e.Err)
	case pdp.PushRefused:
		o.pushes.WithLabelValues(policy.KindOf(e.Err).String()).Inc()
		o.log.Warn("push refused", "namespace", e.Namespace, "error", e.Err)
	}
}

func (o *observer) live(e live.Event) {
	switch e := e.(type) {
	case live.Activated:
		o.revision.WithLabelValues(string(e.Version.Namespace), strconv.FormatUint(e.Version.Epoch, 10)).Set(float64(e.Version.Revision))
		o.log.Info("activated", "namespace", e.Version.Namespace, "epoch", e.Version.Epoch, "revision", e.Version.Revision, "digest", e.Version.Digest, "bundle", e.Bundle, "from_disk", e.FromDisk, "took", e.Took)
	case live.Refused:
		o.refused.WithLabelValues(policy.KindOf(e.Err).String()).Inc()
		o.log.Warn("release refused; what decided before still does", "namespace", e.Namespace, "error", e.Err)
	case live.NotKept:
		o.log.Error("release decides, but could not be kept on disk: make room, or a restart without NATS goes back", "namespace", e.Version.Namespace, "revision", e.Version.Revision, "error", e.Err)
	case live.Proven:
		o.log.Info("a beacon proves that this is the newest release", "namespace", e.Version.Namespace, "epoch", e.Version.Epoch, "revision", e.Version.Revision, "time", e.Time)
	case live.Behind:
		o.log.Info("a beacon names a newer release than the one that is held; asking for it", "namespace", e.Head.Namespace, "held", e.Held.Revision, "head", e.Head.Revision)
	case live.BeaconRefused:
		level := slog.LevelWarn
		if fork := (*live.BeaconForkError)(nil); errors.As(e.Err, &fork) {
			level = slog.LevelError
		}
		o.log.Log(context.Background(), level, "beacon refused; what was proven before grows older", "namespace", e.Namespace, "more", e.More, "error", e.Err)
	case live.BeaconsNotKept:
		o.log.Warn("beacons could not be kept on disk: make room, or what decides looks older after a restart", "error", e.Err)
	case live.TrustChanged:
		o.log.Info("trust file taken over", "version", e.Version, "dropped", e.Dropped)
		for _, n := range e.Dropped {
			o.revision.DeletePartialMatch(prometheus.Labels{"namespace": string(n)})
			o.log.Error("the trust file does not open the release of this namespace any more: nothing in it is decided until a release comes that it opens", "namespace", n)
		}
		if e.NotKept != nil {
			o.log.Error("version of the trust file could not be remembered: make room, or a restart would take an older one", "error", e.NotKept)
		}
	}
}

func (o *observer) nats(e jetstream.Event) {
	switch e := e.(type) {
	case jetstream.Connected:
		o.log.Info("connected to NATS", "url", e.URL)
	case jetstream.Disconnected:
		if e.Err != nil {
			o.log.Warn("connection to NATS lost; deciding on by what is here", "error", e.Err)
		}
	case jetstream.BrokerError:
		o.brokerError(e.Err)
	case jetstream.AskFailed:
		o.log.Warn("head could not be asked for; asking again", "namespace", e.Namespace, "beacon", e.Beacon, "error", e.Err)
	case jetstream.ReadAgain:
		o.log.Warn("reading the heads again from the beginning; no beacons are issued meanwhile", "error", e.Err)
	case jetstream.SlowConsumer:
		o.log.Warn("messages were dropped; asking for all heads again", "subject", e.Subject, "dropped", e.Dropped)
	case jetstream.Remade:
		o.log.Error("the streams on NATS were removed and have been made again, empty: raise the epoch in the trust file, and push everything again")
	case jetstream.Swept:
		if e.Purged {
			o.log.Info("chunks of bundles that no release needs any more were removed", "namespace", e.Namespace, "chunks", e.Chunks)
		}
	case jetstream.SweepFailed:
		o.log.Warn("old chunks of bundles were not swept; trying again", "namespace", e.Namespace, "error", e.Err)
	case jetstream.Ignored:
		// Whoever may send anything at all can send what is ignored.
		if ok, unsaid := o.ignored.Allow(time.Now()); ok {
			o.log.Warn("message ignored", "subject", e.Subject, "more", e.More+unsaid, "error", e.Err)
		}
	}
}

// sameAgain is how long the same line about NATS is not written again: every attempt
// to connect fails in the same way.
const sameAgain = time.Minute

// brokerError logs what NATS says. What is refused needs somebody to act.
func (o *observer) brokerError(err error) {
	o.mu.Lock()
	last, now := o.said[err.Error()], time.Now()
	again := !last.IsZero() && now.Sub(last) < sameAgain
	if !again {
		if len(o.said) >= mostSaid {
			clear(o.said)
		}
		o.said[err.Error()] = now
	}
	o.mu.Unlock()
	switch {
	case again:
	case policy.KindOf(err) == policy.Denied:
		o.log.Error("NATS", "error", err)
	default:
		o.log.Warn("NATS", "error", err)
	}
}

// call logs what a caller is not told.
func (o *observer) call(e grpcapi.CallFailed) {
	status := grpcapi.Status(e.Err)
	o.calls.WithLabelValues(e.Method, status.Code().String()).Inc()
	if policy.KindOf(e.Err) == policy.Internal && !policy.Ended(e.Err) {
		o.log.Error("call failed", "method", e.Method, "peer", e.Peer, "code", status.Code(), "error", e.Err)
	}
}

func (o *observer) tls(e tlsfiles.Event) {
	switch e := e.(type) {
	case tlsfiles.Reread:
		o.log.Info("certificates were renewed")
	case tlsfiles.Refused:
		o.log.Error("changed certificates cannot be used; those before stay in use", "error", e.Err)
	}
}

// readiness is what /readyz says.
type readiness struct {
	ready    <-chan struct{} // closed once it is
	cutOff   func() bool     // whether nothing new arrives; nil: never
	stopping atomic.Bool
}

func (r *readiness) isReady() bool {
	select {
	case <-r.ready:
		return true
	default:
		return false
	}
}

// newHTTP serves what probes and Prometheus ask for, and nothing else: it may
// leave loopback.
func newHTTP(r *readiness, o *observer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case r.stopping.Load():
			say(w, http.StatusServiceUnavailable, "stopping")
		case !r.isReady():
			say(w, http.StatusServiceUnavailable, "not loaded yet: NATS was not reached, and no release is on disk")
		case r.cutOff != nil && r.cutOff():
			say(w, http.StatusOK, "ok, but without NATS: what is here decides on, and nothing new arrives; the log says why")
		default:
			say(w, http.StatusOK, "ok")
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.registry, promhttp.HandlerOpts{}))
	return mux
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // whoever asked is gone
}
