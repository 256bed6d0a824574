// Package live is the rule by which a process trusts a bundle, and the state
// that it decides with. There is one such rule, for the PDP and for the client
// that decides inside a service.
//
// A release that somebody hands over (the network, a disk, an author) goes one
// way: its signatures are verified against the trust file; it must be newer
// than the release that is held; its bundle is fetched, and its size and digest
// compared with what was signed; it is compiled, beside the state that decides
// meanwhile; then one atomic pointer is swapped to a new [Snapshot]. What fails
// on the way changes nothing: the last good release keeps deciding, and the
// refusal is an [Event] and stands in [Live.Status].
//
// A Snapshot is immutable. It knows for each namespace the [Path] of policies
// that decide a request: the guardrails above it that the trust file names,
// from the outermost in, then the namespace itself. A guardrail that is not
// loaded makes everything below it policy.Unavailable: its absence is never
// believed.
//
// [Live.Prove] takes beacons, by which it is known how old what decides is at
// most: its age is counted from the newest beacon that names it, or one that it
// followed, as the head. The age at a beacon's receipt is the difference of the
// wall clocks, at least 0; from there it only grows, whatever the wall clock is
// set to, until a later beacon proves the release again. What a key has vouched
// for that the trust file does not list any more, counts for nothing, and so does
// a beacon that knows of a newer trust file. [Path.Judge] says what follows from
// the age.
//
// The trust file itself may be replaced by a newer one, put into place by hand or
// signed by the roots of the one before. Then every release that is held is opened
// again, and one that does not open stops deciding.
//
// The bytes that were verified are kept on disk, and are verified again when
// they are loaded: a disk is believed no more than a network.
package live
