package cache_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/policy"
)

var yes = policy.Decision{Allowed: true}

func TestManyWhoMissMakeOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f cache.Flight
		var calls atomic.Int64
		ask := func(context.Context) (policy.Decision, error) {
			calls.Add(1)
			<-time.After(time.Second)
			return yes, nil
		}
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if d, err := f.Do(t.Context(), []byte("k"), time.Minute, ask); err != nil || !d.Allowed {
					t.Errorf("%v, %v", d, err)
				}
			})
		}
		all.Go(func() { _, _ = f.Do(t.Context(), []byte("another"), time.Minute, ask) })
		all.Wait()
		if calls.Load() != 2 || f.Coalesced() != 99 {
			t.Errorf("%d calls, %d coalesced", calls.Load(), f.Coalesced())
		}
		if _, _ = f.Do(t.Context(), []byte("k"), time.Minute, ask); calls.Load() != 3 {
			t.Error("who comes after the answer has it without a call")
		}
	})
}

func TestACallerThatGivesUpHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f cache.Flight
		ask := func(ctx context.Context) (policy.Decision, error) {
			select {
			case <-time.After(time.Second):
				return yes, nil
			case <-ctx.Done():
				return policy.Decision{}, ctx.Err()
			}
		}
		var all sync.WaitGroup
		first, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		all.Go(func() {
			if _, err := f.Do(first, []byte("k"), time.Minute, ask); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the one that gave up: %v", err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			if d, err := f.Do(t.Context(), []byte("k"), time.Minute, ask); err != nil || !d.Allowed {
				t.Errorf("the one that waited: %v, %v", d, err)
			}
		})
		all.Wait()
	})
}

func TestACallThatNobodyWaitsForEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f cache.Flight
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			_, _ = f.Do(ctx, []byte("k"), time.Hour, func(ctx context.Context) (policy.Decision, error) {
				<-ctx.Done()
				<-time.After(time.Minute) // it takes its time to notice
				close(ended)
				return policy.Decision{}, ctx.Err()
			})
		})
		synctest.Wait()
		cancel()
		all.Wait()
		// Whoever comes now is not told about the end of a call of others.
		if d, err := f.Do(t.Context(), []byte("k"), time.Hour, func(context.Context) (policy.Decision, error) { return yes, nil }); err != nil || !d.Allowed {
			t.Errorf("%v, %v", d, err)
		}
		<-ended
	})
}

func TestAHungOrCrashedCallIsMadeAgainByThoseWhoHaveTime(t *testing.T) {
	for name, first := range map[string]func(context.Context) (policy.Decision, error){
		"hung":    func(ctx context.Context) (policy.Decision, error) { <-ctx.Done(); return policy.Decision{}, ctx.Err() },
		"crashed": func(context.Context) (policy.Decision, error) { <-time.After(time.Second); panic("boom") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f cache.Flight
				var calls atomic.Int64
				ask := func(ctx context.Context) (policy.Decision, error) {
					if calls.Add(1) == 1 {
						return first(ctx)
					}
					return yes, nil
				}
				var all sync.WaitGroup
				for range 3 {
					all.Go(func() {
						if d, err := f.Do(t.Context(), []byte("k"), time.Second, ask); err != nil || !d.Allowed {
							t.Errorf("%v, %v", d, err)
						}
					})
				}
				all.Wait()
			})
		})
	}
}

func TestAnErrorIsToldToAllWhoWaitedAndNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f cache.Flight
		failed := policy.Errorf(policy.Failed, "policy failed")
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if d, err := f.Do(t.Context(), []byte("k"), time.Minute, func(context.Context) (policy.Decision, error) {
					<-time.After(time.Second)
					return policy.Decision{}, failed
				}); !errors.Is(err, failed) || d.Allowed {
					t.Errorf("%v, %v", d, err)
				}
			})
		}
		all.Wait()
		if d, err := f.Do(t.Context(), []byte("k"), time.Minute, func(context.Context) (policy.Decision, error) { return yes, nil }); err != nil || !d.Allowed {
			t.Errorf("afterwards: %v, %v", d, err)
		}
	})
}
