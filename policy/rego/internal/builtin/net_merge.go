package builtin

import (
	"net"
	"net/netip"
	"slices"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// addressRange is a network, or several that lie side by side.
type addressRange struct {
	first, last netip.Addr
	text        string // of a network that has not been merged with another one
}

// cidrMerge merges networks that overlap or lie side by side. As in OPA, an IPv4
// address without a length stands for a network of its class, and keeps its text
// if nothing is merged with it.
func cidrMerge(c *Call, args []value.Value) (value.Value, error) {
	const name = "net.cidr_merge"
	list := args[0]
	if k := list.Kind(); k != value.Array && k != value.Set {
		return value.Value{}, fail(name, "operand must be an array")
	}
	n := int64(list.Len())
	members, err := c.scan(list)
	if err != nil {
		return value.Value{}, err
	}
	if err := c.Work(20*n+n*log2(n), 96*n); err != nil {
		return value.Value{}, err
	}
	ranges := make([]addressRange, 0, n)
	for _, elem := range members.All() {
		if elem.Kind() != value.String {
			return value.Value{}, fail(name, "element must be string")
		}
		if err := c.address(elem); err != nil {
			return value.Value{}, err
		}
		r, plain, err := rangeOf(name, elem.Text())
		if err != nil {
			return value.Value{}, err
		}
		if !plain {
			// OPA takes some networks at the beginning of IPv6 for IPv4, and fails
			// with some: whatever it does, it is asked. It is quadratic.
			if err := c.block(1000 + n*n/10); err != nil {
				return value.Value{}, err
			}
			opa, _ := bridge(name)
			return opa.Func(c, args)
		}
		ranges = append(ranges, r)
	}
	slices.SortFunc(ranges, func(a, b addressRange) int {
		if order := a.last.Compare(b.last); order != 0 {
			return order
		}
		return a.first.Compare(b.first)
	})
	set := value.NewSet(0)
	for len(ranges) > 0 {
		r := ranges[len(ranges)-1]
		ranges = ranges[:len(ranges)-1]
		for len(ranges) > 0 {
			before := ranges[len(ranges)-1]
			if next := before.last.Next(); next.IsValid() && next.Less(r.first) || before.last.BitLen() != r.first.BitLen() {
				break
			}
			r = addressRange{last: r.last, first: r.first}
			if before.first.Less(r.first) {
				r.first = before.first
			}
			ranges = ranges[:len(ranges)-1]
		}
		if err := c.addRange(set, r); err != nil {
			return value.Value{}, err
		}
	}
	return set, nil
}

// rangeOf reads a network, or an address of IPv4. It reports whether it is one
// with which OPA does what one expects.
func rangeOf(name, s string) (r addressRange, plain bool, err error) {
	if address, err := netip.ParseAddr(s); err == nil && address.Zone() == "" {
		address = address.Unmap()
		if !address.Is4() {
			return r, false, fail(name, "IPv6 invalid: needs prefix length")
		}
		bits, _ := net.IP(address.AsSlice()).DefaultMask().Size()
		prefix := netip.PrefixFrom(address, bits)
		return addressRange{prefix.Masked().Addr(), lastAddress(prefix), prefix.String()}, true, nil
	}
	prefix, ok := parseCIDR(s)
	if !ok {
		return r, false, fail(name, "%v", &net.ParseError{Type: "CIDR address", Text: s})
	}
	first := prefix.Addr()
	if first.Is4() {
		plain = !slices.Contains([]byte(s), ':')
	} else {
		plain = first.As16()[0] != 0
	}
	return addressRange{first, lastAddress(prefix), prefix.String()}, plain, nil
}

// lastAddress returns the last address of a network.
func lastAddress(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for i := range bytes {
		switch bits := prefix.Bits() - 8*i; {
		case bits <= 0:
			bytes[i] = 0xff
		case bits < 8:
			bytes[i] |= 0xff >> bits
		}
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// addRange adds the fewest networks that a range is made of.
func (c *Call) addRange(set value.Value, r addressRange) error {
	if r.text != "" {
		return c.add(set, value.Text(r.text))
	}
	for first := r.first; ; {
		if err := c.Work(100, 64); err != nil {
			return err
		}
		prefix := netip.PrefixFrom(first, first.BitLen())
		for prefix.Bits() > 0 {
			wider := netip.PrefixFrom(first, prefix.Bits()-1)
			if wider.Masked().Addr() != first || r.last.Less(lastAddress(wider)) {
				break
			}
			prefix = wider
		}
		if err := c.add(set, value.Text(prefix.String())); err != nil {
			return err
		}
		if first = lastAddress(prefix).Next(); !first.IsValid() || r.last.Less(first) {
			return nil
		}
	}
}
