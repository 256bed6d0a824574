// Package jetstream is the NATS side of Microwall: it makes releases durable
// ([Store]) and brings them to whoever decides ([Follower]).
//
// It moves bytes and believes nothing. A note is not opened here, a bundle not
// unpacked; what arrives is handed to a callback that verifies it. So nothing
// in this package can make a wrong release decide, whatever the broker or
// another of its users does; it can only bring a release late.
//
// # Layout
//
// Two streams on disk hold all there is, and two in memory what is said again in
// a moment. A namespace is one token of a subject: its dots are written "_",
// which no label contains.
//
//	KV_policy  $KV.policy.<domain>.<namespace>.head
//	           The head of each namespace and up to 99 before it. Once stored, it
//	           is published once more, on pdp.head.<domain>.<namespace>.
//	           $KV.policy.<domain>.<namespace>.sweep
//	           Marks: which chunks are lost, see below. Heads and marks go in by
//	           compare-and-swap on the sequence number of the last message of
//	           either in the namespace. Nothing is deleted, purged or rolled up,
//	           except that the oldest of a subject makes room. NATS' key-value
//	           tools can read it as the bucket "policy".
//	BLOBS      pdp.blob.<domain>.<namespace>.<SHA-256 in hexadecimal>
//	           Chunks of packed bundles, 512 KiB each but the last, under the
//	           sum of their bytes. A subject that holds a message takes no other.
//
//	BEAT       pdp.beatin.<domain>.<namespace>
//	           The newest beacon of each namespace, published once more on
//	           pdp.beat.<domain>.<namespace>.
//	STATUS     pdp.status.<domain>.<namespace>.<principal>.<instance>
//	           What each client last said of itself, for five minutes at most, in
//	           2 KiB at most. What is newer pushes out what is older: there is
//	           room for 100,000 or 64 MiB, and NATS divides it among nobody. See
//	           [Store.Statuses].
//
// The first two are files, refuse new messages when they are full, and never let
// a message expire. All answer direct gets. [OpenStore] refuses streams that
// differ in what safety depends on.
//
// Besides, PDPs are asked on pdp.confirm.<domain>.<namespace>.head; see
// [ServeConfirm].
//
// A token on the head stream that begins with "-", as no label does, is no
// namespace but one of ours: "-tick" and "-confirm" are ticks, "-trust" says which
// version of the trust file is the newest. The versions themselves are under
// pdp.blob.<domain>.-trust.<version>, each stored once and for all; [TrustFollower]
// brings them, one by one.
//
// # Accounts
//
// The streams are in the account STORE. Clients are in another, one for each
// domain and with its name, which has no JetStream and imports from STORE, by
// wildcards over all namespaces and under short names:
//
//	ask.<namespace>.head          a direct get of the head
//	ask.<namespace>.beat          a direct get of the newest beacon
//	ask.<namespace>.blob.<sum>    a direct get of a chunk
//	ask.<namespace>.confirm.head  pdp.confirm.<domain>.<namespace>.head
//	hear.<namespace>.head         pdp.head.<domain>.<namespace>
//	hear.<namespace>.beat         pdp.beat.<domain>.<namespace>
//	say.<principal>.<namespace>.<instance>
//	                              pdp.status, to be stored
//
// The permissions of its user narrow each client to its namespaces and their
// guardrails; see [Principal]. A broker keeps them for each connection anew, with
// a node for every token: in the streams' own names they took more memory than all
// else that a client costs. [Accounts] writes all this down for nats-server.
//
// Nobody guesses in which account a connection is: who makes a [Follower], or asks,
// says as which [Kind] of principal. To a broker without these accounts a client
// says that nobody answers, and that `microwall nats-config` makes them.
//
// What a client asks for is answered in its own account, wherever it wants the
// answer to go. So it cannot have the broker write into a stream, as it could if
// it lived in STORE: there a user who may do nothing but read one head can
// overwrite another, by naming that subject as the place for the answer. Nor does
// an answer pass from the domain's account into STORE, as a status report or a
// question to a PDP: that holds because of where the imports have their wildcards,
// and is tested. What a client can do is
// to have a genuine message delivered to others in the wrong place. Such a
// message says where it was stored, so a [Follower] ignores it before it can take
// the place of another, counts it, and says so every few seconds at most ([Ignored]).
// Of its own a client stores its status reports, under its own name.
//
// The forms of a direct get that name what they want in their body (by number,
// the next one, many, in batches) cannot be permitted for some subjects only, so
// they are not exported. The trust file is for everybody.
//
// NATS knows no way to forbid a token that is a wildcard taken literally to somebody
// whom a wildcard permits. So who may ask for all namespaces, as a fleet reader may and
// whoever shows no credentials, is handed the newest of all heads when it asks for "*";
// and that may be a tick, whose own name it may not say. There is no secret in a tick:
// which PDP issues, and a random word that has been used. The clients of some
// namespaces may not ask for "*".
//
// An inbox begins with the name of its principal ([InboxPrefix]), so that nobody
// can listen for answers to others.
//
// A connection leaves this machine by TLS only, unless [ConnectOptions] say that
// something else encrypts.
//
// # The head message
//
//	note
//	note NUL "I" packed bundle        1 to 65,536 bytes
//	note NUL "C" sums of the chunks   32 bytes each, 1 to 2,048 of them
//
// The first form is a retirement. A note holds no NUL.
//
// # Publishing
//
// [Store.Put] stores the chunks, then the head. A crash in between leaves
// chunks that nobody refers to, never a head without its bundle; the same Put
// again finds them and goes on. Whether a Put whose acknowledgement was lost
// has happened is read from the stream's leader: the first message behind the
// one that it was to follow is its own, another author's, or not there yet. Each
// says which one it follows, so that it is noticed if what came first has made room.
//
// # Sweeping
//
// As many heads are kept as the head stream keeps messages of a subject, and
// with them their chunks. [Store.Sweep] removes chunks that no kept head names.
// A publisher may at that moment find one of them stored, and be about to name
// it. What keeps the two apart does not depend on time:
//
//   - A sweeper first marks: a message in the namespace that lists chunks, each
//     with its sequence number, which no head names, and which are lost from then
//     on. Only marked chunks are ever purged, and only up to the number that was
//     marked. The next mark lists others only once all of these are gone. A
//     number is never used again: a stream that is made anew begins behind all
//     that are marked.
//   - A publisher reads the newest mark before it looks for its chunks. One that
//     it finds stored under a number that is marked it purges and stores anew,
//     under a higher number.
//   - Heads and marks of a namespace go in by compare-and-swap on one another, and
//     each says which mark and head are the newest. So a head goes in only if its
//     publisher knew every mark there is, and a mark only if its sweeper had read
//     every head there is.
//
// Hence a chunk that a head names was not marked before, under that number, or
// its publisher had known; and is not marked later, as long as the head is kept,
// or its sweeper had known. Whoever is killed in between leaves a mark that the
// next sweeper goes on from, or chunks that the next one marks. Several may sweep
// at once: one of them wins each step.
//
// What is older than a day is marked, and a quarter of an hour passes between
// marking, purging, and marking again, one step a round; each by the clock of the
// server that leads the stream of what is waited for, whatever those of the sweepers
// say. So publishers are rarely disturbed; and a server that was deposed as the leader
// of the chunks and does not know it yet, so that it shows a chunk that is gone, shows
// one of those in the newest mark. That holds while the clocks of the broker's servers
// are within a few minutes of each other, as another one may lead by then; if they are
// not, a bundle whose chunk is gone is to be pushed again. A Put takes five minutes at
// most.
//
// Whoever removes one stream while a sweeper is at work takes this order away:
// remove both. A store makes them anew behind all numbers that it has seen there, and a
// sweeper looks whether its mark is still there before it purges anything; so what
// sweepers and authors know of the old streams does no harm in the new ones.
// If somebody makes them who has not seen the old ones, or they had come beyond number
// 16,777,216 (a server whose disk is full counts far beyond what it stores), they begin
// with 1. If then everything is released again, all while a sweeper's request is on its
// way, its mark stops further sweeps, which say so, or its purge takes a chunk: push
// that bundle again.
//
// # Following
//
// A client needs no JetStream consumer: a core subscription on the republished
// subject, and direct gets of its own head and chunk subjects. It subscribes
// first and gets second, so that what is released in between is not missed. It
// gets again after every reconnect, twice, a few seconds apart, because a direct
// get may be answered by a replica that is behind; after messages were dropped;
// and on a slow poll, because a push may be lost.
// A subscription that the broker refuses, or drops when it is told of other permissions,
// it gives back to nobody; so it is made again on each poll ([Follower.Tell], [Deaf]).
//
// Who follows all namespaces learns them from a list. A push of one that is not
// in it carries nothing but a reason to list again, at most twice a second or
// so, since names can be made up without end. Nothing else is remembered of it.
//
// A client that takes beacons hears and gets them in the same way. A beacon that
// names a head which the client does not hold has the head asked for at once, so
// that a lost push costs seconds, not a poll.
//
// # Ticks
//
// A [Log] reads the head stream in its order, from the newest head of each
// namespace on, by one consumer without gaps. [Log.Tick] takes the time, stores
// a message on that same stream, and waits until the log comes upon it: then it
// has taken whatever was released before that time. That is what a beacon says.
// A reading of which anything is lost, or whose stream is removed, ends, and the
// log begins again; no tick spans two readings.
//
// Those who issue beacons tick by compare-and-swap, so that one at a time does;
// [Log.LastTick] says who, and how long ago. Nobody signs a tick: who may write
// to the stream can keep others from issuing, and nothing more.
//
// The sequence numbers of the broker order what is offered first and nothing
// else: they may be forged, and begin again when a stream is made anew. What is
// older is for the callback to refuse.
package jetstream
