package builtin

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// globWalk is a match that is under way: it goes through the program, remembers
// the ways it did not take, and takes them when it is stuck. Each branch of the
// program is taken at each place of the text once: what failed there fails again.
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

// match reports whether the text as a whole matches.
func (g *globProgram) match(c *Call, text string) (bool, error) {
	var ways [16]globWay
	var seen [16]uint64
	w := globWalk{globProgram: g, text: text, ways: ways[:0], seen: seen[:], to: -1}
	room := len(ways)
	if words := g.branches*(len(text)+1)/64 + 1; words > len(seen) {
		if err := c.Work(int64(words)/8, 8*int64(words)); err != nil {
			return false, err
		}
		w.seen = make([]uint64, words)
	}
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
		if more := cap(w.ways) - room; more > 0 {
			if err := c.Bytes(24 * int64(more)); err != nil {
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
			if w.isSeen(s.branch, at) {
				return false
			}
			switch next := &w.code[i+1]; next.op {
			case globEnd:
				w.steps += textSteps(len(rest))
				return s.op == globSuper || w.reach(at) == len(rest)
			case globText:
				w.jump(s.op, i, at, next.text)
			default:
				if r, n := utf8.DecodeRuneInString(rest); n > 0 && (s.op == globSuper || !slices.Contains(w.delimiters, r)) {
					w.later(globWay{i, at + n, 0})
				}
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

// jump lets a star go on at the next place where the text that must come after it
// is.
func (w *globWalk) jump(op globOp, i, at int, next string) {
	rest := w.text[at:]
	if rest == "" {
		return
	}
	reach := len(rest)
	if op == globStar {
		reach = w.reach(at)
	}
	end := min(reach+len(next), len(rest))
	j := strings.Index(rest[1:end], next)
	if j < 0 {
		w.steps += textSteps(end)
		return
	}
	w.steps += textSteps(j)
	if 1+j <= reach {
		w.later(globWay{i, at + 1 + j, 0})
	}
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
	bit := branch*(len(w.text)+1) + at
	word, mask := &w.seen[bit/64], uint64(1)<<(bit%64)
	seen := *word&mask != 0
	*word |= mask
	return seen
}
