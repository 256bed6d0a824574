package builtin

import (
	"io"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/microwall/microwall/policy/rego/internal/budget"
)

// regex is a compiled regular expression, and what it costs to use it.
//
// Package regexp takes time linear in the text: at most every instruction of the
// program at every character. But a program may be large ("(\pL{1000}){9}" has
// fifteen characters), and a search for all matches begins anew after each, so
// that it may look at the text as often as it has characters. And nothing in
// package regexp can be interrupted, except where it reads the text from an
// io.RuneReader: what takes long is done so.
type regex struct {
	*regexp.Regexp
	// insts is how many instructions the program has, or somewhat more.
	insts int64
	// copies is how much more an instruction costs because it copies what the
	// groups have matched so far.
	copies int64
	// later finds the first match after the first character of a text. It is nil
	// if the expression cannot be made a part of another one.
	later func() *regexp.Regexp
}

var compiledRegexes = patterns[*regex]{compile: compileRegex}

// compileRegex compiles a regular expression. The costs are upper bounds, found
// by measuring package regexp with what takes it longest.
func compileRegex(c *Call, pattern, _ string) (*compiled[*regex], error) {
	e := &compiled[*regex]{pattern: strings.Clone(pattern)}
	if err := e.charge(c, parseSteps(pattern), int64(len(pattern))); err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(e.pattern, syntax.Perl)
	if err != nil {
		e.err = err
		return e, nil //nolint:nilerr // an entry remembers why its pattern is none
	}
	var s regexShape
	insts := s.instructions(tree) + 2
	if err := e.charge(c, 30*insts+s.alternatives*(s.runes+2*s.alternatives)/2, 150*insts+8*s.runes); err != nil {
		return nil, err
	}
	re, err := regexp.Compile(e.pattern)
	if err != nil {
		e.err = err
		return e, nil //nolint:nilerr // as above
	}
	e.value = &regex{Regexp: re, insts: insts, copies: 1 + int64(re.NumSubexp())/2, later: sync.OnceValue(func() *regexp.Regexp {
		if strings.Contains(e.pattern, `\Q`) { // it may have no end
			return nil
		}
		// What is before the first match is as short as possible, so that it is the
		// first; the assertions in front of it see the first character.
		later, err := regexp.Compile(`\A(?s:.)(?s:.*?)(` + e.pattern + `)`)
		if err != nil {
			return nil
		}
		return later
	})}
	return e, nil
}

// parseSteps bounds the steps for parsing a pattern, which is linear in its
// length but for classes: one of Unicode has a thousand ranges to put in order,
// and a range whose end is not ASCII is gone through character by character if
// case does not matter.
func parseSteps(pattern string) int64 {
	const (
		perByte     = 50
		perCategory = 15_000
		perRange    = 500_000
	)
	steps := perByte * int64(len(pattern)+1)
	folds := false
	for i := 0; i+1 < len(pattern); i++ {
		rest := pattern[i+1:]
		switch pattern[i] {
		case '\\':
			if rest[0] == 'p' || rest[0] == 'P' {
				steps += perCategory
			}
		case '(':
			if rest[0] == '?' {
				flags := strings.TrimLeft(rest[1:], "msU-")
				folds = folds || strings.HasPrefix(flags, "i")
			}
		case '-':
			hex := rest[0] == '\\' && len(rest) > 1 && (rest[1] == 'x' || rest[1] >= '0' && rest[1] <= '9')
			if folds && (rest[0] >= utf8.RuneSelf || hex) {
				steps += perRange
			}
		}
	}
	return steps
}

// regexShape is what the cost of compiling a regular expression depends on.
type regexShape struct {
	alternatives int64 // branches of the program that come together
	runes        int64 // in classes
}

// instructions bounds how many instructions a program has: counted repetitions
// are written out.
func (s *regexShape) instructions(re *syntax.Regexp) int64 {
	n := int64(len(re.Sub))
	for _, sub := range re.Sub {
		n += s.instructions(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		return int64(len(re.Rune))
	case syntax.OpCharClass:
		s.runes += int64(len(re.Rune))
		return 1
	case syntax.OpCapture:
		return n + 1
	case syntax.OpAlternate:
		s.alternatives += int64(len(re.Sub))
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest:
		s.alternatives++
		return n + 1
	case syntax.OpRepeat:
		s.alternatives++
		times := int64(re.Max)
		if re.Max < 0 {
			times = int64(re.Min) + 1
		}
		return budget.Product(max(times, 1), n+1)
	}
	return max(n, 1)
}

// match reports whether the text has a match.
func (r *regex) match(c *Call, text string) (bool, error) {
	steps := budget.Product(r.insts, int64(len(text))+1)
	if steps <= maxBlock {
		if err := r.setOut(c, steps); err != nil {
			return false, err
		}
		return r.MatchString(text), nil
	}
	in := &runes{c: c, text: text, cost: 2 * r.insts}
	if err := r.setOut(c, in.cost); err != nil {
		return false, err
	}
	matched := r.MatchReader(in)
	return matched, in.err
}

// setOut charges for a search, and for what package regexp keeps of the state of
// a large program.
func (r *regex) setOut(c *Call, steps int64) error {
	if r.insts > 1000 {
		if err := c.Bytes(64 * r.insts * r.copies); err != nil {
			return err
		}
	}
	return c.block(steps)
}

// each calls do with the place of each match and of its groups, up to n of them,
// or all if n is negative.
func (r *regex) each(c *Call, text string, n int, do func(at []int) error) error {
	if n == 0 {
		return c.Step(1)
	}
	once := budget.Product(r.insts*r.copies, int64(len(text))+1)
	if budget.Product(once, int64(len(text))+1) > maxBlock {
		return r.eachSlowly(c, text, n, do)
	}
	if err := r.setOut(c, once); err != nil {
		return err
	}
	for _, at := range r.FindAllStringSubmatchIndex(text, n) {
		if err := c.Step(r.insts * r.copies); err != nil {
			return err
		}
		if err := do(at); err != nil {
			return err
		}
	}
	return nil
}

// eachSlowly does what package regexp does to find all matches, one by one.
func (r *regex) eachSlowly(c *Call, text string, n int, do func(at []int) error) error {
	if err := c.block(30 * r.insts); err != nil { // for the expression that finds later ones
		return err
	}
	last := -1 // the end of the last match
	for from := 0; n != 0 && from <= len(text); {
		at, err := r.find(c, text, from)
		if err != nil || at == nil {
			return err
		}
		begin, end := at[0], at[1]
		if end > from {
			from = end
		} else if from == len(text) {
			from++
		} else {
			_, width := utf8.DecodeRuneInString(text[from:])
			from += width
		}
		if end == begin && begin == last {
			continue // nothing, right after a match
		}
		last = end
		if err := do(at); err != nil {
			return err
		}
		n--
	}
	return nil
}

// find finds the first match at or after a place.
func (r *regex) find(c *Call, text string, from int) ([]int, error) {
	re, start := r.Regexp, 0
	if from > 0 {
		if re = r.later(); re == nil {
			return nil, budget.ErrSteps
		}
		_, width := utf8.DecodeLastRuneInString(text[:from])
		start = from - width
	}
	in := &runes{c: c, text: text[start:], cost: 2 * r.insts * r.copies}
	if err := r.setOut(c, in.cost); err != nil {
		return nil, err
	}
	at := re.FindReaderSubmatchIndex(in)
	if in.err != nil || at == nil {
		return nil, in.err
	}
	if from > 0 {
		at = at[2:]
		for i := range at {
			if at[i] >= 0 {
				at[i] += start
			}
		}
	}
	return at, nil
}

// runes reads a text for package regexp, and ends it early when the meter says
// so.
type runes struct {
	c    *Call
	text string
	cost int64 // of a character
	err  error
}

func (in *runes) ReadRune() (rune, int, error) {
	if in.text == "" {
		return 0, 0, io.EOF
	}
	if in.err = in.c.Step(in.cost); in.err != nil {
		in.text = ""
		return 0, 0, io.EOF
	}
	r, n := utf8.DecodeRuneInString(in.text)
	in.text = in.text[n:]
	return r, n, nil
}
