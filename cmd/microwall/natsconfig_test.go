package main

import (
	"testing"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/testkit"
)

func FuzzParsePrincipals(f *testing.F) {
	trust := testkit.NewDomain(f).Trust()
	f.Add([]byte("principals:\n  - {name: pdp-1, kind: pdp}\n  - {name: cart-1, kind: client, namespaces: [shop.cart]}\n"))
	f.Add([]byte("principals: [{name: a, kind: fleet, key: UA}]"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		users, err := parsePrincipals(raw, trust)
		if err != nil {
			return
		}
		if len(users) == 0 {
			t.Error("an empty list was taken")
		}
		for _, u := range users {
			// A name becomes that of a file, and a part of subjects.
			if _, err := jetstream.NewCredentials(u.Name); err != nil {
				t.Error(err)
			}
			if _, err := u.Permissions("shop"); err != nil {
				t.Error(err)
			}
		}
	})
}
