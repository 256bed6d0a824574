package builtin

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// globWalk is a match that is under way: it goes through the program, remembers
// the ways it did not take, and takes them when it is stuck. Each branch of the
// program is taken at each place of the text once: what failed there fails again.
//
// It belongs to a Call, which uses it again.
type globWalk struct {
	*globProgram
	text string
	// ways that have not been taken.
	ways []globWay
	// seen has a bit for every branch at every place.
	seen []uint64
	// The first delimiter at from or after it is at to.
	from, to int
	steps    int64 // not charged yet
}

// globWay is a way that was not taken: a step, and a place in the text; of a
// globEach the alternative.
type globWay struct {
	step, at, alternative int
}

// kept bounds what of a walk is kept for the next one.
const kept = 1 << 10

// match reports whether the text as a whole matches.
func (g *globProgram) match(c *Call, text string) (bool, error) {
	w := c.walk
	if w == nil || cap(w.ways) > kept || cap(w.seen) > kept {
		w = &globWalk{}
		c.walk = w
	}
	w.globProgram, w.text, w.ways, w.seen = g, text, w.ways[:0], w.seen[:0]
	w.from, w.to, w.steps = 0, -1, 1
	if g.branches > 1 { // a single one is never taken twice at a place
		words := g.branches*(len(text)+1)/64 + 1
		if err := c.Work(int64(words)/8, 8*int64(words)); err != nil {
			return false, err
		}
		w.seen = append(w.seen, make([]uint64, words)...)
	}
	matched, err := w.goOn(c)
	w.globProgram, w.text = nil, ""
	return matched, err
}

// goOn takes one way after the other.
func (w *globWalk) goOn(c *Call) (bool, error) {
	room := 16
	way := globWay{}
	for {
		if w.run(way) {
			return true, c.Step(w.steps)
		}
		if w.steps >= chunk {
			if err := c.Step(w.steps); err != nil {
				return false, err
			}
			w.steps = 0
		}
		if len(w.ways) == 0 {
			return false, c.Step(w.steps + 1)
		}
		if more := len(w.ways) - room; more > 0 {
			if err := c.Bytes(48 * int64(more)); err != nil {
				return false, err
			}
			room += more
		}
		way = w.ways[len(w.ways)-1]
		w.ways = w.ways[:len(w.ways)-1]
	}
}

// run goes on from a place until the program ends or is stuck.
func (w *globWalk) run(way globWay) bool {
	at := way.at
	for i := way.step; ; {
		w.steps++
		s := &w.code[i]
		rest := w.text[at:]
		switch s.op {
		case globEnd:
			return rest == ""
		case globText:
			if !strings.HasPrefix(rest, s.text) {
				return false
			}
			at += len(s.text)
			w.steps += textSteps(len(s.text))
		case globAny, globClass:
			r, n := utf8.DecodeRuneInString(rest)
			if n == 0 || s.op == globAny && slices.Contains(w.delimiters, r) || s.op == globClass && !s.class.has(r) {
				return false
			}
			at += n
		case globStar, globSuper:
			next := &w.code[i+1]
			if next.op == globEnd {
				return s.op == globSuper || w.reach(at) == len(rest)
			}
			if w.isSeen(s.branch, at) {
				return false
			}
			if next.op == globText {
				found := w.jump(s.op, i, at, next.text)
				if found < 0 {
					return false
				}
				at = found + len(next.text)
				i++
			} else if r, n := utf8.DecodeRuneInString(rest); n > 0 && (s.op == globSuper || !slices.Contains(w.delimiters, r)) {
				w.later(globWay{i, at + n, 0})
			}
		case globEach:
			if way.alternative == 0 && w.isSeen(s.branch, at) {
				return false
			}
			if next := way.alternative + 1; next < len(s.targets) {
				w.later(globWay{i, at, next})
			}
			i = s.targets[way.alternative]
			way.alternative = 0
			continue
		case globJump:
			i = s.targets[0]
			continue
		}
		i++
	}
}

// jump returns the first place where the text that must come after a star is, or
// -1. The star may go on beyond that place, too.
func (w *globWalk) jump(op globOp, i, at int, next string) int {
	rest := w.text[at:]
	reach := len(rest)
	if op == globStar {
		reach = w.reach(at)
	}
	end := min(reach+len(next), len(rest))
	j := strings.Index(rest[:end], next)
	if j < 0 {
		w.steps += textSteps(end)
		return -1
	}
	w.steps += textSteps(j)
	if j < reach {
		_, n := utf8.DecodeRuneInString(rest[j:])
		w.later(globWay{i, at + j + n, 0})
	}
	return at + j
}

// reach returns how far a star may go.
func (w *globWalk) reach(at int) int {
	if at < w.from || at > w.to {
		w.from, w.to = at, len(w.text)
		if i := strings.IndexAny(w.text[at:], w.delimitersText); i >= 0 {
			w.to = at + i
		}
		w.steps += textSteps(w.to-at) * int64(len(w.delimiters)+1)
	}
	return w.to - at
}

func (w *globWalk) later(way globWay) {
	w.ways = append(w.ways, way)
	w.steps++
}

// isSeen reports whether a branch has been taken at a place, and notes that it
// is taken now.
func (w *globWalk) isSeen(branch, at int) bool {
	if len(w.seen) == 0 {
		return false
	}
	bit := branch*(len(w.text)+1) + at
	word, mask := &w.seen[bit/64], uint64(1)<<(bit%64)
	seen := *word&mask != 0
	*word |= mask
	return seen
}
