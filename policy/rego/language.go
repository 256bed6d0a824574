package rego

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
)

// opaVersion is the release of OPA whose language this is. It is named here and
// not taken from the linked OPA, so that an upgrade is a decision.
const opaVersion = "v1.22.2"

//go:embed language.txt
var languageList string

const aPrivateKey = "whoever may read the policy could read the key: keep keys in the services that use them"

// hints say what to do instead of calling a built-in that is not in the
// language.
var hints = map[string]string{
	"crypto.parse_private_keys":                 aPrivateKey,
	"crypto.x509.parse_keypair":                 aPrivateKey,
	"crypto.x509.parse_rsa_private_key":         aPrivateKey,
	"http.send":                                 "a policy reaches no network: fetch before, and pass what you need in the request's context or push it as data.json",
	"io.jwt.decode_verify":                      "verify tokens before asking, and pass the claims as subject.properties",
	"io.jwt.encode_sign":                        "a policy signs nothing: do it in the service",
	"io.jwt.encode_sign_raw":                    "a policy signs nothing: do it in the service",
	"json.match_schema":                         "schemas can refer to the network: check types with is_string, is_number, object.get",
	"json.patch":                                "it can crash the evaluator (OPA 1.22.2): build the object with object.union, object.remove or a comprehension",
	"json.verify_schema":                        "schemas can refer to the network: verify them in CI",
	"net.lookup_ip_addr":                        "a policy asks no name server: pass the address in the request's context",
	"providers.aws.sign_req":                    "a policy signs nothing: do it in the service",
	"opa.runtime":                               "a policy does not see its host: put configuration into data.json",
	"rand.intn":                                 "a decision depends on the request alone: pass a random value in the request's context",
	"strings.render_template":                   "a template can print addresses of memory: use sprintf or concat",
	"time.now_ns":                               "use input.time: unix (seconds), hour, minute, date and weekday in UTC; input.time.unix * 1000000000 are nanoseconds",
	"uuid.rfc4122":                              "pass an id in the request's context",
	"crypto.x509.parse_and_verify_certificates": "verification reads the host's clock: verify before asking, and pass what the certificate says",
	"crypto.x509.parse_and_verify_certificates_with_options": "verification may read the host's clock: verify before asking, and pass what the certificate says",
}

// language returns OPA's capabilities narrowed to the list. AllowNet is empty
// rather than nil: nil means any host.
var language = sync.OnceValues(func() (*ast.Capabilities, error) {
	caps, err := ast.LoadCapabilitiesVersion(opaVersion)
	if err != nil {
		return nil, fmt.Errorf("capabilities of OPA %s: %w", opaVersion, err)
	}
	listed := strings.Fields(languageList)
	caps.Builtins = slices.DeleteFunc(caps.Builtins, func(b *ast.Builtin) bool {
		_, found := slices.BinarySearch(listed, b.Name)
		return !found || b.Nondeterministic
	})
	caps.AllowNet = []string{}
	return caps, nil
})
