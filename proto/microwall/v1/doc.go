// Package microwallv1 is the wire: messages and services generated from the
// .proto files beside this one, which are its specification. Nothing is written
// by hand here; what a message means in Go is package policy's business.
package microwallv1
