// Package embedded decides inside the service that asks: no network hop, and no
// PDP that could be down. A [Client] follows the releases of its namespaces over
// NATS, verifies and compiles them itself, keeps the last good ones on disk, and
// caches decisions exactly.
//
// A client needs a trust file, which says whose signatures it believes, and a
// NATS server, or a directory, to hear of releases ([Mode]). It believes nothing else: neither NATS, nor
// the PDP that stored a release there, nor its own disk. Without NATS it decides
// on by what it holds; it starts by what is on disk.
//
// How old that may be, without a beacon that proves it to be the newest, its
// authors and the trust file say. Past that a decision names what is stale, or
// is a denial: see policy.Decision.Stale.
package embedded
