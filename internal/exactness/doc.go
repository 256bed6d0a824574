// Package exactness holds clients to what they promise of caching: for every
// request, the cached answer equals a fresh evaluation by the versions that the
// answer names.
//
// It has tests only. They run what a domain consists of, all of it real and in
// one process: a NATS server with accounts, two PDPs that issue beacons, embedded
// and remote clients, each with a clock of its own and asked by several at once. Meanwhile
// policies are pushed and rolled back, guardrails come and go, old heads are sent
// again, PDPs are killed, held up and cut off, clients are cut off and started
// again, clocks jump, and callers give up. What happens, what is asked, and by
// which policies is made from a seed.
//
// Of each answer it is asked:
//
//   - Is it, with its reasons and obligations, what plain OPA makes of the sources
//     of the versions that it names, at the time that it names?
//   - If it was remembered: is it also what these versions say at the time by the
//     clock of the client, between the call and the answer? If not: was it that time
//     at a PDP, when that was asked by this call, or one that this one waited with?
//   - Are its versions none that are older than what an earlier call was answered
//     by, than what a token stands for that it asked for, or, if it asked for the
//     head, than what was the head when it was made?
//   - Do all of a batch say what one snapshot says at one time?
//   - If it is called stale, or denied for that: do the clocks and the trust file say
//     so? If it is not: has nothing newer been known for longer than it is believed?
//   - Is an error one that the policies make, or has something happened that
//     explains it? An error that only another caller's cancellation explains is a fault.
//
// That the tests would notice is shown by breaking the clients on purpose, in the
// ways that package internal/mutant names:
//
//	go test ./internal/exactness -mutants -timeout 1h
//
// The long form is a million operations:
//
//	go test -race ./internal/exactness -exact.ops 1000000 -timeout 2h
package exactness
