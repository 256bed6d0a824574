package bundles

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/policy"
)

const trustHeader = "microwall trust v1\n"

// maxTrustNote is how many bytes a signed trust file has at most.
const maxTrustNote = maxTrust + MaxNote

// SignTrust returns a trust file as a note, so that it can travel to those who
// hold the one before: see [Trust.Next], which says who must sign.
func SignTrust(file []byte, signers ...note.Signer) ([]byte, error) {
	if len(signers) == 0 {
		return nil, policy.Errorf(policy.BadRequest, "nobody signs the trust file; name the keys of its roots, for instance by --key")
	}
	if _, err := ParseTrust(file); err != nil {
		return nil, err
	}
	text := trustHeader + string(file)
	if !strings.HasSuffix(text, "\n") {
		return nil, policy.Errorf(policy.BadRequest, "trust file does not end with a line end; add one")
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == utf8.RuneError }); i >= 0 {
		return nil, policy.Errorf(policy.BadRequest, "trust file, line %d: there is a tab, a carriage return or another control character, which cannot be signed; take it out", strings.Count(text[:i], "\n"))
	}
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		return nil, policy.Errorf(policy.Internal, "cannot sign the trust file: %w", err)
	}
	return signed, nil
}

// Next verifies a signed trust file that takes the place of t: it is of the same
// domain, its version is the next one, its epoch is not lower, and as many of
// the keys under roots have signed it as t asks for, and as it asks for itself.
// So those who hold any version can follow the versions one by one, whatever
// keys came and went meanwhile, and none of them can make one that those who
// come after it do not agree to. Nothing of it is parsed before t's own roots
// have signed it.
//
// A version that t has already, or that is not the next one, is a Conflict error;
// one that is not trusted is Denied.
func (t *Trust) Next(signed []byte) (*Trust, error) {
	text, file, err := readTrustNote(signed)
	if err != nil {
		return nil, err
	}
	if len(t.roots.names) == 0 {
		return nil, noRoots("the one before")
	}
	if _, err := t.countRoots(signed, text, "the one before", true); err != nil {
		return nil, err
	}
	next, err := t.parseNext(file)
	if err != nil {
		return nil, err
	}
	if _, err := next.countRoots(signed, text, "it", true); err != nil {
		return nil, err
	}
	return next, nil
}

// Confirm verifies that a note is the file of t itself, signed by as many of its
// own roots as it asks for: what those who follow the versions need of it, where
// t was put into place by hand.
func (t *Trust) Confirm(signed []byte) error {
	text, file, err := readTrustNote(signed)
	if err != nil {
		return err
	}
	if policy.DigestOf([]byte(file)) != t.digest {
		return policy.Errorf(policy.Conflict, "this is another trust file than the one of version %d that is in force", t.version)
	}
	if len(t.roots.names) == 0 {
		return noRoots("it")
	}
	_, err = t.countRoots(signed, text, "it", true)
	return err
}

// parseNext reads a trust file that is to take the place of t.
func (t *Trust) parseNext(file string) (*Trust, error) {
	next, err := ParseTrust([]byte(file))
	switch {
	case err != nil:
		return nil, err
	case next.domain != t.domain:
		return nil, policy.Errorf(policy.Denied, "trust file is of the domain %s, not of %s", next.domain, t.domain)
	case next.version != t.version+1:
		return nil, policy.Errorf(policy.Conflict, "trust file has version %d; after version %d comes %d", next.version, t.version, t.version+1)
	case next.epoch < t.epoch:
		return nil, policy.Errorf(policy.Denied, "trust file has epoch %d, the one before %d; an epoch is only ever raised", next.epoch, t.epoch)
	case len(next.roots.names) == 0:
		return nil, noRoots("it")
	}
	return next, nil
}

func noRoots(what string) error {
	return policy.Errorf(policy.Denied, "the trust file cannot travel: %s lists no roots; put it into place by hand, with roots", what)
}

// countRoots returns which of the roots of t, called what, have signed a note;
// that all do who must is wanted if all is true.
func (t *Trust) countRoots(signed []byte, text, what string, all bool) (tally, error) {
	found, err := t.count(signed, text, t.roots)
	switch {
	case err != nil:
		return tally{}, policy.Errorf(policy.Denied, "trust file is not trusted: %w", err)
	case all && found.missing > 0:
		return tally{}, policy.Errorf(policy.Denied, "trust file is not trusted: %s", found.want("the roots that "+what+" lists"))
	}
	return found, nil
}

// readTrustNote returns the text of a signed trust file, and the file in it.
// Nobody vouches for either.
func readTrustNote(signed []byte) (text, file string, err error) {
	if text, err = readNote(signed, "trust file", maxTrustNote); err != nil {
		return "", "", err
	}
	file, ok := strings.CutPrefix(text, trustHeader)
	if !ok {
		return "", "", policy.Errorf(policy.BadRequest, "signed trust file does not begin with %q; it may be for a later version of microwall", strings.TrimSpace(trustHeader))
	}
	return text, file, nil
}

// TrustFile returns the trust file in a signed note, as it was signed. It is not
// verified.
func TrustFile(signed []byte) ([]byte, error) {
	_, file, err := readTrustNote(signed)
	return []byte(file), err
}

// Cosign returns a signed note (a release, or a trust file) with the signature of
// one key more, over the same text. A key that has signed already is a Conflict
// error.
func Cosign(signed []byte, signer note.Signer) ([]byte, error) {
	if _, err := readNote(signed, "note", maxTrustNote); err != nil {
		return nil, err
	}
	var unverified *note.UnverifiedNoteError
	if _, err := note.Open(signed, nil); !errors.As(err, &unverified) {
		return nil, policy.Errorf(policy.BadRequest, "this is not a signed note: %w", err)
	}
	n := &note.Note{Text: unverified.Note.Text, UnverifiedSigs: unverified.Note.UnverifiedSigs}
	if slices.ContainsFunc(n.UnverifiedSigs, func(s note.Signature) bool { return s.Name == signer.Name() && s.Hash == signer.KeyHash() }) {
		return nil, policy.Errorf(policy.Conflict, "key %s has signed already; another one must", signer.Name())
	}
	more, err := note.Sign(n, signer)
	if err != nil {
		return nil, policy.Errorf(policy.Internal, "cannot sign: %w", err)
	}
	return more, nil
}
