// Package cluster runs a cluster of three real nats-server processes for tests,
// and does to it what happens to clusters: kills, pauses and restarts its
// servers, and cuts the way to them.
//
// The servers are built from the very module that go.mod requires, each is a
// process of its own on loopback, and all sync every write before it is
// acknowledged, as operators are told to. They end with the test.
package cluster
