package permit

import "net/http"

// Stats are counts since the Checker was made. Of the Checks, each is in one of
// Trusted, Hits, NegativeHits, SharedHits, Joined and Heads, or was given up by its
// caller; one that waited for a HEAD that was given up may be in Heads in its place.
type Stats struct {
	Checks       int64
	Trusted      int64 // allowed without asking
	Hits         int64 // allowed by an earlier answer
	NegativeHits int64 // refused by one
	Joined       int64 // waited for another's HEAD
	SharedHits   int64 // allowed by an answer to another replica
	Heads        int64 // HEADs sent

	// Answers to HEADs.
	Allowed                           int64
	Unauthorized, Forbidden, NotFound int64 // 401, 403, 404
	Limited                           int64 // 429
	Failed                            int64 // 5xx, and whatever else
	Unreached                         int64 // none

	Stale   int64 // checks allowed by an earlier answer because of Limited, Failed or Unreached
	Revoked int64 // kept permissions that a refusal ended
	Evicted int64 // kept answers that had to make room
	Entries int   // kept now

	SharedKept    int64 // permissions that were shared
	SharedInvalid int64 // shared values that no replica with our secret can have meant so
	SharedErrors  int64 // calls of the shared place that failed
}

// count counts an answer, or that there was none.
func (s *Stats) count(status int, v verdict, err error) {
	switch {
	case err != nil:
		s.Unreached++
	case v == allowed:
		s.Allowed++
	case status == http.StatusUnauthorized:
		s.Unauthorized++
	case status == http.StatusForbidden:
		s.Forbidden++
	case status == http.StatusNotFound:
		s.NotFound++
	case status == http.StatusTooManyRequests:
		s.Limited++
	default:
		s.Failed++
	}
}
