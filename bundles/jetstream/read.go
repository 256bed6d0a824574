package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	js "github.com/nats-io/nats.go/jetstream"
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

// read asks the leader of a stream for a message (STREAM.MSG.GET, which unlike
// a direct get no replica answers). The query names a subject and says which of
// its messages.
func (s *Store) read(ctx context.Context, stream string, query map[string]any) (stored, error) {
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	request, err := json.Marshal(query)
	if err != nil {
		return stored{}, err
	}
	var found stored
	err = s.persist(ctx, "cannot read the stream "+stream, func(ctx context.Context) error {
		m, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, request)
		if err != nil {
			return err
		}
		var answer struct {
			Error   *js.APIError `json:"error"`
			Message *struct {
				Seq  uint64    `json:"seq"`
				Data []byte    `json:"data"`
				Time time.Time `json:"time"`
			} `json:"message"`
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil {
			return err
		}
		switch {
		case answer.Error != nil && answer.Error.ErrorCode == js.JSErrCodeMessageNotFound:
			return errAbsent
		case answer.Error != nil:
			return answer.Error
		case answer.Message == nil:
			return errors.New("the broker's answer holds no message")
		}
		found = stored{seq: answer.Message.Seq, data: answer.Message.Data, time: answer.Message.Time}
		return nil
	})
	return found, err
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
