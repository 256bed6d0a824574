package builtin

import (
	"net"
	"net/netip"
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// networks are the functions on IP addresses and networks. OPA's are made of
// package net's types; what these say of addresses that are IPv4 in IPv6 is what
// is said of the IPv4 address, and so it is here with package net/netip's.
var networks = []*Builtin{
	{Name: "net.cidr_contains", Func: cidrContains("net.cidr_contains"), binds: []int{0}, bind: bindCIDRContains("net.cidr_contains")},
	{Name: "net.cidr_overlap", Func: cidrContains("net.cidr_overlap"), binds: []int{0}, bind: bindCIDRContains("net.cidr_overlap")},
	{Name: "net.cidr_intersects", Func: cidrIntersects},
	{Name: "net.cidr_is_valid", Func: cidrIsValid, Total: true},
	{Name: "net.cidr_expand", Func: cidrExpand},
	{Name: "net.cidr_contains_matches", Func: cidrContainsMatches},
	{Name: "net.cidr_merge", Func: cidrMerge},
}

// parseCIDR reads a network as net.ParseCIDR does. One of IPv4 in IPv6 becomes one
// of IPv4.
func parseCIDR(s string) (netip.Prefix, bool) {
	before, after, found := strings.Cut(s, "/")
	if !found {
		return netip.Prefix{}, false
	}
	address, err := netip.ParseAddr(before)
	bits, ok := prefixLength(after)
	if err != nil || address.Zone() != "" || !ok || bits > address.BitLen() {
		return netip.Prefix{}, false
	}
	if address.Is4In6() && bits >= 96 {
		address, bits = address.Unmap(), bits-96
	}
	return netip.PrefixFrom(address, bits).Masked(), true
}

// prefixLength reads decimal digits; leading zeros do not matter.
func prefixLength(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || n > 1000 {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, s != ""
}

// network returns an operand that must be a network. OPA calls it the first one
// wherever it stands.
func (c *Call) network(name string, v value.Value) (netip.Prefix, error) {
	s, err := textOf(name, 1, v)
	if err == nil {
		err = c.address(v)
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	prefix, ok := parseCIDR(s)
	if !ok {
		return netip.Prefix{}, fail(name, "%v", &net.ParseError{Type: "CIDR address", Text: s})
	}
	return prefix, nil
}

// networkOrAddress returns an operand that may also be an address, which is a
// network of one.
func (c *Call) networkOrAddress(name string, v value.Value) (netip.Prefix, error) {
	s, err := textOf(name, 1, v)
	if err == nil {
		err = c.address(v)
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	if address, err := netip.ParseAddr(s); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, ok := parseCIDR(s)
	if !ok {
		return netip.Prefix{}, fail(name, "not a valid textual representation of an IP address or CIDR: %s", s)
	}
	return prefix, nil
}

// covers reports whether a contains all of b.
func covers(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }

func cidrContains(name string) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		if err := c.Step(4); err != nil {
			return value.Value{}, err
		}
		a, err := c.network(name, args[0])
		if err != nil {
			return value.Value{}, err
		}
		b, err := c.networkOrAddress(name, args[1])
		return value.Boolean(err == nil && covers(a, b)), err
	}
}

func bindCIDRContains(name string) func(c *Call, consts []value.Value) (Func, error) {
	return func(c *Call, consts []value.Value) (Func, error) {
		a, err := c.network(name, consts[0])
		if err != nil {
			return nil, err
		}
		return func(c *Call, args []value.Value) (value.Value, error) {
			if err := c.Step(2); err != nil {
				return value.Value{}, err
			}
			b, err := c.networkOrAddress(name, args[1])
			return value.Boolean(err == nil && covers(a, b)), err
		}, nil
	}
}

func cidrIntersects(c *Call, args []value.Value) (value.Value, error) {
	const name = "net.cidr_intersects"
	if err := c.Step(4); err != nil {
		return value.Value{}, err
	}
	a, err := c.network(name, args[0])
	if err != nil {
		return value.Value{}, err
	}
	b, err := c.network(name, args[1])
	return value.Boolean(err == nil && a.Overlaps(b)), err
}

func cidrIsValid(c *Call, args []value.Value) (value.Value, error) {
	if err := c.Step(2 + textSteps(len(args[0].Text()))); err != nil {
		return value.Value{}, err
	}
	_, ok := parseCIDR(args[0].Text())
	return value.Boolean(ok), nil
}

// cidrExpand gives all addresses of a network.
func cidrExpand(c *Call, args []value.Value) (value.Value, error) {
	if err := c.Step(4); err != nil {
		return value.Value{}, err
	}
	prefix, err := c.network("net.cidr_expand", args[0])
	if err != nil {
		return value.Value{}, err
	}
	n := int64(1) << min(prefix.Addr().BitLen()-prefix.Bits(), 40) // more than any budget has
	if err := c.Bytes(n * (memberBytes + 40)); err != nil {
		return value.Value{}, err
	}
	set := value.NewSet(int(n))
	for address := prefix.Addr(); prefix.Contains(address); address = address.Next() {
		if err := c.Step(20); err != nil {
			return value.Value{}, err
		}
		set.Add(value.Text(address.String()))
	}
	return set, nil
}

// cidrContainsMatches gives the pairs of an index of the first operand and one of
// the second, of which the one's network contains the other's.
func cidrContainsMatches(c *Call, args []value.Value) (value.Value, error) {
	const name = "net.cidr_contains_matches"
	set := value.NewSet(0)
	var inner []netip.Prefix
	err := eachCIDR(c, name, 1, args[0], func(_ int, cidr, index value.Value) error {
		var a netip.Prefix
		return eachCIDR(c, name, 2, args[1], func(i int, other, otherIndex value.Value) error {
			var err error
			if i == 0 {
				if a, err = c.network(name, cidr); err != nil {
					return err
				}
			}
			if i == len(inner) {
				b, err := c.networkOrAddress(name, other)
				if err != nil {
					return err
				}
				if err := c.Bytes(elemBytes); err != nil {
					return err
				}
				inner = append(inner, b)
			}
			if !covers(a, inner[i]) {
				return nil
			}
			if err := c.Work(10, 3*elemBytes); err != nil {
				return err
			}
			return c.add(set, value.NewArray(index, otherIndex))
		})
	})
	return set, err
}

// eachCIDR calls do with a string, or with every element of a collection that is
// a string or begins with one, and its index.
func eachCIDR(c *Call, name string, position int, v value.Value, do func(i int, cidr, index value.Value) error) error {
	if v.Kind() == value.String {
		return do(0, v, v)
	}
	members, err := c.scan(v)
	if err != nil {
		return err
	}
	var key, elem value.Value
	for i := 0; members.Next(&key, &elem); i++ {
		if err := c.Step(4); err != nil {
			return err
		}
		cidr := elem
		if elem.Kind() == value.Array && elem.Len() > 0 {
			cidr = elem.Elem(0)
		} else if elem.Kind() != value.String {
			return fail(name, "operand %d: element must be string or non-empty array", position)
		}
		if err := do(i, cidr, key); err != nil {
			return err
		}
	}
	return nil
}
