package remote

// Status is what a client is at.
type Status struct {
	// Server that is asked, HOST:PORT.
	Server string
	// Connection is gRPC's word for its state: IDLE, CONNECTING, READY,
	// TRANSIENT_FAILURE (it will be tried again) or SHUTDOWN.
	Connection string
	// Asked counts the requests that were put to the PDP, each one of a batch.
	// What was refused before is not among them.
	Asked uint64
	// Failed counts those of them that got an error instead of a decision.
	Failed uint64
}

// Status returns what the client is at.
func (c *Client) Status() Status {
	return Status{Server: c.server, Connection: c.conn.GetState().String(), Asked: c.asked.Load(), Failed: c.failed.Load()}
}
