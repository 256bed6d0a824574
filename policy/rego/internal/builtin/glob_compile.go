package builtin

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gobwas/glob"
	"github.com/gobwas/glob/syntax"
)

// globProgram is a compiled glob.
//
// The library's lexer reads the pattern, and its errors are the ones that are
// reported. But its matcher goes back and tries again: "*a*a*a*a*b" with a
// delimiter takes time exponential in the number of stars, and cannot be stopped.
// So the matcher is our own: it never tries the same thing twice, and it asks the
// meter.
type globProgram struct {
	code []globStep
	// branches is how many steps of the program can go on in several ways.
	branches int
	// delimiters, as a list and as a string.
	delimiters     []rune
	delimitersText string
}

type globOp uint8

// The steps of a program. Each goes on with the next one, unless it says
// otherwise.
const (
	globEnd   globOp = iota // the text must end here
	globText                // text
	globAny                 // one character that is no delimiter
	globClass               // one character of class
	globStar                // characters that are no delimiters
	globSuper               // characters
	globEach                // goes on at each of targets
	globJump                // goes on at targets[0]
)

type globStep struct {
	op      globOp
	text    string
	class   *class
	targets []int
	branch  int // the number of a globStar, globSuper or globEach
}

// compileGlob compiles a pattern.
func compileGlob(c *Call, pattern, delimiters string) (*compiled[*globProgram], error) {
	e := &compiled[*globProgram]{pattern: strings.Clone(pattern), options: strings.Clone(delimiters)}
	n := int64(len(pattern) + len(delimiters))
	if err := e.charge(c, 20+10*n, 256+100*n); err != nil {
		return nil, err
	}
	p := globParser{lexer: syntax.NewLexer(e.pattern)}
	if e.err = p.parse(); e.err == nil {
		p.number()
		e.value = &globProgram{code: p.code, branches: p.branches, delimiters: []rune(e.options), delimitersText: e.options}
	}
	return e, nil
}

// globParser makes a program of what the lexer reads.
type globParser struct {
	lexer    *syntax.Lexer
	code     []globStep
	branches int
	groups   []globGroup
}

// globGroup is a list of alternatives in braces that has not been closed yet.
type globGroup struct {
	each  int   // its globEach
	jumps []int // from the ends of its alternatives
}

func (p *globParser) fail(reason string) error {
	return &glob.SyntaxError{Offset: p.lexer.Offset(), Reason: reason}
}

func (p *globParser) emit(s globStep) { p.code = append(p.code, s) }

// number numbers the branches. A star at the very end takes what is left, and is
// none.
func (p *globParser) number() {
	for i := range p.code {
		s := &p.code[i]
		switch s.op {
		case globStar, globSuper:
			if p.code[i+1].op == globEnd {
				continue
			}
		case globEach:
		default:
			continue
		}
		s.branch = p.branches
		p.branches++
	}
}

func (p *globParser) parse() error {
	for {
		switch token := p.lexer.Next(); token.Type {
		case syntax.EOF:
			if len(p.groups) > 0 {
				return p.fail("unclosed `{`")
			}
			p.emit(globStep{op: globEnd})
			return nil
		case syntax.Error:
			return p.fail(token.Data)
		case syntax.Text:
			p.emit(globStep{op: globText, text: token.Data})
		case syntax.Single:
			p.emit(globStep{op: globAny})
		case syntax.Any:
			p.emit(globStep{op: globStar})
		case syntax.Super:
			p.emit(globStep{op: globSuper})
		case syntax.RangeOpen:
			class, err := p.class()
			if err != nil {
				return err
			}
			p.emit(globStep{op: globClass, class: class})
		case syntax.TermsOpen:
			p.groups = append(p.groups, globGroup{each: len(p.code)})
			p.emit(globStep{op: globEach})
			p.alternative()
		case syntax.TermSeparator:
			p.endAlternative()
			p.alternative()
		case syntax.TermsClose:
			p.endAlternative()
			group := p.groups[len(p.groups)-1]
			p.groups = p.groups[:len(p.groups)-1]
			for _, jump := range group.jumps {
				p.code[jump].targets = []int{len(p.code)}
			}
		default:
			return p.fail("unexpected token " + token.String())
		}
	}
}

// alternative begins an alternative of the innermost group, and endAlternative
// ends it.
func (p *globParser) alternative() {
	each := &p.code[p.groups[len(p.groups)-1].each]
	each.targets = append(each.targets, len(p.code))
}

func (p *globParser) endAlternative() {
	group := &p.groups[len(p.groups)-1]
	group.jumps = append(group.jumps, len(p.code))
	p.emit(globStep{op: globJump})
}

// class reads a character class after its bracket.
func (p *globParser) class() (*class, error) {
	s := &class{lo: -1, hi: -1}
	for {
		switch token := p.lexer.Next(); token.Type {
		case syntax.EOF:
			return nil, p.fail("unclosed `[`")
		case syntax.Error:
			return nil, p.fail(token.Data)
		case syntax.Not:
			s.not = true
		case syntax.RangeLo:
			r, width := utf8.DecodeRuneInString(token.Data)
			if len(token.Data) > width {
				return nil, p.fail("unexpected length of range lo character")
			}
			s.lo = r
		case syntax.RangeHi:
			r, width := utf8.DecodeRuneInString(token.Data)
			if len(token.Data) > width {
				return nil, p.fail("unexpected length of range hi character")
			}
			if s.hi = r; s.hi < s.lo {
				return nil, p.fail("range hi character is less than lo")
			}
		case syntax.Text:
			s.list = []rune(token.Data)
			slices.Sort(s.list)
		case syntax.RangeClose:
			if isRange := s.lo >= 0 && s.hi >= 0; isRange == (s.list != nil) {
				return nil, p.fail("could not parse range")
			}
			return s, nil
		}
	}
}
