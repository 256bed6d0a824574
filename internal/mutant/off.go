//go:build !mutants

package mutant

const (
	// PathLeftOut leaves out of keys a path that a policy reads.
	PathLeftOut = false
	// UntypedKey leaves out of keys which types values have.
	UntypedKey = false
	// KeyAfterEvaluation files a decision under the versions that decide once it has
	// been made.
	KeyAfterEvaluation = false
	// ErrorCached remembers that a policy failed, or that a caller gave up, as a
	// denial.
	ErrorCached = false
	// CancellationShared ends a call that others wait for when the one gives up who
	// began it.
	CancellationShared = false
	// OldHeadApplied takes any release that was signed for the newest.
	OldHeadApplied = false
	// FiledByOwnClock files an answer under the time here, not the one that it names.
	FiledByOwnClock = false
	// OldPathsFiled builds keys of new versions from the paths that those before have
	// read.
	OldPathsFiled = false
)
