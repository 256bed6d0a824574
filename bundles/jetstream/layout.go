package jetstream

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

const (
	headStream   = "KV_policy"
	blobStream   = "BLOBS"
	beatStream   = "BEAT"
	statusStream = "STATUS"

	// MaxKeep is how many heads of a namespace may be kept, and are by default.
	// nats.go's key-value API makes buckets of at most 64, a limit of that API
	// only; a bucket made by it is taken as well.
	MaxKeep = 100
	// MinKeep is how many heads of a namespace must be kept: a put whose
	// acknowledgement was lost is looked for among them. If it has left them by
	// then, its author is told that nobody knows.
	MinKeep = 2

	// ChunkSize is how many bytes each chunk of a packed bundle has, but the
	// last.
	ChunkSize = 512 << 10
	// MaxInline is how large a packed bundle may be that travels inside the
	// head message.
	MaxInline = 64 << 10

	sumSize   = 32
	maxChunks = MaxInline / sumSize
	maxHead   = bundles.MaxNote + 2 + MaxInline
	// headerRoom is what a message's headers may take on top.
	headerRoom = 4 << 10

	// maxBeats and maxStatuses bound the streams in memory: a beacon takes
	// about 500 bytes, a status about as much.
	maxBeats    = 32 << 20
	maxStatuses = 64 << 20
	maxStatus   = 2 << 10
	// statusHeaders is what a status' headers may take on top.
	statusHeaders = 256
	// mostStatuses are as many as can be listed.
	mostStatuses = 100_000
	// statusAge is how long the last word of a client counts.
	statusAge = 5 * time.Minute
	// shortest is how long the broker remembers the identities that clients give
	// to messages, for which nothing bounds the memory: as short as it takes.
	shortest = 100 * time.Millisecond
)

// Tokens on the head stream that are ours and no namespace. The stream keeps
// them as it keeps heads.
const (
	tickToken    = "-tick"
	confirmToken = "-confirm"
	trustToken   = "-trust" // for everybody, the others for PDPs only
)

// isReserved reports whether a token is one that no namespace has: a label does
// not begin with "-".
func isReserved(token string) bool { return strings.HasPrefix(token, "-") }

// token is how a namespace appears in a subject.
func token(ns policy.Namespace) string { return strings.ReplaceAll(string(ns), ".", "_") }

// parseToken reads what token writes, and nothing else.
func parseToken(domain, s string) (policy.Namespace, error) {
	ns := policy.Namespace(strings.ReplaceAll(s, "_", "."))
	if strings.Contains(s, ".") {
		return "", policy.Errorf(policy.BadRequest, "%.100q is more than one token of a subject", s)
	}
	if err := checkNamespace(domain, ns); err != nil {
		return "", err
	}
	return ns, nil
}

func headSubject(domain string, ns policy.Namespace) string { return headOf(domain, token(ns)) }

// headOf is the head subject of a token, reserved or not.
func headOf(domain, token string) string { return "$KV.policy." + domain + "." + token + ".head" }

// headToken is the token of a head subject of the domain, or "".
func headToken(domain, subject string) string {
	rest, ok := strings.CutPrefix(subject, "$KV.policy."+domain+".")
	token, ok2 := strings.CutSuffix(rest, ".head")
	if !ok || !ok2 {
		return ""
	}
	return token
}

// markSubject is where chunks are marked that will be swept.
func markSubject(domain string, ns policy.Namespace) string {
	return "$KV.policy." + domain + "." + token(ns) + ".sweep"
}

// fenceSubject matches the heads and marks of a namespace. Both go in by
// compare-and-swap on the last message of either, so that there is one order of
// them, and each is written knowing all before it.
func fenceSubject(domain string, ns policy.Namespace) string {
	return "$KV.policy." + domain + "." + token(ns) + ".*"
}

// pushOf is where the head of a token is published once it is stored.
func pushOf(domain, token string) string { return "pdp.head." + domain + "." + token }

func blobSubject(domain string, ns policy.Namespace, sum policy.Digest) string {
	return blobOf(domain, token(ns), sum.Hex())
}

// blobOf is where one of the blobs of a token is stored.
func blobOf(domain, token, blob string) string {
	return "pdp.blob." + domain + "." + token + "." + blob
}

// beatInSubject is where the newest beacon of a namespace is stored. It is heard
// on "pdp.beat." instead.
func beatInSubject(domain string, ns policy.Namespace) string {
	return beatOf(domain, token(ns))
}

// beatOf is where the beacon of a token is stored.
func beatOf(domain, token string) string { return "pdp.beatin." + domain + "." + token }

// confirmSubject is where PDPs are asked to confirm the head of a token.
func confirmSubject(domain, token string) string { return confirmOf(domain, token, confirmHead) }

// confirmHead is what is confirmed. An import takes it for a wildcard; see imports.
const confirmHead = "head"

func confirmOf(domain, token, what string) string {
	return "pdp.confirm." + domain + "." + token + "." + what
}

// statusSubject is where an instance of a principal says how it is doing.
func statusSubject(domain, token, principal, instance string) string {
	return "pdp.status." + domain + "." + token + "." + principal + "." + instance
}

// getSubject is where any replica of a stream is asked for the newest message
// of a subject.
func getSubject(stream, subject string) string { return "$JS.API.DIRECT.GET." + stream + "." + subject }

func checkDomain(domain string) error {
	ns, err := policy.ParseNamespace(domain)
	if err != nil {
		return err
	}
	if ns.Domain() != domain {
		return policy.Errorf(policy.BadRequest, "domain %q has a dot; it is one label, the first of its namespaces", domain)
	}
	return nil
}

// checkNamespace also keeps what would be a wildcard or another token out of
// subjects.
func checkNamespace(domain string, ns policy.Namespace) error {
	if _, err := policy.ParseNamespace(string(ns)); err != nil {
		return err
	}
	if ns.Domain() != domain {
		return policy.Errorf(policy.BadRequest, "namespace %s is not in the domain %s; its first label must be %q", ns, domain, domain)
	}
	return nil
}

// layout returns the streams as they are made. MaxBytes is for those on disk, and
// is split in halves: most bundles are small and travel inside their heads.
func layout(replicas int, maxBytes int64, keep int) []js.StreamConfig {
	common := js.StreamConfig{
		Storage:      js.FileStorage,
		Retention:    js.LimitsPolicy,
		Discard:      js.DiscardNew,
		MaxBytes:     maxBytes / 2,
		MaxMsgs:      -1,
		MaxConsumers: -1,
		Replicas:     replicas,
		AllowDirect:  true,
		DenyDelete:   true,
	}
	heads, blobs := common, common

	heads.Name = headStream
	heads.Description = "Microwall: the heads of all namespaces"
	heads.Subjects = []string{"$KV.policy.*.*.head", "$KV.policy.*.*.sweep"}
	heads.MaxMsgsPerSubject = int64(keep)
	heads.MaxMsgSize = maxHead + headerRoom
	heads.DenyPurge = true
	heads.RePublish = &js.RePublish{
		Source:      "$KV.policy.*.*.head",
		Destination: "pdp.head.{{wildcard(1)}}.{{wildcard(2)}}",
	}

	// Purging stays possible, for sweeping chunks that no head refers to.
	// Rollups do not: a message with a rollup header replaces what the subject
	// holds, write-once or not.
	blobs.Name = blobStream
	blobs.Description = "Microwall: chunks of packed bundles"
	blobs.Subjects = []string{"pdp.blob.*.*.*"}
	blobs.MaxMsgsPerSubject = 1
	blobs.DiscardNewPerSubject = true
	blobs.MaxMsgSize = ChunkSize + headerRoom
	return append([]js.StreamConfig{heads, blobs}, inMemory(replicas)...)
}

// inMemory returns the streams that a broker may lose: who wrote to them writes
// again in a moment. What is newest replaces what is older, there and when they
// are full.
func inMemory(replicas int) []js.StreamConfig {
	common := js.StreamConfig{
		Storage:           js.MemoryStorage,
		Retention:         js.LimitsPolicy,
		Discard:           js.DiscardOld,
		MaxMsgsPerSubject: 1,
		MaxMsgs:           -1,
		MaxConsumers:      -1,
		Replicas:          replicas,
		AllowDirect:       true,
	}
	beats, statuses := common, common

	beats.Name = beatStream
	beats.Description = "Microwall: the newest beacon of each namespace"
	beats.Subjects = []string{"pdp.beatin.*.*"}
	beats.MaxBytes = maxBeats
	beats.MaxMsgSize = bundles.MaxNote + headerRoom
	beats.RePublish = &js.RePublish{
		Source:      "pdp.beatin.*.*",
		Destination: "pdp.beat.{{wildcard(1)}}.{{wildcard(2)}}",
	}

	statuses.Name = statusStream
	statuses.Description = "Microwall: what each client last said of itself"
	statuses.Subjects = []string{"pdp.status.*.*.*.*"}
	statuses.MaxBytes = maxStatuses
	statuses.MaxMsgs = mostStatuses
	statuses.MaxMsgSize = maxStatus + statusHeaders
	statuses.MaxAge = statusAge
	statuses.AllowMsgTTL = true
	statuses.Duplicates = shortest
	return []js.StreamConfig{beats, statuses}
}

// change says which settings of a stream that exists are changed: those that
// were configured.
type change struct {
	size bool // raise it
	keep bool // keep as many heads as wanted, more or fewer
}

// ensureStream creates the stream, or checks that it is as it must be and changes
// what is configured. Size and replicas are never lowered.
func (s *Store) ensureStream(ctx context.Context, want js.StreamConfig) error {
	api, to := s.api, s.configured
	stream, err := api.Stream(ctx, want.Name)
	if errors.Is(err, js.ErrStreamNotFound) {
		want.FirstSeq = s.numbers.next(want.Name)
		if want.Name == blobStream {
			unmarked, err := s.unmarked(ctx)
			if err != nil {
				return err
			}
			want.FirstSeq = max(want.FirstSeq, unmarked)
		}
		stream, err = api.CreateStream(ctx, want)
		if errors.Is(err, js.ErrStreamNameAlreadyInUse) {
			// Somebody else made it in between, but not exactly like this.
			stream, err = api.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return err
	}
	s.numbers.saw(want.Name, stream.CachedInfo().State.LastSeq)
	have := stream.CachedInfo().Config
	if wrong := differences(have, want); len(wrong) > 0 {
		return policy.Errorf(policy.Failed, "the stream %s is laid out differently, and not safe to use: %s; mend it (nats stream edit %s), or remove it and push everything again",
			want.Name, strings.Join(wrong, "; "), want.Name)
	}
	next := have
	if to.size && have.MaxBytes > 0 && want.Storage == js.FileStorage {
		next.MaxBytes = max(have.MaxBytes, want.MaxBytes)
	}
	next.Replicas = max(have.Replicas, want.Replicas)
	if want.Name == statusStream {
		next.Duplicates, next.MaxMsgs, next.MaxMsgSize = want.Duplicates, want.MaxMsgs, want.MaxMsgSize
	}
	if want.Name == headStream {
		if to.keep {
			next.MaxMsgsPerSubject = want.MaxMsgsPerSubject
		}
		if slices.Equal(have.Subjects, onlyHeads) {
			next.Subjects = want.Subjects
		}
	}
	if reflect.DeepEqual(next, have) {
		return nil
	}
	_, err = api.UpdateStream(ctx, next)
	return err
}

// onlyHeads are the subjects of a head stream from before there were marks.
var onlyHeads = []string{"$KV.policy.*.*.head"}

// differences returns in which settings have is not like want. A setting that
// this code does not know about must be like want, too; those that operators
// may choose are taken over before the comparison.
func differences(have, want js.StreamConfig) []string {
	want.Description = have.Description
	want.Metadata = have.Metadata
	want.Placement = have.Placement
	want.Compression = have.Compression
	want.Replicas = have.Replicas
	want.MaxBytes = have.MaxBytes
	want.MaxMsgs = have.MaxMsgs
	want.MaxConsumers = have.MaxConsumers
	want.ConsumerLimits = have.ConsumerLimits
	want.Duplicates = have.Duplicates
	want.FirstSeq = have.FirstSeq
	want.Template = have.Template
	if have.MaxMsgSize <= 0 || have.MaxMsgSize > want.MaxMsgSize {
		want.MaxMsgSize = have.MaxMsgSize
	}
	switch want.Name {
	case headStream:
		if have.MaxMsgsPerSubject <= 0 || have.MaxMsgsPerSubject >= MinKeep {
			want.MaxMsgsPerSubject = have.MaxMsgsPerSubject
		}
		if slices.Equal(have.Subjects, []string{"$KV.policy.>"}) || slices.Equal(have.Subjects, onlyHeads) {
			want.Subjects = have.Subjects
		}
	case blobStream, beatStream, statusStream:
		want.DenyDelete, want.DenyPurge = have.DenyDelete, have.DenyPurge
	}

	var wrong []string
	h, w := reflect.ValueOf(have), reflect.ValueOf(want)
	for i := range h.NumField() {
		if a, b := h.Field(i).Interface(), w.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			name, _, _ := strings.Cut(h.Type().Field(i).Tag.Get("json"), ",")
			wrong = append(wrong, fmt.Sprintf("%s is %s, not %s", name, show(a), show(b)))
		}
	}
	return wrong
}

func show(v any) string {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Pointer {
		if r.IsNil() {
			return "none"
		}
		v = r.Elem().Interface()
	}
	return fmt.Sprintf("%+v", v)
}
