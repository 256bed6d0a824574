// Package enforce is the enforcement point (PEP) that a service wires in: gRPC
// interceptors and net/http middleware that make a request of a call, ask an
// Authorizer, and let the call pass or not.
//
// # How a call becomes a request
//
//	           gRPC                                        HTTP
//	subject    {workload, SPIFFE ID}                       the same
//	action     the method: AddItem                         the method: GET
//	resource   {grpc, hipstershop.CartService}             {route, /cart/{id}}, properties.path: /cart/7
//	context    call_path, call_path_claimed                the same
//
// The subject is the SPIFFE ID in the client certificate that crypto/tls has
// verified: the certificate's only URI, of a leaf. So tls.Config.ClientAuth must
// be [crypto/tls.RequireAndVerifyClientCert], or VerifyClientCertIfGiven where
// others call as well, and ClientCAs the authorities of one trust domain: whoever
// may sign for one name in there may sign for all. A certificate that crypto/tls
// did not verify is none: so is one that only VerifyPeerCertificate has looked at,
// as by go-spiffe. A verified one that does not say who shows it, by exactly one
// such ID, is an error. No header ever names the subject.
//
// Without a certificate there is no subject, unless [Config.Subject] names one. So
// it is behind a proxy that ends TLS, whatever headers that sends.
//
// # The path and the route
//
// properties.path is the decoded path, as it was sent: what [http.StripPrefix] cut
// off before stands before it again, and before the route. A path that could be
// read as two is refused: one with an encoded slash, with an empty segment, or
// with . or .. in it, encoded or not. Otherwise a policy would be asked for
// /public/..%2Fsecret, and a file server would serve /secret.
//
// The route is the pattern that is going to match, of the innermost [http.ServeMux]
// that can be seen: one that is the next handler itself, or a handler of such. It
// has no method, which is the action, and keeps its host. Beware of "/" there: it
// matches what nothing else does, and "/{$}" is the home page alone. So it is with
// "/sub/" where another ServeMux stands behind http.StripPrefix("/sub", ...), which
// hides it: put the enforcer between the two. A pattern for GET serves HEAD as well,
// which is an action of its own. What matches no pattern is 403, not 404, and counts
// as failed.
//
// Whoever changes a request behind the enforcer (its path, its method by a header
// that overrides it, its message) serves something else than was decided.
//
// # The call path
//
// context.call_path lists SPIFFE IDs from the edge on and ends with the subject.
// Only the last one is proven. Those before are what the peer says of who called
// it, in [Header]; context.call_path_claimed is how many they are. A policy may
// believe them as far as it believes the subject: to deny by a claim is always
// right, to allow by one is to trust the subject with it.
//
// The header must be there once at most and have one spelling, SPIFFE IDs with
// commas between. One that is malformed, or makes the path too long, is an error:
// a path is never cut. Without a certificate there is no call path, whatever the
// header says.
//
// A service that calls others sends the path that it was called by, with
// [UnaryClient], [StreamClient] and [Transport]. They append this service to it
// without naming it: whoever is called does, by the certificate. They replace
// a header that was copied from elsewhere. They take the path from the context,
// so that calls must be made with the context of the call that they serve. They
// tell whoever is called who called: use them within the trust domain.
//
// # What passes
//
// A call passes if the decision allows it and every obligation was handed to its
// handler in [Config.Obligations], and met. Everything else is refused, and fails
// closed: a denial, an obligation without a handler, a handler that fails, a
// callback that panics, and every error in place of a decision. What will not
// pass when it is tried again is PERMISSION_DENIED or 403; what may (the kinds
// policy.Unavailable and policy.Exhausted, and a context that ended) is
// UNAVAILABLE or 503. The peer is told no more, unless [Config.Explain] says so.
//
// A stream is decided when it is opened: before anything of it is read or sent, not
// by what is sent on it, and not again. So is a connection that an HTTP handler
// takes over. The message of a unary call has been read by then, if it is not
// larger than the server takes. A connection is as trusted as its certificate was when it was made,
// or the session that it resumes; bound its age (grpc keepalive's
// MaxConnectionAge) where certificates are short-lived, and set
// tls.Config.SessionTicketsDisabled where they are revoked.
//
// Interceptors see every call of their server that has a handler, health checks,
// reflection and grpc.UnknownServiceHandler included: serve those on another
// listener, or leave them to a policy. A server needs both interceptors: gRPC asks
// each for its own kind of calls.
//
// # The first days
//
// [Config.ReportOnly] has every call pass: a denial, an obligation that is not met,
// a dead PDP, a callback that panics. It decides all the same, and tells
// [Config.Events] and [Enforcer.Stats] what would have been refused. Only the
// service sets it: no caller, no policy and no PDP can. A call whose path could not
// be read goes on with one that is refused by whoever enforces farther on.
package enforce
