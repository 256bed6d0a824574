package value

import (
	"cmp"
	"hash/maphash"
	"strings"
)

// Compare orders values as OPA does: by kind, numbers by value, strings by
// bytes, arrays by elements, sets by their members in order, objects by key and
// value in the order of keys.
func Compare(a, b Value) int {
	if a.Kind() != b.Kind() {
		return cmp.Compare(a.Kind(), b.Kind())
	}
	switch a.Kind() {
	case Bool:
		return cmp.Compare(a.num, b.num)
	case Number:
		return compareNumbers(a, b)
	case String:
		return strings.Compare(a.text(), b.text())
	case Array, Object, Set:
		return new(comparer).compare(a, b)
	}
	return 0
}

// Equal reports whether a and b are the same value. 1 and 1.0 are.
func Equal(a, b Value) bool {
	if a.Kind() != b.Kind() {
		return false
	}
	switch a.Kind() {
	case Bool:
		return a.num == b.num
	case Number:
		if a.form() == built && b.form() == built {
			return a.num == b.num
		}
		return compareNumbers(a, b) == 0
	case String:
		return a.num == b.num && a.text() == b.text()
	case Array, Object, Set:
		return new(comparer).equal(a, b)
	}
	return true
}

// Every process hashes in a way of its own, so that nobody can make a request or
// a bundle whose values collide.
var (
	seed   = maphash.MakeSeed()
	secret = maphash.String(seed, "numbers")
)

// mix spreads the bits of x (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= secret
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// hash is the same for equal values, in whatever form they are held.
func (v Value) hash() uint64 {
	switch v.Kind() {
	case String:
		return maphash.String(seed, v.text())
	case Number:
		return v.hashNumber()
	case Array:
		h := uint64(Array)
		for i := range v.Len() {
			h = mix(h ^ v.Elem(i).hash())
		}
		return h
	case Object, Set:
		// Members come in any order, so what is made of them must not know it.
		h := uint64(v.Len())
		c := v.members()
		var k, e Value
		for c.Next(&k, &e) {
			m := k.hash()
			if v.Kind() == Object {
				m = mix(m ^ mix(e.hash()))
			}
			h += mix(m)
		}
		return mix(h ^ uint64(v.Kind()))
	}
	return mix(uint64(v.Kind())<<8 | v.num)
}
