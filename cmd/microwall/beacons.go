package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
)

// issuer is how this process issues beacons. The key must be listed now; if it
// is taken out later, nothing is issued until it is listed again.
func (f *serveFlags) issuer(state *live.Live, o *observer) (pdp.IssuerConfig, error) {
	key, err := bundles.LoadSigner(f.beaconKey)
	if err != nil {
		return pdp.IssuerConfig{}, err
	}
	if err := pdp.CheckBeaconKey(state.Trust(), key); err != nil {
		return pdp.IssuerConfig{}, policy.Errorf(policy.KindOf(err), "--beacon-key %s: %w", f.beaconKey, err)
	}
	return pdp.IssuerConfig{Live: state, Key: key, Name: issuerName(f.dataDir), Events: o.pdp, NATS: o.nats}, nil
}

// issuerName names this process among those that issue beacons, and the next one
// with the same folder on the same machine.
func issuerName(dataDir string) string {
	const most = 200
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	if dir, err := filepath.Abs(dataDir); err == nil {
		dataDir = dir
	}
	name := host + ":" + dataDir
	return name[:min(len(name), most)]
}

// issue issues beacons, and confirms heads, until ctx ends.
func (f *following) issue(ctx context.Context, work *sync.WaitGroup) error {
	config := f.issuer
	config.Store = f.store.Load()
	issuer, err := pdp.NewIssuer(config)
	if err != nil {
		return err
	}
	// Both fail only with the connection, and then so does the follower.
	work.Go(func() { _ = issuer.Run(ctx) })
	work.Go(func() {
		_ = jetstream.ServeConfirm(ctx, jetstream.ConfirmConfig{Conn: f.config.Conn, Domain: f.config.Domain, Confirm: issuer.Confirm, Events: f.observer.nats})
	})
	return nil
}

// confirm has whichever PDP of the domain signs beacons, often this one, say what
// the head of a namespace is now.
func (f *following) confirm(ctx context.Context, ns policy.Namespace) (*bundles.SignedBeacon, error) {
	if err := f.state.Confirmable(ns); err != nil {
		return nil, err
	}
	begin := time.Now()
	note, err := jetstream.Confirm(ctx, f.config.Conn, jetstream.PDP, f.config.Domain, ns)
	if err != nil {
		return nil, err
	}
	beacon, _, err := f.state.Confirmed(ns, note, begin)
	return beacon, err
}
