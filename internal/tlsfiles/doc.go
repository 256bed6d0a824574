// Package tlsfiles makes TLS configurations of PEM files, for a server and for
// its clients, so that certificates are read and refused in one way.
//
// Files change: certificates are renewed by whoever issues them, without a
// restart. [Client] reads the files at the time it is called, so a client calls
// it for each connection. [Server] returns a configuration that compares the
// files with what it last read at every handshake. Connections that stand are
// not touched.
//
// TLS is 1.2 or later. A server hands out no session tickets: with one a client
// could come back whose certificate would not be accepted any more.
package tlsfiles
