// Package wire says how the words of package policy look in protobuf. It is
// written once, for the server that reads a request and for the client that
// writes it, so that the two cannot disagree. Properties are read from
// protobuf in place.
package wire
