package builtin

import (
	"regexp"
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// regexes are the functions on regular expressions of package regexp.
var regexes = []*Builtin{
	{Name: "regex.match", Func: regexMatch("regex.match", compileFor), binds: []int{0}, bind: bindRegex("regex.match", 0, regexMatch)},
	{Name: "re_match", Func: regexMatch("re_match", compileFor), binds: []int{0}, bind: bindRegex("re_match", 0, regexMatch)},
	{Name: "regex.find_n", Func: regexFind("regex.find_n", compileFor), binds: []int{0}, bind: bindRegex("regex.find_n", 0, regexFind)},
	{Name: findSubmatches, Func: regexFindSubmatches(findSubmatches, compileFor), binds: []int{0}, bind: bindRegex(findSubmatches, 0, regexFindSubmatches)},
	{Name: "regex.split", Func: regexSplit("regex.split", compileFor), binds: []int{0}, bind: bindRegex("regex.split", 0, regexSplit)},
	{Name: "regex.replace", Func: regexReplace("regex.replace", compileFor), binds: []int{1}, bind: bindRegex("regex.replace", 1, regexReplace)},
	{Name: "regex.template_match", Func: regexTemplateMatch, binds: []int{0, 2, 3}, bind: bindRegexTemplateMatch},
	{Name: "regex.is_valid", Func: regexIsValid, Total: true},
	{Name: "regex.globs_match", Func: globsMatch},
}

const findSubmatches = "regex.find_all_string_submatch_n"

// A compiler compiles the pattern of a call.
type compiler func(c *Call, name, pattern string) (*regex, error)

func compileFor(c *Call, name, pattern string) (*regex, error) {
	e, err := compiledRegexes.get(c, pattern, "")
	if err != nil {
		return nil, err
	}
	if e.err != nil {
		return nil, fail(name, "%v", e.err)
	}
	return e.value, nil
}

// bindRegex compiles a pattern that is a constant.
func bindRegex(name string, position int, of func(name string, compile compiler) Func) func(c *Call, consts []value.Value) (Func, error) {
	return func(c *Call, consts []value.Value) (Func, error) {
		pattern, err := textOf(name, position+1, consts[position])
		if err != nil {
			return nil, err
		}
		r, err := compileFor(c, name, pattern)
		if err != nil {
			return nil, err
		}
		return of(name, func(*Call, string, string) (*regex, error) { return r, nil }), nil
	}
}

func regexMatch(name string, compile compiler) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		pattern, text, err := twoTexts(name, args)
		if err != nil {
			return value.Value{}, err
		}
		r, err := compile(c, name, pattern)
		if err != nil {
			return value.Value{}, err
		}
		matched, err := r.match(c, text)
		return value.Boolean(matched), err
	}
}

func regexIsValid(c *Call, args []value.Value) (value.Value, error) {
	if args[0].Kind() != value.String {
		return value.False, c.Step(1)
	}
	e, err := compiledRegexes.get(c, args[0].Text(), "")
	if err != nil {
		return value.Value{}, err
	}
	return value.Boolean(e.err == nil), nil
}

// searchFor returns the operands of a search for n matches.
func searchFor(c *Call, name string, compile compiler, args []value.Value) (r *regex, text string, n int, err error) {
	pattern, text, err := twoTexts(name, args)
	if err != nil {
		return nil, "", 0, err
	}
	limit, err := integer(name, 3, args[2])
	if err != nil {
		return nil, "", 0, err
	}
	r, err = compile(c, name, pattern)
	return r, text, int(limit), err
}

func regexFind(name string, compile compiler) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		r, text, n, err := searchFor(c, name, compile, args)
		if err != nil {
			return value.Value{}, err
		}
		list := value.NewArray()
		err = r.each(c, text, n, func(at []int) error {
			list.Append(value.Text(text[at[0]:at[1]]))
			return c.Bytes(elemBytes)
		})
		return list, err
	}
}

func regexFindSubmatches(name string, compile compiler) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		r, text, n, err := searchFor(c, name, compile, args)
		if err != nil {
			return value.Value{}, err
		}
		list := value.NewArray()
		err = r.each(c, text, n, func(at []int) error {
			if err := c.Bytes(int64(len(at)/2+2) * elemBytes); err != nil {
				return err
			}
			groups := make([]value.Value, len(at)/2)
			for i := range groups {
				groups[i] = value.Text("")
				if at[2*i] >= 0 {
					groups[i] = value.Text(text[at[2*i]:at[2*i+1]])
				}
			}
			list.Append(value.NewArray(groups...))
			return nil
		})
		return list, err
	}
}

// regexSplit does what [regexp.Regexp.Split] does.
func regexSplit(name string, compile compiler) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		pattern, text, err := twoTexts(name, args)
		if err != nil {
			return value.Value{}, err
		}
		r, err := compile(c, name, pattern)
		if err != nil {
			return value.Value{}, err
		}
		if pattern != "" && text == "" {
			return value.NewArray(value.Text("")), nil
		}
		list := value.NewArray()
		begin, end := 0, 0
		err = r.each(c, text, -1, func(at []int) error {
			end = at[0]
			if at[1] != 0 {
				list.Append(value.Text(text[begin:end]))
			}
			begin = at[1]
			return c.Bytes(elemBytes)
		})
		if err == nil && end != len(text) {
			list.Append(value.Text(text[begin:]))
		}
		return list, err
	}
}

func regexReplace(name string, compile compiler) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		text, pattern, err := twoTexts(name, args)
		if err != nil {
			return value.Value{}, err
		}
		template, err := textOf(name, 3, args[2])
		if err != nil {
			return value.Value{}, err
		}
		r, err := compile(c, name, pattern)
		if err != nil {
			return value.Value{}, err
		}
		result, err := r.replace(c, text, template)
		return value.Text(result), err
	}
}

// replace puts a template, with the groups of the match put in, in the place of
// each match.
func (r *regex) replace(c *Call, text, template string) (string, error) {
	groups := int64(strings.Count(template, "$"))
	var result []byte
	end := 0
	err := r.each(c, text, -1, func(at []int) error {
		// A group is no longer than the match.
		size := int64(at[0]-end) + int64(len(template)) + groups*int64(at[1]-at[0])
		if err := c.Bytes(size); err != nil {
			return err
		}
		if err := c.block(1 + 4*groups + size/16); err != nil {
			return err
		}
		result = append(result, text[end:at[0]]...)
		result = r.ExpandString(result, template, text, at)
		end = at[1]
		return nil
	})
	if err != nil || result == nil && end == 0 {
		return text, err
	}
	if err := c.Work(textSteps(len(text)-end), int64(2*len(result)+len(text)-end)); err != nil {
		return "", err
	}
	return string(append(result, text[end:]...)), nil
}

func regexTemplateMatch(c *Call, args []value.Value) (value.Value, error) {
	const name = "regex.template_match"
	for i, arg := range args {
		if arg.Kind() != value.String {
			return value.Value{}, wrongType(name, i+1, arg, "string")
		}
	}
	r, err := compileTemplate(c, name, args[0].Text(), args[2].Text(), args[3].Text())
	if err != nil {
		return value.Value{}, err
	}
	matched, err := r.match(c, args[1].Text())
	return value.Boolean(matched), err
}

func bindRegexTemplateMatch(c *Call, consts []value.Value) (Func, error) {
	const name = "regex.template_match"
	for i, v := range consts {
		if i != 1 && v.Kind() != value.String {
			return nil, wrongType(name, i+1, v, "string")
		}
	}
	r, err := compileTemplate(c, name, consts[0].Text(), consts[2].Text(), consts[3].Text())
	if err != nil {
		return nil, err
	}
	return func(c *Call, args []value.Value) (value.Value, error) {
		text, err := textOf(name, 2, args[1])
		if err != nil {
			return value.Value{}, err
		}
		matched, err := r.match(c, text)
		return value.Boolean(matched), err
	}, nil
}

func compileTemplate(c *Call, name, template, start, end string) (*regex, error) {
	if len(start) != 1 {
		return nil, fail(name, "start delimiter has to be exactly one character long but is %d long", len(start))
	}
	if len(end) != 1 { // OPA says how long the other one is
		return nil, fail(name, "end delimiter has to be exactly one character long but is %d long", len(start))
	}
	pattern, err := templatePattern(c, name, template, start[0], end[0])
	if err != nil {
		return nil, err
	}
	return compileFor(c, name, pattern)
}

// templatePattern makes a regular expression of a template, in which regular
// expressions stand between delimiters that may be nested.
func templatePattern(c *Call, name, template string, start, end byte) (string, error) {
	if err := c.Work(1+int64(len(template)), 4*int64(len(template))); err != nil {
		return "", err
	}
	var pattern strings.Builder
	pattern.WriteByte('^')
	level, open, after := 0, 0, 0
	var first error // of the expressions: what is unbalanced is said before
	for i := range len(template) {
		switch template[i] {
		case start:
			if level++; level == 1 {
				open = i
			}
		case end:
			if level--; level < 0 {
				return "", fail(name, "unbalanced braces in %q", template)
			} else if level > 0 {
				continue
			}
			expression := template[open+1 : i]
			pattern.WriteString(regexp.QuoteMeta(template[after:open]))
			pattern.WriteString("(" + expression + ")")
			if first == nil {
				_, first = compileFor(c, name, "^"+expression+"$")
			}
			after = i + 1
		}
	}
	if level != 0 {
		return "", fail(name, "unbalanced braces in %q", template)
	}
	pattern.WriteString(regexp.QuoteMeta(template[after:]) + "$")
	return pattern.String(), first
}
