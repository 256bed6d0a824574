package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"

	"github.com/microwall/microwall/policy"
)

const minVersion = tls.VersionTLS12

// file is a PEM file and the flag that names it.
type file struct{ flag, path string }

func (f file) read() ([]byte, error) {
	raw, err := os.ReadFile(f.path)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "%s: %w; name a PEM file that this user may read", f.flag, err)
	}
	return raw, nil
}

// roots reads certificates of authorities. All of the file must be that: a
// damaged certificate that is passed over is found only when it is missed.
func (f file) roots(raw []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	n := 0
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		n++
		if block.Type != "CERTIFICATE" {
			return nil, policy.Errorf(policy.BadRequest, "%s: block %d of %s is a %s; the file holds the certificates of authorities and nothing else", f.flag, n, f.path, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, policy.Errorf(policy.BadRequest, "%s: certificate %d of %s is damaged: %w; get the file again", f.flag, n, f.path, err)
		}
		pool.AddCert(c)
	}
	if n == 0 {
		return nil, policy.Errorf(policy.BadRequest, "%s: %s has no certificate in PEM form (-----BEGIN CERTIFICATE-----)", f.flag, f.path)
	}
	return pool, nil
}

// pair reads a certificate chain and its key.
func pair(cert, key file, rawCert, rawKey []byte) (tls.Certificate, error) {
	c, err := tls.X509KeyPair(rawCert, rawKey)
	if err != nil {
		return tls.Certificate{}, policy.Errorf(policy.BadRequest, "%s %s and %s %s: %w; name a certificate and its own key, both in PEM form", cert.flag, cert.path, key.flag, key.path, err)
	}
	return c, nil
}
