package natsserver

import (
	"bytes"
	"crypto/rand"
	"regexp"
	"strconv"

	"github.com/nats-io/nats-server/v2/conf"

	"github.com/microwall/microwall/policy"
)

// inclusion finds what may be the word by which nats-server takes in another file:
// in any case that unicode.ToLower knows, before anything that unicode.IsSpace
// knows. Whether it is that word, or part of a comment, a text or a longer name, only
// nats-server's own parser tells.
var inclusion = regexp.MustCompile(`(?i)([i\x{130}]nclude)[\s\v\x{85}\p{Z}]`)

// checkIncludes refuses settings that take in another file, wherever they do: nobody
// would look at that one for changes, or for who may write to it. No file is read:
// the parser is given other words in place of this one, and where it takes one of
// them for the name of a setting, it would have taken in a file.
func checkIncludes(settings []byte) error {
	found := inclusion.FindAllSubmatchIndex(settings, -1)
	if len(found) == 0 {
		return nil
	}
	word, last := "w"+rand.Text()+"n", 0 // which is nowhere else
	places := make(map[string]int, len(found))
	var replaced []byte
	for n, at := range found {
		replaced = append(replaced, settings[last:at[2]]...)
		last = at[3]
		name := word + strconv.Itoa(n)
		replaced = append(replaced, name...)
		places[name] = at[2]
	}
	all, err := conf.Parse(string(append(replaced, settings[last:]...)))
	if err != nil {
		return unusable(err)
	}
	if at := firstOf(places, all); at >= 0 {
		line := 1 + bytes.Count(settings[:at], []byte("\n"))
		return policy.Errorf(policy.BadRequest, "line %d of the settings of the NATS server includes another file, which nobody would look at for changes, or for who may write to it; put all into one", line)
	}
	return nil
}

// firstOf returns the lowest of the numbers of those names that there are in a
// value, -1 if there is none.
func firstOf(names map[string]int, value any) (first int) {
	first = -1
	take := func(n int) {
		if n >= 0 && (first < 0 || n < first) {
			first = n
		}
	}
	switch value := value.(type) {
	case map[string]any:
		for name, one := range value {
			if n, ok := names[name]; ok {
				take(n)
			}
			take(firstOf(names, one))
		}
	case []any:
		for _, one := range value {
			take(firstOf(names, one))
		}
	}
	return first
}

func unusable(why error) error {
	return policy.Errorf(policy.BadRequest, "the settings of the NATS server cannot be used: %w; `microwall nats-config` prints some that can", why)
}
