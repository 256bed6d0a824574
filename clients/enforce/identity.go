package enforce

import (
	"crypto/tls"
	"crypto/x509"
	"strings"

	"github.com/microwall/microwall/policy"
)

// verifiedLeaf returns the certificate that the peer of a connection has shown and
// crypto/tls has verified, nil if there is none.
func verifiedLeaf(state *tls.ConnectionState) *x509.Certificate {
	// PeerCertificates are what the peer says; only the chains are verified. What
	// comes before the handshake ends, as with QUIC, may be somebody's replay.
	if state == nil || !state.HandshakeComplete || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	return state.VerifiedChains[0][0]
}

// identify returns the SPIFFE ID in a verified certificate, "" if that is nil. A
// domain that is not "" is the only one that it may be of.
func identify(leaf *x509.Certificate, domain string) (string, error) {
	if leaf == nil {
		return "", nil
	}
	if n := len(leaf.URIs); n != 1 {
		return "", policy.Errorf(policy.Denied, "the client certificate has %d URIs, and a workload's has one: its SPIFFE ID; issue it anew", n)
	}
	if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return "", policy.Errorf(policy.Denied, "the client certificate is one of an authority, which is no workload")
	}
	id := leaf.URIs[0].String()
	if !validID(id) {
		return "", policy.Errorf(policy.Denied, "the URI of the client certificate, %.300q, is no SPIFFE ID of a workload, such as spiffe://boutique.example/ns/default/sa/frontend", id)
	}
	if domain != "" && !strings.HasPrefix(id[len(scheme):], domain+"/") {
		return "", policy.Errorf(policy.Denied, "%s calls, which is not of the trust domain %s", id, domain)
	}
	return id, nil
}

const (
	scheme    = "spiffe://"
	maxID     = 2048
	maxDomain = 255
)

// validID reports whether s is the SPIFFE ID of a workload as the standard spells
// it: with a path, and without anything that could be spelled in another way.
func validID(s string) bool {
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok || len(s) > maxID {
		return false
	}
	domain, path, ok := strings.Cut(rest, "/")
	if !ok || !validDomain(domain) {
		return false
	}
	for more := true; more; {
		var segment string
		segment, path, more = strings.Cut(path, "/")
		if segment == "" || segment == "." || segment == ".." || !consists(segment, true) {
			return false
		}
	}
	return true
}

func validDomain(s string) bool { return s != "" && len(s) <= maxDomain && consists(s, false) }

// consists reports whether s has only characters that names in a SPIFFE ID have:
// large letters in paths alone.
func consists(s string, large bool) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		case large && 'A' <= c && c <= 'Z':
		default:
			return false
		}
	}
	return true
}
