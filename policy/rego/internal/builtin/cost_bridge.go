package builtin

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math"
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// What runs in OPA cannot be interrupted. So its price is worked out from its
// operands before it starts, and what costs more than a block is refused. The
// prices are measured: of the worst operands that were found of a size, on a
// machine where a step takes ten nanoseconds.

// bill is what the operands of a call amount to.
type bill struct {
	text  int64 // bytes of text
	nodes int64 // values
	// clash is how many comparisons it takes at worst to put the members of the
	// sets and objects into OPA's: those are found by hashes that whoever writes a
	// policy, or a request, can make the same.
	clash int64
	args  []value.Value
}

// A price says how many steps a call takes, and how many bytes it makes.
type price func(b *bill) (steps, bytes int64)

// chargeBridge charges for a call in OPA, with the conversion of its operands.
func (c *Call) chargeBridge(name string, args []value.Value) error {
	b := &bill{args: args}
	for _, arg := range args {
		size, err := c.measure(arg)
		if err != nil {
			return err
		}
		b.nodes, b.text = b.nodes+size.Values, b.text+size.Text
		if b.nodes > maxBlock && c.Limited() {
			return budget.ErrSteps
		}
		clash, err := c.clashes(arg)
		if err != nil {
			return err
		}
		b.clash += clash
	}
	of, ok := prices[name]
	if !ok {
		of = linear(200, 8, 4)
	}
	steps, bytes := of(b)
	if err := c.Bytes(bytes + b.nodes*160); err != nil {
		return err
	}
	return c.block(steps + b.nodes*15 + b.clash)
}

// clashes counts comparisons as bill.clash has them.
func (c *Call) clashes(v value.Value) (int64, error) {
	if !v.IsComposite() {
		return 0, nil
	}
	var sum, keys int64
	members, err := c.scan(v)
	if err != nil {
		return 0, err
	}
	var key, val value.Value
	for members.Next(&key, &val) {
		if err := c.Step(1); err != nil {
			return 0, err
		}
		n, err := c.clashes(val)
		if err != nil {
			return 0, err
		}
		sum += n
		if v.Kind() == value.Object {
			if n, err = c.clashes(key); err != nil {
				return 0, err
			}
			sum += n
		}
		if v.Kind() != value.Array {
			keys += key.Weight(atATime)
		}
	}
	return sum + int64(v.Len())*keys/4, nil
}

// linear is the price of what goes through its operands once.
func linear(fixed, eighths, bytes int64) price {
	return func(b *bill) (int64, int64) { return fixed + b.text*eighths/8, 256 + b.text*bytes }
}

// square is the price of what compares each part of a text with each other.
func square(fixed, eighths int64) price {
	return func(b *bill) (int64, int64) {
		if b.text > math.MaxInt32 {
			return math.MaxInt32, 0
		}
		return fixed + b.text*b.text*eighths/8, 1024 + b.text*200
	}
}

var prices = map[string]price{
	"crypto.md5":         linear(100, 1, 0),
	"crypto.sha1":        linear(100, 1, 0),
	"crypto.sha256":      linear(100, 1, 0),
	"crypto.hmac.md5":    linear(200, 1, 0),
	"crypto.hmac.sha1":   linear(200, 1, 0),
	"crypto.hmac.sha256": linear(200, 1, 0),
	"crypto.hmac.sha512": linear(200, 1, 0),
	"crypto.hmac.equal":  linear(20, 1, 0),

	"crypto.x509.parse_certificates":        linear(5000, 8*50, 60),
	"crypto.x509.parse_certificate_request": linear(5000, 8*50, 60),

	"io.jwt.decode":       linear(500, 8*4, 40),
	"io.jwt.verify_hs256": linear(500, 8*4, 8),
	"io.jwt.verify_hs384": linear(500, 8*4, 8),
	"io.jwt.verify_hs512": linear(500, 8*4, 8),
	"io.jwt.verify_rs256": verifyRSA,
	"io.jwt.verify_rs384": verifyRSA,
	"io.jwt.verify_rs512": verifyRSA,
	"io.jwt.verify_ps256": verifyRSA,
	"io.jwt.verify_ps384": verifyRSA,
	"io.jwt.verify_ps512": verifyRSA,
	"io.jwt.verify_es256": verifyEC,
	"io.jwt.verify_es384": verifyEC,
	"io.jwt.verify_es512": verifyEC,
	"io.jwt.verify_eddsa": verifyEC,

	"uri.parse":    linear(100, 8, 6),
	"uri.is_valid": linear(100, 8, 6),
	"uuid.parse":   linear(300, 1, 0),

	"yaml.unmarshal": readYAML,
	"yaml.is_valid":  readYAML,
	"yaml.marshal": func(b *bill) (int64, int64) {
		return 2000 + b.nodes*500 + b.text*12, 16<<10 + b.nodes*200 + b.text*8
	},

	"trace": linear(50, 0, 0),

	// These take so long for little that what can be called of them is hardly
	// worth it.
	"graphql.is_valid":                  square(30_000, 8*4),
	"graphql.schema_is_valid":           square(30_000, 8*4),
	"graphql.parse":                     square(60_000, 8*4),
	"graphql.parse_and_verify":          square(60_000, 8*4),
	"graphql.parse_query":               linear(5000, 8*700, 2000),
	"graphql.parse_schema":              linear(5000, 8*700, 2000),
	"rego.parse_module":                 square(5000, 8*40),
	"crypto.parse_private_keys":         square(5000, 2),
	"crypto.x509.parse_keypair":         square(5000, 2),
	"crypto.x509.parse_rsa_private_key": square(5000, 2),
	"providers.aws.sign_req":            linear(10_000, 8*8, 40),
}

// readYAML is by what the decoder compares all of with all before it: the keys
// of a mapping; and what it goes through again for each level: flows and keys
// that are not plain. Each alias may stand for all that comes before it.
func readYAML(b *bill) (steps, bytes int64) {
	var s string
	if len(b.args) > 0 {
		s = b.args[0].Text()
	}
	n := min(int64(len(s)), math.MaxInt32)
	keys := int64(strings.Count(s, ":") + strings.Count(s, ",") + strings.Count(s, "?"))
	levels := int64(strings.Count(s, "[") + strings.Count(s, "{") + strings.Count(s, "?"))
	steps = 2000 + n*80 + keys*keys/2 + levels*levels/3
	bytes = 64<<10 + n*200
	if strings.Contains(s, "&") {
		for range strings.Count(s, "*") {
			if steps < 1<<40 {
				steps, bytes = steps*3/2, bytes*3/2
			}
		}
	}
	return steps, bytes
}

// verifyRSA is quadratic in the length of the largest modulus.
func verifyRSA(b *bill) (steps, bytes int64) {
	steps, bytes = 2000+b.text*12, 16<<10+b.text*60
	key := b.args[1].Text()
	if k := pemKey(key); k != nil {
		if k, ok := k.(*rsa.PublicKey); ok {
			bits := int64(k.N.BitLen())
			steps += bits * bits / 100
		}
		return steps + 30_000, bytes
	}
	for run := range strings.SplitSeq(key, `"`) {
		n := min(int64(len(run)), math.MaxInt32)
		steps = min(steps+n*n/3, math.MaxInt32)
	}
	return steps, bytes
}

// verifyEC is by how many keys there are on which curves.
func verifyEC(b *bill) (steps, bytes int64) {
	const short, middle, long = 15_000, 70_000, 250_000
	steps, bytes = 2000+b.text*12, 16<<10+b.text*60
	key := b.args[1].Text()
	if k := pemKey(key); k != nil {
		steps += 30_000
		if k, ok := k.(*ecdsa.PublicKey); ok {
			switch {
			case k.Curve.Params().BitSize > 384:
				return steps + long, bytes
			case k.Curve.Params().BitSize > 256:
				return steps + middle, bytes
			}
		}
		return steps + short, bytes
	}
	keys := int64(strings.Count(key, "{"))
	if strings.Contains(key, `\`) {
		return steps + keys*long, bytes // the names of curves can be hidden
	}
	return steps + keys*short + int64(strings.Count(key, "384"))*middle + int64(strings.Count(key, "521"))*long, bytes
}

// pemKey returns the public key of what is no JSON, unless it is so long that
// reading it here would cost too much.
func pemKey(s string) any {
	if len(s) > 16<<10 {
		return nil
	}
	block, _ := pem.Decode([]byte(s))
	if block == nil {
		return nil
	}
	if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
		return cert.PublicKey
	}
	key, _ := x509.ParsePKIXPublicKey(block.Bytes)
	return key
}
