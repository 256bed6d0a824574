package live

// Snapshot returns s: a snapshot is a [Source] that never changes.
func (s *Snapshot) Snapshot() *Snapshot { return s }
