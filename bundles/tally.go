package bundles

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// tally says how far a note has come with its signatures. It counts different
// public keys, whatever their names.
type tally struct {
	// signed are those who may sign and have, one name for each public key;
	// able those who may and have not.
	signed, able []string
	// missing is how many more must sign.
	missing int
}

// want says who of those that what names must still sign.
func (t tally) want(what string) string {
	have := fmt.Sprintf("%d different keys of %s have", len(t.signed), what)
	if len(t.signed) == 1 {
		have = fmt.Sprintf("1 key of %s has", what)
	}
	return fmt.Sprintf("%s signed it (%s), %d must; still may: %s (microwall cosign)",
		have, cmp.Or(strings.Join(t.signed, ", "), "none"), len(t.signed)+t.missing, strings.Join(t.able, ", "))
}

// count returns which of the keys of q have signed a note. Who signed besides is
// of no account. The error says that the note was tampered with.
func (t *Trust) count(signed []byte, text string, q quorum) (tally, error) {
	verifiers := make([]note.Verifier, len(q.names))
	for i, name := range q.names {
		verifiers[i] = t.keys[name].verifier
	}
	opened, err := note.Open(signed, note.VerifierList(verifiers...))
	found := tally{missing: q.threshold}
	counted := map[string]bool{}
	if unverified := (*note.UnverifiedNoteError)(nil); errors.As(err, &unverified) {
		opened, err = unverified.Note, nil
	}
	switch {
	case err != nil:
		return tally{}, fmt.Errorf("%w; it was changed after it was signed", err)
	case opened.Text != text:
		return tally{}, errors.New("it reads differently the second time")
	}
	for _, s := range opened.Sigs {
		if public := t.keys[s.Name].public; !counted[public] {
			counted[public] = true
			found.signed = append(found.signed, s.Name)
		}
	}
	for _, name := range q.names {
		if public := t.keys[name].public; !counted[public] {
			counted[public] = true
			found.able = append(found.able, name)
		}
	}
	slices.Sort(found.able)
	found.missing = max(0, q.threshold-len(found.signed))
	return found, nil
}
