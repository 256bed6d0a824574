package front

import (
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// A lexer counts what the parser will find in a text: the tokens, those that it
// copies, and those that it looks for or quotes. A rule's head is copied for each
// further body, `{...}` behind another, and for each else. A rule without a body is
// parsed twice; the second time each part of what stands in brackets behind its name
// is looked for among all of them.
//
// It never counts too little of what is Rego; what is not, the parser does not
// parse far. It leaves out comments and strings, but not where there are
// templates, whose strings have code in them: then it takes everything for code,
// and all before a copy for the head.
type lexer struct {
	text string
	v0   bool // `if` is a name

	tokens, copies int
	worst          int // line of the head that is copied most
	endless        int // line of the first number of too many digits; 0 if there is none

	lookups, longest int
	longestLine      int // that the longest name ends in; 0 if it may be any

	templates bool
	line      int
	depth     int    // of brackets
	last      string // token
	lastLine  int    // that it is in

	// Of the statement that it is in:
	start, startLine int
	head             int // tokens of what is copied; 0 while it goes on
	copied           int
	most             int // copied of another

	// What the parser may complain of in a default rule: its line each time.
	quoted                     int // bytes, in all
	defaultLine                int // bytes of the line of the last `default`; 0 before the first
	lineEnd                    int // where that line ends
	longestDefault, mostQuoted int // bytes of the longest, and which line that is

	naming bool // in brackets behind a name
	name   int  // tokens in these
}

func (l *lexer) run() {
	l.templates = strings.Contains(l.text, "$\"") || strings.Contains(l.text, "$`")
	l.line, l.startLine = 1, 1
	for i := 0; i < len(l.text); {
		c := l.text[i]
		end := i + 1
		switch {
		case c == '\n':
			l.line++
		case c == ' ' || c == '\t' || c == '\r':
		case c == '#' && !l.templates:
			end = after(l.text, i, "\n")
			l.line++
		case c == '`' && !l.templates:
			end = after(l.text, i+1, "`")
			l.token("`")
			l.line += strings.Count(l.text[i:end], "\n")
		case c == '"' && !l.templates:
			end = quoted(l.text, i)
			l.token("`")
		case inWord(c):
			for end < len(l.text) && inWord(l.text[end]) {
				end++
			}
			if n := digits(l.text[i:end]); n > value.MaxNumeral && l.endless == 0 {
				l.endless = l.line
			}
			if l.text[i:end] == "default" && l.last != "." {
				l.quote(i)
			}
			l.token(l.text[i:end])
		default:
			l.token(l.text[i:end])
		}
		i = end
	}
	l.named()
	if l.templates {
		l.lookups, l.longestLine = l.tokens*l.tokens, 0
	}
}

// quote finds how long the line is that a default rule begins in.
func (l *lexer) quote(at int) {
	if at < l.lineEnd {
		return // it is the same
	}
	l.lineEnd = after(l.text, at, "\n")
	l.defaultLine = l.lineEnd - strings.LastIndexByte(l.text[:at], '\n') - 1
	if l.defaultLine > l.longestDefault {
		l.longestDefault, l.mostQuoted = l.defaultLine, l.line
	}
}

func inWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// digits returns how many a word begins with.
func digits(word string) int {
	return len(word) - len(strings.TrimLeft(word, "0123456789"))
}

// after returns where a text goes on after the next sep, or its end.
func after(text string, i int, sep string) int {
	if n := strings.Index(text[i:], sep); n >= 0 {
		return i + n + len(sep)
	}
	return len(text)
}

// quoted returns where a text goes on after the string that begins at i: after a
// quote that is not escaped, or at the end of the line, where the parser gives up.
func quoted(text string, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		case '\n':
			return i
		}
	}
	return len(text)
}

func (l *lexer) token(t string) {
	l.tokens++
	l.quoted += l.defaultLine
	top := l.depth == 0 || l.templates
	if l.depth == 0 && l.line != l.lastLine && !l.templates && begins(t) && ends(l.last) {
		l.start, l.startLine, l.head, l.copied = l.tokens-1, l.line, 0, 0
	}
	switch {
	case top && (t == "else" || t == "{" && l.last == "}"):
		n := l.tokens - l.start
		if l.head > 0 {
			n = l.head
		}
		l.copies += n
		if l.copied += n; l.copied > l.most {
			l.most, l.worst = l.copied, l.startLine
		}
	case top && t == "if" && l.head == 0 && !l.v0 && !l.templates:
		l.head = l.tokens - l.start
	}
	switch {
	case l.depth > 0:
		if l.naming {
			l.name++
		}
	case (t == "(" || t == "[") && l.last != "" && (strings.Contains(")]}`", l.last) || inWord(l.last[0])):
		l.naming = true
	case t != "." && l.last != ".":
		l.named()
	}
	switch t {
	case "(", "[", "{":
		l.depth++
	case ")", "]", "}":
		l.depth = max(0, l.depth-1)
	}
	l.last, l.lastLine = t, l.line
}

// named ends a name.
func (l *lexer) named() {
	l.lookups += l.name * l.name
	if l.name > l.longest {
		l.longest, l.longestLine = l.name, l.lastLine
	}
	l.name, l.naming = 0, false
}

// begins reports whether a statement may begin with a token on a new line, and
// ends whether one may end with it: two such tokens cannot follow each other in
// the head of a rule.
func begins(t string) bool { return inWord(t[0]) && !continues[t] }

func ends(t string) bool {
	return t == "" || strings.Contains(")]}`", t) || inWord(t[0]) && !continues[t]
}

var continues = map[string]bool{
	"default": true, "contains": true, "if": true, "else": true, "in": true, "with": true, "as": true, "some": true, "every": true,
	"not": true, "and": true, "or": true, "import": true, "package": true,
}
