package pap_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

func TestAReleaseThatTwoMustSignIsRefusedBeforeItsBundleIsSent(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{ShopSigners: []string{"center", "ann", "bob"}, ShopThreshold: 2})
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	draft := d.Draft("ann", "shop", "deny contains \"x\" if false")
	author := d.PAP(p)

	_, proposal, sealed, err := author.Sign(t.Context(), draft)
	if err != nil || proposal.Missing() != 1 {
		t.Fatalf("signed by %v, %v", proposal.Signers(), err)
	}
	const who = "still may: bob, center"
	_, err = author.Release(t.Context(), sealed, bundles.Limits{})
	if policy.KindOf(err) != policy.Denied || !strings.Contains(err.Error(), who) {
		t.Errorf("the command lets it through: %v", err)
	}
	// Somebody who goes around the command gets no further.
	stream, err := microwallv1.NewPolicyServiceClient(p.Conn).Push(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Release{Release: sealed.Note}}); err != nil {
		t.Fatal(err)
	}
	err = stream.RecvMsg(new(microwallv1.PushResponse)) // the stream stays open: no byte of the bundle was sent
	if err == nil || !strings.Contains(err.Error(), who) {
		t.Errorf("the PDP waits for the bundle: %v", err)
	}

	if sealed.Note, err = bundles.Cosign(sealed.Note, d.Signer("bob")); err != nil {
		t.Fatal(err)
	}
	result, err := author.Release(t.Context(), sealed, bundles.Limits{})
	if err != nil || result.Release.Digest() != proposal.Digest() {
		t.Fatalf("with both: %v", err)
	}
	if again, err := author.Release(t.Context(), sealed, bundles.Limits{}); err != nil || !again.Unchanged {
		t.Errorf("once more: %+v, %v", again, err)
	}
}

func TestWhatWasSignedForAnotherHeadIsNotReleased(t *testing.T) {
	d := testkit.NewDomain(t)
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	d.Push(p, "center", "shop", "deny contains \"x\" if false")
	one := d.Push(p, "cart", "shop.cart", allows)
	author := d.PAP(p)
	_, _, sealed, err := author.Sign(t.Context(), d.Draft("cart", "shop.cart", "default allow := false"))
	if err != nil {
		t.Fatal(err)
	}
	d.Push(p, "cart", "shop.cart", allows+" # somebody else's")
	_, err = author.Release(t.Context(), sealed, bundles.Limits{})
	if policy.KindOf(err) != policy.Conflict || !strings.Contains(err.Error(), "the head of shop.cart moved since revision 2 was signed: it is now release 2 by cart") {
		t.Errorf("got %v", err)
	}
	// A retirement with a bundle beside it, and a bundle of another release.
	_, _, gone, err := author.Sign(t.Context(), draftOf(d, nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]bundles.Sealed{
		"a retirement with a bundle": {Note: gone.Note, Packed: sealed.Packed},
		"another bundle":             {Note: sealed.Note, Packed: bundles.Pack(d.Rego(allows).Tar())},
		"no bundle":                  {Note: sealed.Note},
	} {
		if _, err := author.Release(t.Context(), s, bundles.Limits{}); policy.KindOf(err) != policy.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The trust file went on meanwhile.
	d.WriteTrust(testkit.TrustOptions{Version: 2, Epoch: 2})
	if _, err := d.PAP(p).Release(t.Context(), sealed, bundles.Limits{}); policy.KindOf(err) != policy.Conflict || !strings.Contains(err.Error(), "signed in epoch 1, the trust file is at 2") {
		t.Errorf("in another epoch: %v", err)
	}
	var unverified *bundles.UnverifiedError
	forged, packed := d.Forge("stranger", "shop.cart", one.Release, d.Rego(allows))
	if _, err := author.Release(t.Context(), bundles.Sealed{Note: forged, Packed: packed}, bundles.Limits{}); !errors.As(err, &unverified) {
		t.Errorf("a stranger's: %v", err)
	}
}

func draftOf(d *testkit.Domain, b *bundles.Bundle) (draft pap.Draft) {
	draft = d.Draft("cart", "shop.cart", allows)
	draft.Bundle, draft.Signers = b, []note.Signer{d.Signer("cart")}
	return draft
}
