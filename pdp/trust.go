package pdp

import (
	"context"
	"fmt"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

// PushTrust takes the trust file of the next version, signed by the roots of the
// one in force and by its own, see [bundles.Trust.Next]. It is stored once and for
// all, announced, and in force here when PushTrust returns; whoever follows has it
// in a moment.
//
// What is in force already may be pushed again, or for the first time if it was
// put into place by hand: then others can follow. Otherwise: policy.Denied if it
// is not signed by those who must, policy.Conflict if it is not the next version,
// or if that version is another file already.
func (r *Releases) PushTrust(ctx context.Context, note []byte) (version uint64, err error) {
	trust, err := r.pushTrust(ctx, note)
	if err != nil {
		r.config.Events(PushRefused{Err: fmt.Errorf("trust file: %w", err)})
		return 0, err
	}
	r.config.Events(TrustPushed{Version: trust.Version(), Digest: trust.Digest()})
	return trust.Version(), nil
}

func (r *Releases) pushTrust(ctx context.Context, note []byte) (*bundles.Trust, error) {
	store, err := r.store()
	if err != nil {
		return nil, err
	}
	// Another PDP may have taken a version that this one has not heard of.
	if err := r.followTrust(ctx, store); err != nil {
		return nil, err
	}
	inForce := r.config.Live.Trust()
	trust, verify := inForce, r.confirm
	if file, ferr := bundles.TrustFile(note); ferr != nil || policy.DigestOf(file) != inForce.Digest() {
		verify = func(_ context.Context, _ *jetstream.Store, note []byte) error {
			trust, err = inForce.Next(note)
			return err
		}
	}
	if err := verify(ctx, store, note); err != nil {
		return nil, err
	}
	held, err := store.PutTrust(ctx, trust.Version(), note)
	if err != nil {
		return nil, err
	}
	// What was stored there before may have more signatures, or others.
	file, err := bundles.TrustFile(held)
	if err != nil || policy.DigestOf(file) != trust.Digest() || verify(ctx, store, held) != nil {
		return nil, policy.Errorf(policy.Conflict, "version %d of the trust file is stored already, and is another one; see who pushed it (microwall trust pull), and raise the version", trust.Version())
	}
	if err := store.AnnounceTrust(ctx, trust.Version()); err != nil {
		return nil, err
	}
	return trust, r.config.Live.OfferTrust(held)
}

// confirm verifies what others need of the trust file that is in force here: that
// its own roots have signed it, and those of the version before, if that was
// pushed.
func (r *Releases) confirm(ctx context.Context, store *jetstream.Store, note []byte) error {
	trust := r.config.Live.Trust()
	if err := trust.Confirm(note); err != nil {
		return err
	}
	before, err := store.Trust(ctx, trust.Version()-1)
	if policy.KindOf(err) == policy.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	file, err := bundles.TrustFile(before)
	if err != nil {
		return nil //nolint:nilerr // nobody follows what is no trust file
	}
	previous, err := bundles.ParseTrust(file)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	_, err = previous.Next(note)
	return err
}

// followTrust puts in force what the store has beyond the version in force.
func (r *Releases) followTrust(ctx context.Context, store *jetstream.Store) error {
	for {
		note, err := store.Trust(ctx, r.config.Live.Trust().Version()+1)
		if policy.KindOf(err) == policy.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.config.Live.OfferTrust(note); err != nil {
			return policy.Errorf(policy.Failed, "the broker holds a version of the trust file that is not to be believed: its storage was tampered with, or this process has another trust file than those who pushed it; purge the subject (nats stream purge BLOBS --subject pdp.blob.%s.-trust.%d) if it is the former: %w",
				r.config.Live.Trust().Domain(), r.config.Live.Trust().Version()+1, err)
		}
	}
}

// Trust returns a version of the signed trust file, the newest if version is 0. It
// is not verified. One that was not pushed is policy.NotFound.
func (r *Releases) Trust(ctx context.Context, version uint64) ([]byte, error) {
	store, err := r.store()
	if err != nil {
		return nil, err
	}
	if version == 0 {
		if version, err = store.NewestTrust(ctx); err != nil {
			return nil, err
		}
		if version == 0 {
			return nil, policy.Errorf(policy.NotFound, "no trust file was pushed here; microwall trust push does that")
		}
	}
	return store.Trust(ctx, version)
}

// TrustInForce returns the version of the trust file that this process believes.
func (r *Releases) TrustInForce() uint64 { return r.config.Live.Trust().Version() }

// Namespaces returns the namespaces that have a head, sorted, those that were
// retired among them.
func (r *Releases) Namespaces(ctx context.Context) ([]policy.Namespace, error) {
	store, err := r.store()
	if err != nil {
		return nil, err
	}
	return store.Namespaces(ctx)
}
