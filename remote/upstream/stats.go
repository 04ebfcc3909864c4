package upstream

import "time"

// Stats are counts since the Client was made, and what is now.
type Stats struct {
	Requests  int64 // sent, redirects not counted
	Heads     int64 // of them HEAD
	Blobs     int64 // of them downloads
	Redirects int64 // followed
	Errors    int64 // requests without an answer, or with one that was refused
	Timeouts  int64 // of them because of Config.Timeout
	Busy      int64 // of them ErrBusy
	Addresses int64 // of them AddressError
	Realms    int64 // of them RealmError
	Bytes     int64 // of bodies
	Limited   int64 // answers 429, and 503 with Retry-After
	Throttled int64 // requests answered here because the registry asked to wait

	Workers     int // as configured
	WorkersBusy int // downloads under way
	WorkersWait int // requests that wait for a worker
	ChecksBusy  int // other requests under way
	ChecksWait  int // that wait

	Hosts []HostStats // by name
}

// HostStats is what a registry said of its limits.
type HostStats struct {
	Host string
	// Limit and Remaining are its RateLimit-Limit and RateLimit-Remaining as
	// last seen, for whatever credential; -1 if never. Window is the period
	// they are for.
	Limit, Remaining int64
	Window           time.Duration
	SeenAt           time.Time
	// BackoffUntil is the latest time it asked somebody to wait for.
	BackoffUntil time.Time
}
