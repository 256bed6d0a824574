package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

// MaxStatus is how large a [Status] may be, in bytes.
const MaxStatus = maxStatus

// Status is what an instance of a principal last said of itself and of one
// namespace. The broker lets each principal speak for itself only; nothing else
// vouches for it.
type Status struct {
	Namespace policy.Namespace
	// Principal is the name of the credentials that it has, "anonymous" without,
	// and Instance the name that it gives itself.
	Principal, Instance string
	// Body is what it said.
	Body []byte
	// Received is when, by the broker's clock.
	Received time.Time
}

// SendStatus says how an instance is doing in a namespace. It takes the place of
// what the instance said before, and is forgotten after ttl (five minutes at
// most). As is the kind of principal whose connection it is. It is sent once and
// not waited for: what is lost is said again.
func SendStatus(nc *nats.Conn, as Kind, domain string, s Status, ttl time.Duration) error {
	names, err := as.names(domain)
	if err != nil {
		return err
	}
	if err := checkNamespace(domain, s.Namespace); err != nil {
		return err
	}
	if err := errors.Join(checkPrincipal(s.Principal), CheckInstance(s.Instance)); err != nil {
		return err
	}
	if len(s.Body) > MaxStatus {
		return policy.Errorf(policy.Exhausted, "status is %d bytes, the limit is %d", len(s.Body), MaxStatus)
	}
	m := nats.NewMsg(names.say(token(s.Namespace), s.Principal, s.Instance))
	m.Data = s.Body
	m.Header.Set(js.MsgTTLHeader, min(ttl, statusAge).Truncate(time.Second).String())
	if err := nc.PublishMsg(m); err != nil {
		return policy.Errorf(policy.Unavailable, "cannot say how this instance is doing: %w; it is tried again", err)
	}
	return nil
}

// Statuses returns what was said last, and not longer ago than it counts, of a
// namespace, or for "" of all of the domain, in no order.
//
// The broker has room for 100,000, or 64 MiB. Where nine tenths of that are used, it
// returns what there is and an error of kind [policy.Exhausted]: what somebody says
// pushes out what others have said, who may be those that are behind.
func (s *Store) Statuses(ctx context.Context, ns policy.Namespace) (all []Status, err error) {
	which := "*"
	if ns != "" {
		if err := checkNamespace(s.config.Domain, ns); err != nil {
			return nil, err
		}
		which = token(ns)
	}
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	s.listing.Lock() // one at a time: it may be much
	defer s.listing.Unlock()
	var room *js.StreamInfo
	err = persist(ctx, s.nc, "cannot read the statuses", func(ctx context.Context) error {
		all = nil
		var old uint64 // the number of the newest that counts no more
		err := s.eachLast(ctx, statusStream, statusSubject(s.config.Domain, which, "*", "*"), func(m *nats.Msg, info *nats.MsgMetadata) bool {
			// The broker keeps for ever what its author asked it to.
			if time.Since(info.Timestamp) >= 2*statusAge {
				old = max(old, info.Sequence.Stream)
			} else if status, ok := parseStatus(s.config.Domain, m); ok {
				status.Received = info.Timestamp
				all = append(all, status)
			}
			return len(all) < mostStatuses
		})
		if err == nil {
			room, err = s.forgetStatuses(ctx, old)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if used := room.State; used.Msgs*10 >= mostStatuses*9 || used.Bytes*10 >= maxStatuses*9 {
		return all, policy.Errorf(policy.Exhausted, "what is said of who decides by which release is incomplete: %d reports of %d bytes are nearly all that NATS has room for, and push out others; find out who sends so many (nats stream subjects STATUS), and take those credentials out of the list; what they sent is forgotten after ten minutes", used.Msgs, used.Bytes)
	}
	return all, nil
}

// forgetStatuses removes what is no newer than a message that counts no more, if
// there is one, and returns how much is left.
func (s *Store) forgetStatuses(ctx context.Context, old uint64) (*js.StreamInfo, error) {
	stream, err := s.api.Stream(ctx, statusStream)
	if err != nil {
		return nil, err
	}
	if old == 0 {
		return stream.CachedInfo(), nil
	}
	if err := stream.Purge(ctx, js.WithPurgeSequence(old+1)); err != nil {
		return nil, err
	}
	return stream.Info(ctx)
}

// parseStatus leaves out what is no status, and markers of those that were
// forgotten.
func parseStatus(domain string, m *nats.Msg) (Status, bool) {
	parts := strings.Split(m.Subject, ".")
	if len(parts) != 6 || len(m.Data) == 0 {
		return Status{}, false
	}
	ns, err := parseToken(domain, parts[3])
	if err := errors.Join(err, checkPrincipal(parts[4]), checkPrincipal(parts[5])); err != nil {
		return Status{}, false
	}
	return Status{Namespace: ns, Principal: parts[4], Instance: parts[5], Body: m.Data}, true
}

// pulled is how many messages are asked for at once: few enough that the broker does
// not take a slow reader of the largest ones for one that reads nothing.
const pulled = 250

// eachLast hands the newest message of each subject to use, until that returns
// false. It pulls by itself: to nats.go a message without a body is the broker's
// own word if its author has given it the header for that, so one that a client
// stored would end every reading here.
func (s *Store) eachLast(ctx context.Context, stream, filter string, use func(m *nats.Msg, info *nats.MsgMetadata) bool) error {
	consumer, err := s.api.CreateConsumer(ctx, stream, js.ConsumerConfig{
		Description:       "Microwall: the newest of each subject",
		DeliverPolicy:     js.DeliverLastPerSubjectPolicy,
		FilterSubject:     filter,
		AckPolicy:         js.AckNonePolicy,
		MaxDeliver:        1,
		Replicas:          1,
		MemoryStorage:     true,
		InactiveThreshold: lastTimeout,
	})
	if err != nil {
		return err
	}
	name := consumer.CachedInfo().Name
	// A stream has room for a thousand consumers, and forgets one only after a
	// while. If it cannot be asked to, that is what happens.
	defer func() {
		forget, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
		defer cancel()
		_ = s.api.DeleteConsumer(forget, stream, name)
	}()
	inbox, messages := s.nc.NewInbox(), make(chan *nats.Msg, 2*pulled)
	sub, err := s.nc.ChanSubscribe(inbox, messages)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only if the connection is closed
	for left := consumer.CachedInfo().NumPending; left > 0; {
		n := min(left, pulled)
		if err := s.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+stream+"."+name, inbox, fmt.Appendf(nil, `{"batch":%d,"no_wait":true}`, n)); err != nil {
			return err
		}
		for ; n > 0 && left > 0; n-- {
			var m *nats.Msg
			select {
			case m = <-messages:
			case <-ctx.Done():
				return ctx.Err()
			}
			if !strings.HasPrefix(m.Reply, "$JS.ACK.") {
				return ended(m)
			}
			info, err := m.Metadata()
			if err != nil {
				return err
			}
			left = info.NumPending
			if !use(m, info) {
				return nil
			}
		}
	}
	return nil
}

// ended is what the broker means that says of a pull that no more comes: nothing,
// if what was left is not there any more.
func ended(m *nats.Msg) error {
	switch status := m.Header.Get("Status"); status {
	case "404", "408":
		return nil
	case "503":
		return nats.ErrNoResponders
	default:
		return fmt.Errorf("the broker ends a reading: %.50q %.200q", status, m.Header.Get("Description"))
	}
}
