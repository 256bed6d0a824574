package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

const (
	beaconsName = "beacons.json"
	// beaconsEvery is how often the beacons are written at most. One that is
	// lost by a crash makes what it proves look older, never younger.
	beaconsEvery = 10 * time.Second
	// maxBeacons bounds what is read of their file.
	maxBeacons = 64 << 20
)

// keptBeacon is a beacon in the file of beacons, which is a list of them.
type keptBeacon struct {
	// Origin is when its age was zero, by the clock then: no later than the
	// beacon's time, but for one that came from a clock ahead of ours.
	Origin time.Time `json:"origin"`
	Note   string    `json:"note"`
}

// keepBeacons writes the beacons that count if they have changed and were not
// written lately, or atOnce.
func (l *Live) keepBeacons(now time.Time, atOnce bool) {
	if l.keep.dir == "" {
		return
	}
	switch {
	case atOnce:
		l.keeping.Lock()
	case !l.keeping.TryLock():
		return // somebody else does it
	}
	defer l.keeping.Unlock()
	if since := now.Sub(l.keptBeacons); !atOnce && since >= 0 && since < beaconsEvery {
		return
	}
	all, changed := l.countingBeacons()
	if !changed {
		return
	}
	l.keptBeacons = now
	raw, err := json.Marshal(all)
	if err == nil {
		err = replaceFile(filepath.Join(l.keep.dir, beaconsName), false, raw)
	}
	if err != nil && l.keptErr == nil {
		l.tell(BeaconsNotKept{Err: err})
	}
	l.keptErr = err
}

// countingBeacons returns the beacons that prove something, or will, each once;
// changed is false if they are those that it returned last.
func (l *Live) countingBeacons() (all []keptBeacon, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.beatsChanged {
		return nil, false
	}
	l.beatsChanged = false
	seen := make(map[*bundles.SignedBeacon]bool, len(l.beats))
	for _, b := range l.beats {
		for _, t := range []*taken{b.proof, b.last} {
			if t != nil && !seen[t.beacon] {
				seen[t.beacon] = true
				all = append(all, keptBeacon{Origin: t.origin.Round(0), Note: string(t.beacon.Note())})
			}
		}
	}
	return all, true
}

// Close writes to disk what was proven last. A Live that is not closed may look
// some seconds older after a restart.
func (l *Live) Close() { l.keepBeacons(l.config.Now(), true) }

// loadBeacons takes the beacons that were kept, each verified again. What is
// wrong with them is an event: what they would have proven looks older.
func (l *Live) loadBeacons() {
	now := l.config.Now()
	kept, err := l.keep.beacons()
	for _, e := range l.takeKept(kept, err, now) {
		l.tell(e)
	}
}

// takeKept takes what was kept, or could not be read, and returns the events.
func (l *Live) takeKept(kept []keptBeacon, err error, now time.Time) (events []Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := func(err error) {
		if err != nil {
			events = l.refuseBeacon(events, "", fmt.Errorf("beacons kept on disk: %w", err), now)
		}
	}
	lost(err)
	var opened []*taken // without a head
	for _, k := range kept {
		b, err := l.trust.OpenBeacon([]byte(k.Note))
		if err == nil {
			err = l.usable(b, now)
		}
		if err != nil {
			lost(err)
			continue
		}
		t := newTaken(b, policy.Version{}, now)
		if k.Origin.Before(t.origin) {
			t.origin = now.Add(-now.Sub(k.Origin))
		}
		opened = append(opened, t)
	}
	slices.SortStableFunc(opened, func(a, b *taken) int { return a.beacon.Time().Compare(b.beacon.Time()) })
	wanted := l.followed()
	for _, t := range opened {
		for _, head := range t.beacon.Heads() {
			if n := head.Namespace; wanted == nil || slices.Contains(wanted, n) {
				l.beats[n] = beat{last: &taken{t.beacon, head, t.origin}, proof: l.beats[n].last}
			}
		}
	}
	return events
}

// beacons returns those that are kept, verified by nobody.
func (k *keep) beacons() (all []keptBeacon, err error) {
	if k.dir == "" {
		return nil, nil
	}
	path := filepath.Join(k.dir, beaconsName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxBeacons {
		return nil, policy.Errorf(policy.Exhausted, "%s is %d bytes, more than beacons can be", path, info.Size())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, policy.Errorf(policy.BadRequest, "%s is damaged (%w); it is written anew with the next beacon", path, err)
	}
	return all, nil
}
