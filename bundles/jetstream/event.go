package jetstream

import "github.com/microwall/microwall/policy"

// Event is something that happened: one of the types below. Callbacks that
// take events are called from many goroutines and must not block.
type Event interface{ event() }

// Connected says that there is a connection to the broker, for the first time
// or again.
type Connected struct {
	// URL of the server, without credentials.
	URL string
}

// Disconnected says that the connection to the broker is gone. It is made
// again until the connection is closed.
type Disconnected struct {
	// Err is why, or nil if the connection was closed on purpose.
	Err error
}

// BrokerError is what the broker, or an attempt to reach it, reported besides:
// a subject that may not be used, a connection that is refused.
type BrokerError struct{ Err error }

// HeadSeen says that a head message arrived which is now offered.
type HeadSeen struct {
	Namespace policy.Namespace
	// Seq is the broker's number of the message, 0 if unknown.
	Seq uint64
	// Pushed is true if the message came by itself, and false if it was asked
	// for.
	Pushed bool
}

// Offered says what became of a head that was offered.
type Offered struct {
	Namespace policy.Namespace
	Seq       uint64
	// Err is nil if the head was taken.
	Err error
	// Again is true if the same head will be offered again. Otherwise an error
	// stands until another head message comes.
	Again bool
}

// AskFailed says that a head or a beacon could not be asked for. It is asked for again.
type AskFailed struct {
	// Namespace whose head was asked for, or "" for the list of namespaces.
	Namespace policy.Namespace
	// Beacon is true if it was the beacon of the namespace, not its head.
	Beacon bool
	Err    error
}

// Answered says that the broker has answered for the head of a namespace, whether
// there is one or not: for the first time, or after it could not be asked for.
type Answered struct{ Namespace policy.Namespace }

// Deaf says that the broker does not permit a [Follower] to subscribe to what is
// new, or does not any more: then it comes on a poll only. It is subscribed to again
// on each poll.
type Deaf struct {
	Subject string
	// Err is why; nil if it has been subscribed to again and the broker has said
	// nothing against it until the next poll, or if the follower has ended.
	Err error
}

// SlowConsumer says that messages were dropped because they arrived faster than
// this process took them. All heads are asked for again.
type SlowConsumer struct {
	Subject string
	// Dropped is how many were dropped on this subscription so far.
	Dropped int
}

// Ignored says that a message was not looked at: it is malformed, of a namespace
// that nobody here follows, or delivered in the wrong place. Of what others than
// the broker can cause, all are counted: the first is told of at once, and then
// those of five seconds together.
type Ignored struct {
	Subject string
	Err     error
	// More is how many more were ignored for the same reason, on this subject
	// or others, if they are reported together.
	More int
}

// Remade says that the streams were gone and have been made again, empty. What
// was released decides on where it is held; it has to be pushed again, in a new
// epoch, for those who come later.
type Remade struct{}

// Swept says that chunks which no head names were marked, so that none ever
// names them again, or then purged.
type Swept struct {
	Namespace policy.Namespace
	// Chunks is how many.
	Chunks int
	// Purged is true if they are gone.
	Purged bool
}

// SweepFailed says that chunks of a namespace could not be swept. It is tried
// again.
type SweepFailed struct {
	Namespace policy.Namespace
	Err       error
}

// ReadAgain says that a [Log] reads the head stream again from its beginning,
// and why. Ticks wait until it has caught up.
type ReadAgain struct{ Err error }

func (Connected) event()    {}
func (Disconnected) event() {}
func (BrokerError) event()  {}
func (HeadSeen) event()     {}
func (Offered) event()      {}
func (AskFailed) event()    {}
func (Answered) event()     {}
func (Deaf) event()         {}
func (SlowConsumer) event() {}
func (Ignored) event()      {}
func (Remade) event()       {}
func (Swept) event()        {}
func (SweepFailed) event()  {}
func (ReadAgain) event()    {}
