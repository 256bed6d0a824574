// Package tlstest makes certificate authorities and certificates, as files, for
// tests that speak TLS.
package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a certificate authority.
type CA struct {
	// File has its certificate in PEM form.
	File string

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA returns a new authority, whose file is gone when the test ends.
func NewCA(t testing.TB) *CA {
	t.Helper()
	key := newKey(t)
	number := serial(t)
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{CommonName: "test authority " + number.String()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	ca := &CA{File: filepath.Join(t.TempDir(), "ca.pem"), cert: cert, key: key}
	Replace(t, ca.File, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return ca
}

// Issue writes a certificate with the given common name, for servers on
// loopback and for clients, and its key. It returns the names of the files.
func (ca *CA) Issue(t testing.TB, name string) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	ca.Renew(t, name, cert, key)
	return cert, key
}

// IssueURIs is Issue with URIs in the certificate: one, a SPIFFE ID, for a
// workload.
func (ca *CA) IssueURIs(t testing.TB, uris ...string) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	ca.write(t, "workload", cert, key, uris...)
	return cert, key
}

// Renew is Issue into files that may exist.
func (ca *CA) Renew(t testing.TB, name, cert, key string) {
	t.Helper()
	ca.write(t, name, cert, key)
}

func (ca *CA) write(t testing.TB, name, cert, key string, uris ...string) {
	t.Helper()
	var parsed []*url.URL
	for _, uri := range uris {
		u, err := url.Parse(uri)
		must(t, err)
		parsed = append(parsed, u)
	}
	private := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs: parsed, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}, ca.cert, private.Public(), ca.key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	Replace(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	Replace(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Replace writes a file by a rename, as whoever renews certificates does.
func Replace(t testing.TB, path string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", content, 0o600))
	must(t, os.Rename(path+".new", path))
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	must(t, err)
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
