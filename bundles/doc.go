// Package bundles is what a bundle, a release and trust are: it builds, signs
// and opens them. It works on bytes; it knows no Rego and no network.
//
// # Bundle
//
// A bundle is the policy and the data of one namespace, in the form of an OPA
// bundle, so that OPA's own tools read it. An author keeps it as a folder
// ([Read]); everywhere else it is a tar of which there is exactly one for a
// given content ([Bundle.Tar]). The SHA-256 sum of that tar is the bundle's
// identity ([Bundle.Digest]). Compression ([Pack]) is transport and has no
// identity. The tar is
//
//	.manifest
//	data.json
//	the *.rego files, tests (*_test.rego) among them, in bytewise order of path
//
// and two blocks of zeros, nothing else. Each header is POSIX ustar
// (IEEE Std 1003.1, pax, "ustar Interchange Format"): a regular file, mode
// 0644, owner and group 0 without names, no time. A path is relative, clean,
// slash-separated, printable UTF-8 without a backslash or a hidden element, and
// fits ustar's 100 bytes of name and 155 of prefix, which is taken only when
// the name alone is too small, and then ends at the last slash that it can.
//
// JSON has one spelling: UTF-8, no white space, members in bytewise order of
// their names, each once, strings with the fewest and shortest escapes
// (RFC 8785, section 3.2.2.2), and numbers as their author wrote them, because
// Rego's are not limited to doubles. It is nested at most 128 deep.
//
// The manifest is OPA's, without what could bring v0 Rego or code of another
// kind: rego_version is 1; roots are sorted and default to [""]; wasm is
// refused; file_rego_versions may say 1 only and is then left away, as it says
// nothing. metadata is the author's, but for metadata.microwall, whose one
// member, namespace, names the namespace that the bundle is for.
//
// [Parse] takes such a tar and nothing else: what it accepts, encoded again, is
// the same bytes. So two bundles that differ in anything have two digests, and
// nobody can say one thing to OPA and another to Microwall.
//
// # Release
//
// A release puts one bundle into one namespace as revision N. It is a signed
// note (golang.org/x/mod/sumdb/note, Ed25519) whose text is
//
//	microwall release v1
//	namespace: boutique.cart
//	epoch: 1
//	revision: 7
//	previous: sha256:...
//	bundle: sha256:...
//	size: 10240
//	created: 2026-11-23T10:00:00Z
//	author: cart team
//	source: 3f2c9e1
//	max-staleness: 3600s
//	when-stale: serve
//	canary: -
//	patch: -
//
// with every line present, in this order, and "-" for none. One value has one
// spelling. Anything more needs a v2. The SHA-256 sum of this text, without
// the signatures, is the release's digest.
//
// # Beacon
//
// A beacon says that at a time these releases were the heads of their
// namespaces: the proof by which whoever decides knows that it is not behind.
// It is a signed note, too, whose text is
//
//	microwall beacon v1
//	domain: boutique
//	time: 2026-11-23T10:00:00.250Z
//	trust: 3
//	head: boutique.cart 1 7 sha256:...
//
// with the newest version of the trust file that had been pushed ("-" for none),
// and one head line for each namespace that it speaks of: epoch, revision and
// digest of the release, sorted by namespace. Of others it says nothing.
// [Trust.OpenBeacon] takes it from one of the keys that the trust file lists
// under beacons, and from nobody else.
//
// # Trust
//
// A [Trust] is a parsed trust.yaml: which keys may sign what. [Trust.Open] is
// the only maker of a [Signed], and only a Signed unpacks a bundle
// ([Signed.Unpack]), so that nothing is believed that nobody signed, and no
// size, path or number is acted upon before its signature was verified.
// [Follow] lets a release only be replaced by a later one.
//
// A trust file travels as a signed note, whose text is the line "microwall trust
// v1" and the file as it is. [Trust.Next] takes the file of the next version, if
// enough roots of the one before and of its own have signed it.
//
// All errors have a kind of package policy: what is malformed is BadRequest,
// what is over a limit Exhausted, what is not trusted Denied, what is out of
// order Conflict.
//
// Everything here is safe for concurrent use; nothing starts a goroutine.
package bundles
