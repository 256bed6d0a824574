// Package wire says how the words of package policy look in protobuf. It is
// written once, for the server that reads a request and for the client that
// writes it, so that the two cannot disagree.
//
// A server reads a request from the bytes that came ([DecodeRequest],
// [DecodeBatch]). If they are plain, written as every encoder writes them, they
// are looked through once, and what a policy asks for is read where it stands.
// Everything else is left to protobuf's own library, which decides what it
// means and what is wrong with it, and is then read from its messages in place.
package wire
