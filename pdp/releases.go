package pdp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// ReleasesConfig configures [Releases]. Live and Store are required.
type ReleasesConfig struct {
	// Live is the state that this process decides with.
	Live *live.Live
	// Store returns where releases are made durable, or why it has not been
	// reached yet, with the next step.
	Store func() (*jetstream.Store, error)
	// ReceiveTimeout is how long a bundle may take to arrive after its release.
	// Zero is two minutes.
	ReceiveTimeout time.Duration
	// Receiving is how many bundles may be on their way at once; more are
	// refused. Zero is 32.
	Receiving int
	// TestBudget is how long the tests of a bundle may take. Zero is 30 s.
	TestBudget time.Duration
	// Pushes is how many are compiled and tested at once. Zero is 2.
	Pushes int
	// Events is told what was taken and refused; nil tells nobody.
	Events func(Event)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Releases takes releases from authors and hands them out. It is safe for
// concurrent use.
type Releases struct {
	config ReleasesConfig
	slots  chan struct{} // held while compiling and testing
	arrive chan struct{} // held while a bundle is on its way
}

// NewReleases returns the administration point over a store.
func NewReleases(config ReleasesConfig) *Releases {
	if config.ReceiveTimeout == 0 {
		config.ReceiveTimeout = 2 * time.Minute
	}
	if config.Receiving == 0 {
		config.Receiving = 32
	}
	if config.TestBudget == 0 {
		config.TestBudget = 30 * time.Second
	}
	if config.Pushes == 0 {
		config.Pushes = 2
	}
	if config.Events == nil {
		config.Events = func(Event) {}
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Releases{config: config, slots: make(chan struct{}, config.Pushes), arrive: make(chan struct{}, config.Receiving)}
}

// Receipt is what an author is told of a release that was taken.
type Receipt struct {
	// Version that is the head now.
	Version policy.Version
	// Warnings say what will keep a later push from being taken, and what keeps
	// this one from deciding anything.
	Warnings []string
}

// Push takes a signed release. Its signatures, its epoch and its place after
// the head are checked before fetch is asked for a byte of the bundle; then the
// bundle is verified, compiled and its tests are run; then it is made durable.
// When Push returns nil the release is the head and this process decides by it.
//
// Pushing the head once more is no error. Otherwise: policy.Denied if the keys
// may not sign it, policy.Conflict if it does not follow the head, of which
// somebody else may have made a new one meanwhile, policy.BadRequest if it does
// not compile or its tests fail, policy.Exhausted if it is over a limit or the
// store is full. After any error the head is what it was, unless the error is
// policy.Unavailable or ctx's: then the caller reads the head to find out.
func (r *Releases) Push(ctx context.Context, note []byte, fetch live.Fetch) (Receipt, error) {
	start := r.config.Now()
	signed, err := r.push(ctx, note, fetch)
	if err != nil {
		r.config.Events(PushRefused{Namespace: claimed(signed, err), Err: err})
		return Receipt{}, err
	}
	r.config.Events(Pushed{Version: signed.Version(), Signers: signed.Signers(), Took: r.config.Now().Sub(start)})
	return Receipt{Version: signed.Version(), Warnings: slices.Concat(r.undecided(signed.Release().Namespace), r.warnings(ctx))}, nil
}

// fullFrom is how full the store may be before authors are told, in percent;
// fillTimeout is how long one of them waits to be told.
const (
	fullFrom    = 80
	fillTimeout = time.Second
)

// undecided is why a release that was just taken decides nothing: a guardrail above
// it is not loaded.
func (r *Releases) undecided(n policy.Namespace) []string {
	if _, err := r.config.Live.Snapshot().Path(n); policy.KindOf(err) == policy.Unavailable {
		return []string{"it is released, and every request is refused: " + err.Error()}
	}
	return nil
}

// warnings are what an author should know who has released. The release is there
// in any case, so that a store that cannot be asked is no reason for an error.
func (r *Releases) warnings(ctx context.Context) []string {
	store, err := r.store()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, fillTimeout)
	defer cancel()
	streams, err := store.Filled(ctx)
	if err != nil {
		return nil
	}
	var all []string
	for _, s := range streams {
		if percent := s.Bytes * 100 / s.Max; percent >= fullFrom {
			all = append(all, fmt.Sprintf("the stream %s on NATS is %d %% full (%d of %d bytes); when it is full no release is taken: raise its bound (microwall serve --max-store), or keep fewer releases (--keep)", s.Stream, percent, s.Bytes, s.Max))
		}
	}
	return all
}

func (r *Releases) store() (*jetstream.Store, error) {
	s, err := r.config.Store()
	if err != nil {
		return nil, policy.Errorf(policy.Unavailable, "releases can neither be stored nor read, as this PDP cannot use NATS yet: %w", err)
	}
	return s, nil
}

// claimed returns the namespace that a refused release names.
func claimed(signed *bundles.Signed, err error) policy.Namespace {
	var unverified *bundles.UnverifiedError
	switch {
	case signed != nil:
		return signed.Release().Namespace
	case errors.As(err, &unverified):
		return unverified.Release.Namespace
	}
	return ""
}

func (r *Releases) push(ctx context.Context, note []byte, fetch live.Fetch) (*bundles.Signed, error) {
	trust := r.config.Live.Trust()
	signed, err := trust.Open(note)
	if err != nil {
		return nil, err
	}
	next := signed.Release()
	if err := inEpoch(trust, signed); err != nil {
		return signed, err
	}
	store, err := r.store()
	if err != nil {
		return signed, err
	}
	after, err := r.place(ctx, store, trust, signed)
	if errors.Is(err, bundles.ErrSame) {
		// It is the head; whoever is told so may rely on this process to
		// decide by it, even if another one took it.
		return signed, r.config.Live.Offer(ctx, signed.Note(), func(ctx context.Context) ([]byte, error) {
			head, err := store.Head(ctx, next.Namespace)
			if err != nil {
				return nil, err
			}
			return store.Bundle(ctx, head)
		})
	}
	if err != nil {
		return signed, err
	}
	packed, err := r.receive(ctx, signed, fetch)
	if err != nil {
		return signed, err
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return signed, ctx.Err()
	}
	c, err := r.config.Live.Prepare(ctx, note, func(context.Context) ([]byte, error) { return packed, nil })
	switch {
	case errors.Is(err, bundles.ErrSame):
		// It decides here, but the store has lost it: it was verified,
		// compiled and tested when it was taken.
		if _, err := signed.Unpack(bytes.NewReader(packed), r.config.Live.Limits()); !next.Retired() && err != nil {
			return signed, err
		}
	case err != nil && after == 0 && policy.KindOf(err) == policy.Conflict:
		// Whoever would take it here would be taken back elsewhere.
		lost := cmp.Or(r.lost(next.Namespace), policy.Errorf(policy.NotFound, "the store has no release of %s any more: raise the epoch in the trust file, and push again", next.Namespace))
		return signed, policy.Errorf(policy.Conflict, "%w (%w)", lost, err)
	case err != nil:
		return signed, err
	default:
		if err := r.test(ctx, c.Bundle()); err != nil {
			return signed, err
		}
	}
	// Another trust file may have come while the bundle did.
	if err := r.stillTrusted(signed); err != nil {
		return signed, err
	}
	if _, err := store.Put(ctx, next.Namespace, signed.Note(), packed, after); err != nil {
		return signed, err
	}
	if c == nil {
		return signed, nil
	}
	// It is durable, whatever Activate says: that a newer one came first, or
	// another trust file in this very moment. Both are events there.
	if err := r.config.Live.Activate(c); err != nil && policy.KindOf(err) != policy.Conflict {
		r.config.Events(PushRefused{Namespace: next.Namespace, Err: fmt.Errorf("release %d is stored but does not decide: %w", next.Revision, err)})
	}
	return signed, nil
}

// receive takes the bundle of a release from its author, who may be slow, or
// never send it: nothing that others wait for is held meanwhile.
func (r *Releases) receive(ctx context.Context, signed *bundles.Signed, fetch live.Fetch) ([]byte, error) {
	if signed.Release().Retired() {
		return nil, nil
	}
	select {
	case r.arrive <- struct{}{}:
		defer func() { <-r.arrive }()
	default:
		return nil, policy.Errorf(policy.Exhausted, "%d bundles are on their way here already; push again later", cap(r.arrive))
	}
	ctx, cancel := context.WithTimeout(ctx, r.config.ReceiveTimeout)
	defer cancel()
	type arrival struct {
		packed []byte
		err    error
	}
	// A stream cannot be told to stop waiting; it ends with the call that it
	// belongs to, and with it this goroutine.
	done := make(chan arrival, 1)
	go func() {
		packed, err := fetch(ctx)
		done <- arrival{packed, err}
	}()
	select {
	case a := <-done:
		return a.packed, a.err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, policy.Errorf(policy.Exhausted, "the bundle did not arrive within %s of its release; push again", r.config.ReceiveTimeout)
		}
		return nil, ctx.Err()
	}
}

// place returns the store's sequence number of the head that a release follows.
// What the store has for a head counts only if it opens: what cannot even be read
// may be replaced, by a release that follows what this process knows.
func (r *Releases) place(ctx context.Context, store *jetstream.Store, trust *bundles.Trust, next *bundles.Signed) (after uint64, err error) {
	rel := next.Release()
	head, err := store.Head(ctx, rel.Namespace)
	switch kind := policy.KindOf(err); {
	case err == nil:
	case kind == policy.NotFound:
		if !rel.Previous.IsZero() {
			return 0, policy.Errorf(policy.Conflict, "release %d of %s follows %s, but the namespace has no release here; push again", rel.Revision, rel.Namespace, rel.Previous)
		}
		return 0, wantRevision(rel, 1)
	case kind == policy.Failed:
		return head.Seq, r.followsKnown(next)
	default:
		return 0, err
	}
	held, err := trust.Open(head.Note)
	var unverified *bundles.UnverifiedError
	if errors.As(err, &unverified) && unverified.Release.Epoch < rel.Epoch {
		return head.Seq, wantRevision(rel, 1) // a new epoch begins where the old one cannot be verified any more
	}
	if err != nil {
		return 0, fmt.Errorf("head of %s in the store does not open; put its key back into the trust file, or raise the epoch there: %w", rel.Namespace, err)
	}
	h := held.Release()
	err = bundles.Follow(held, next)
	var fork *bundles.ForkError
	switch {
	case errors.As(err, &fork) && rel.Previous == h.Previous:
		// Two authors looked at the same head: a race, and no fork, as only
		// one of the two is ever stored.
		return 0, policy.Errorf(policy.Conflict, "somebody else released %s first: its head is release %d by %s; look at it, then push again", rel.Namespace, h.Revision, orUnknown(h.Author))
	case err != nil:
		return 0, err
	}
	if rel.Epoch != h.Epoch {
		return head.Seq, wantRevision(rel, 1)
	}
	if rel.Previous != held.Digest() {
		return 0, policy.Errorf(policy.Conflict, "release %d of %s does not follow the head, which is release %d by %s; look at it, then push again", rel.Revision, rel.Namespace, h.Revision, orUnknown(h.Author))
	}
	return head.Seq, wantRevision(rel, h.Revision+1)
}

// followsKnown refuses a release that is neither the head that this process knows,
// nor the next one.
func (r *Releases) followsKnown(next *bundles.Signed) error {
	rel := next.Release()
	known := r.config.Live.Heads([]policy.Namespace{rel.Namespace})[rel.Namespace]
	switch {
	case known == next.Version():
		return nil
	case known.Epoch == rel.Epoch:
		return wantRevision(rel, known.Revision+1)
	case known.Revision == 0 && rel.Revision != 1:
		return policy.Errorf(policy.Conflict, "what the store has as the head of %s cannot be read, and this PDP holds no release of it that revision %d could follow; push to one that does, or raise the epoch in the trust file and push again", rel.Namespace, rel.Revision)
	}
	return wantRevision(rel, 1)
}

// wantRevision refuses a release that leaves revisions out: they are counted,
// so that nobody can use them up.
func wantRevision(r bundles.Release, want uint64) error {
	if r.Revision != want {
		return policy.Errorf(policy.Conflict, "release of %s has revision %d, the next one is %d; push again", r.Namespace, r.Revision, want)
	}
	return nil
}

func orUnknown(author string) string {
	if author == "" {
		return "an unnamed author"
	}
	return author
}

// stillTrusted reports whether the trust file in force takes a release.
func (r *Releases) stillTrusted(signed *bundles.Signed) error {
	trust := r.config.Live.Trust()
	if _, err := trust.Open(signed.Note()); err != nil {
		return err
	}
	return inEpoch(trust, signed)
}

func inEpoch(trust *bundles.Trust, signed *bundles.Signed) error {
	if got := signed.Release().Epoch; got != trust.Epoch() {
		return policy.Errorf(policy.Conflict, "release has epoch %d, the trust file epoch %d; sign it with the newest trust file", got, trust.Epoch())
	}
	return nil
}

// test runs the bundle's own tests under the budget.
func (r *Releases) test(ctx context.Context, b *bundles.Bundle) error {
	if b == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, r.config.TestBudget)
	defer cancel()
	report, err := rego.Test(bounded, live.SourceOf(b), rego.TestOptions{})
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded.Err() != nil:
		return policy.Errorf(policy.BadRequest, "tests of the bundle took over %s; make them do less", r.config.TestBudget)
	default:
		return err
	}
	if failed := report.Failed(); len(failed) > 0 {
		f := failed[0]
		return policy.Errorf(policy.BadRequest, "%d of %d tests of the bundle failed, first %s at %s:%d: %s", len(failed), len(report.Results), f.Name, f.File, f.Line, f.Failure)
	}
	return nil
}

// Get returns a signed release: the head if revision is 0. It is not verified.
func (r *Releases) Get(ctx context.Context, n policy.Namespace, epoch, revision uint64) (jetstream.Head, error) {
	store, err := r.store()
	if err != nil {
		return jetstream.Head{}, err
	}
	if revision == 0 {
		head, err := store.Head(ctx, n)
		if policy.KindOf(err) == policy.NotFound {
			err = cmp.Or(r.lost(n), err)
		}
		return head, err
	}
	all, err := store.History(ctx, n)
	if err != nil {
		return jetstream.Head{}, err
	}
	trust := r.config.Live.Trust()
	i := slices.IndexFunc(all, func(h jetstream.Head) bool {
		signed, err := trust.Open(h.Note)
		return err == nil && signed.Release().Epoch == epoch && signed.Release().Revision == revision
	})
	if i < 0 {
		return jetstream.Head{}, policy.Errorf(policy.NotFound, "release %d of namespace %s in epoch %d is not kept here; `microwall history %s` lists those that are", revision, n, epoch, n)
	}
	return all[i], nil
}

// List returns the signed releases of a namespace that are kept, newest first.
// They are not verified. A namespace without any is policy.NotFound.
func (r *Releases) List(ctx context.Context, n policy.Namespace) ([][]byte, error) {
	store, err := r.store()
	if err != nil {
		return nil, err
	}
	all, err := store.History(ctx, n)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, cmp.Or(r.lost(n), policy.Errorf(policy.NotFound, "namespace %s has no release; push one: microwall push DIR --namespace %s", n, n))
	}
	notes := make([][]byte, len(all))
	for i, h := range all {
		notes[i] = h.Note
	}
	return notes, nil
}

// lost is the error of a namespace without a release in the store by one of which
// this process decides all the same; nil if it does not. So it is where NATS was
// exchanged, and where its streams were removed.
func (r *Releases) lost(n policy.Namespace) error {
	for _, v := range r.config.Live.Snapshot().Versions() {
		if v.Namespace == n {
			return policy.Errorf(policy.NotFound, "the store has no release of %s any more, or NATS is another one; this PDP decides on by revision %d of epoch %d, which it has on disk: raise the epoch in the trust file, and push again", n, v.Revision, v.Epoch)
		}
	}
	return nil
}

// Bundle returns the packed bundle of a release. It is not verified.
func (r *Releases) Bundle(ctx context.Context, h jetstream.Head) ([]byte, error) {
	store, err := r.store()
	if err != nil {
		return nil, err
	}
	return store.Bundle(ctx, h)
}

// Statuses returns what those who decide last said of a namespace, or for "" of
// all, sorted by namespace, principal and instance. Nothing of it is verified. With
// a policy.Exhausted error it is what there is, and incomplete.
func (r *Releases) Statuses(ctx context.Context, n policy.Namespace) ([]jetstream.Status, error) {
	store, err := r.store()
	if err != nil {
		return nil, err
	}
	all, err := store.Statuses(ctx, n)
	slices.SortFunc(all, func(a, b jetstream.Status) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.Instance, b.Instance))
	})
	return all, err
}
