package builtin

import (
	"strings"

	gintersect "github.com/yashtewari/glob-intersection"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// globsMatch reports whether there is a string that two globs match. Its globs
// are simple regular expressions: characters, dots and sets, each with a star or
// a plus.
func globsMatch(c *Call, args []value.Value) (value.Value, error) {
	const name = "regex.globs_match"
	a, b, err := twoTexts(name, args)
	if err != nil {
		return value.Value{}, err
	}
	x := meeting{c: c, cost: 1, known: map[suffixes]bool{}}
	for i, text := range []string{a, b} {
		if err := x.charge(text); err != nil {
			return value.Value{}, err
		}
		if x.globs[i], err = gintersect.NewGlob(text); err != nil {
			return value.Value{}, fail(name, "%v", err)
		}
	}
	if !x.trim() {
		return value.False, nil
	}
	meet, err := x.normal(suffixes{})
	return value.Boolean(meet), err
}

// meeting does what gintersect.NonEmpty does, but remembers what it found
// out: that takes exponential time, and cannot be stopped. The steps and their
// order are the same, as there are globs for which the answer depends on them.
type meeting struct {
	c     *Call
	globs [2]gintersect.Glob
	cost  int64 // of comparing two tokens
	known map[suffixes]bool
}

// suffixes are what is left of both globs: of one of them, called the first, from
// i on, of the other one from j on.
type suffixes struct {
	first, i, j int
}

// charge charges for reading a glob: its sets are written out.
func (x *meeting) charge(text string) error {
	members := int64(0)
	runes := []rune(text)
	for i := 1; i+1 < len(runes); i++ {
		if runes[i] != '-' {
			continue
		}
		end := runes[i+1]
		if end == '\\' && i+2 < len(runes) {
			end = runes[i+2]
		}
		members += max(int64(end-runes[i-1]), 0)
	}
	if strings.Contains(text, "[") {
		members += int64(len(text))
		x.cost = max(x.cost, 1+members/4)
	}
	n := int64(len(text))
	if err := x.c.Bytes(64*n + 32*members); err != nil {
		return err
	}
	return x.c.block(20*n + 10*members)
}

func (x *meeting) match(a, b gintersect.Token) (bool, error) {
	return gintersect.Match(a, b), x.c.Step(x.cost)
}

// trim takes away the beginnings and the ends that are the same, but for one
// token each. It reports whether they fit.
func (x *meeting) trim() bool {
	a, b := x.globs[0], x.globs[1]
	plain := func(i, j int) bool {
		return a[i].Flag() == gintersect.FlagNone && b[j].Flag() == gintersect.FlagNone
	}
	from := 0
	for ; from < len(a) && from < len(b) && plain(from, from); from++ {
		if !gintersect.Match(a[from], b[from]) {
			return false
		}
	}
	if from > 0 {
		from--
	}
	i, j := len(a)-1, len(b)-1
	for ; i >= from && j >= from && plain(i, j); i, j = i-1, j-1 {
		if !gintersect.Match(a[i], b[j]) {
			return false
		}
	}
	if i < len(a)-1 {
		i, j = i+1, j+1
	}
	x.globs = [2]gintersect.Glob{a[from : i+1], b[from : j+1]}
	return true
}

func (x *meeting) normal(s suffixes) (bool, error) {
	a, b := x.globs[s.first], x.globs[1-s.first]
	for ; s.i < len(a) && s.j < len(b); s.i, s.j = s.i+1, s.j+1 {
		if a[s.i].Flag() != gintersect.FlagNone || b[s.j].Flag() != gintersect.FlagNone {
			return x.special(s)
		}
		if ok, err := x.match(a[s.i], b[s.j]); !ok || err != nil {
			return false, err
		}
	}
	return s.i == len(a) && s.j == len(b), nil
}

// special is for suffixes of which one begins with a star or a plus.
func (x *meeting) special(s suffixes) (bool, error) {
	if meet, ok := x.known[s]; ok {
		return meet, x.c.Step(1)
	}
	if err := x.c.Work(10, 512); err != nil { // the stack included
		return false, err
	}
	at := s
	if x.globs[s.first][s.i].Flag() == gintersect.FlagNone {
		at = suffixes{1 - s.first, s.j, s.i}
	}
	var meet bool
	var err error
	if x.globs[at.first][at.i].Flag() == gintersect.FlagPlus {
		meet, err = x.plus(at)
	} else {
		meet, err = x.star(at)
	}
	x.known[s] = meet
	return meet, err
}

func (x *meeting) plus(s suffixes) (bool, error) {
	a, b := x.globs[s.first], x.globs[1-s.first]
	if ok, err := x.match(a[s.i], b[s.j]); !ok || err != nil {
		return false, err
	}
	if ok, err := x.star(suffixes{s.first, s.i, s.j + 1}); ok || err != nil {
		return ok, err
	}
	if b[s.j].Flag() == gintersect.FlagNone {
		return false, nil
	}
	return x.normal(suffixes{s.first, s.i + 1, s.j})
}

func (x *meeting) star(s suffixes) (bool, error) {
	a, b := x.globs[s.first], x.globs[1-s.first]
	last := s.i+1 == len(a)
	for j := s.j; j < len(b); j++ {
		if !last {
			ok, err := x.match(b[j], a[s.i+1])
			if ok && err == nil {
				ok, err = x.normal(suffixes{s.first, s.i + 1, j})
			}
			if ok || err != nil {
				return ok, err
			}
		}
		if ok, err := x.match(b[j], a[s.i]); !ok || err != nil {
			return false, err
		}
	}
	return last, nil
}
