package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

// persist makes a request again and again until it is answered for good or ctx
// ends. If somebody has removed the streams, they are made again, empty: then
// whoever has pushed has to push again, in a new epoch, as no process goes back
// to an older release.
func (s *Store) persist(ctx context.Context, what string, request func(context.Context) error) error {
	err := persist(ctx, s.nc, what, request)
	if !errors.Is(err, js.ErrStreamNotFound) {
		return err
	}
	if err := s.ensure(ctx); err != nil {
		return err
	}
	s.config.Events(Remade{})
	return persist(ctx, s.nc, what, request)
}

// answer is what all answers of JetStream's API have.
type answer struct {
	Error *js.APIError `json:"error"`
}

func (a answer) failed() *js.APIError { return a.Error }

// ask makes a request of JetStream's API. A stream's leader answers it, unlike a
// direct get, which any replica does.
func ask[A interface{ failed() *js.APIError }](ctx context.Context, s *Store, what, subject string, query any) (found A, err error) {
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	err = s.persist(ctx, what, func(ctx context.Context) error {
		found, err = askOnce[A](ctx, s, subject, query)
		return err
	})
	return found, err
}

// askOnce makes one attempt of ask.
func askOnce[A interface{ failed() *js.APIError }](ctx context.Context, s *Store, subject string, query any) (found A, err error) {
	request, err := json.Marshal(query)
	if err != nil {
		return found, err
	}
	m, err := s.nc.RequestWithContext(ctx, "$JS.API."+subject, request)
	if err != nil {
		return found, err
	}
	if err := json.Unmarshal(m.Data, &found); err != nil {
		return found, err
	}
	switch e := found.failed(); {
	case e == nil:
		return found, nil
	case e.ErrorCode == js.JSErrCodeMessageNotFound:
		return found, errAbsent
	default:
		return found, e
	}
}

// storedMessage is a message of a stream as the API hands it out.
type storedMessage struct {
	answer
	Message *struct {
		Subject string    `json:"subject"`
		Seq     uint64    `json:"seq"`
		Header  []byte    `json:"hdrs"`
		Data    []byte    `json:"data"`
		Time    time.Time `json:"time"`
	} `json:"message"`
}

// read asks the leader of a stream for a message. The query names a subject and
// says which of its messages.
func (s *Store) read(ctx context.Context, stream string, query map[string]any) (stored, error) {
	found, err := ask[storedMessage](ctx, s, "cannot read the stream "+stream, "STREAM.MSG.GET."+stream, query)
	if err != nil {
		return stored{}, err
	}
	m := found.Message
	if m == nil {
		return stored{}, policy.Errorf(policy.Internal, "cannot read the stream %s: the broker's answer holds no message", stream)
	}
	s.numbers.saw(stream, m.Seq)
	var header nats.Header
	if len(m.Header) > 0 {
		if header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return stored{}, policy.Errorf(policy.Failed, "message %d of the stream %s has headers that cannot be read: %w", m.Seq, stream, err)
		}
	}
	return stored{subject: m.Subject, seq: m.Seq, header: header, data: m.Data, time: m.Time}, nil
}

// readLast returns the newest message of a subject, or errAbsent.
func (s *Store) readLast(ctx context.Context, stream, subject string) (stored, error) {
	return s.read(ctx, stream, map[string]any{"last_by_subj": subject})
}

// readNext returns the first message of a subject from a sequence number on, or
// errAbsent.
func (s *Store) readNext(ctx context.Context, stream, subject string, from uint64) (stored, error) {
	return s.read(ctx, stream, map[string]any{"seq": from, "next_by_subj": subject})
}
