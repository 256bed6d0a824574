// Package pdp is the Policy Decision Point as a service: [Service] decides, and
// reports what it decided; [Releases] is its administration point (PAP), which
// takes releases from authors and hands them out.
//
// Both trust nothing but signatures: a release goes through the same door
// (package bundles/live) whether an author pushes it or the network brings it.
// What is decided by releases that nobody has proven in time to be the newest, is
// handed out as their authors said: named as stale, or denied.
//
// Neither knows how it is reached; package pdp/grpcapi is one way.
package pdp
