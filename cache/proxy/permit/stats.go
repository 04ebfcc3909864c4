package permit

// Stats are counts since the Checker was made. Of the Checks, each is in one of
// Trusted, Hits, NegativeHits, Joined and Heads, or was given up by its caller.
type Stats struct {
	Checks       int64
	Trusted      int64 // allowed without asking
	Hits         int64 // allowed by an earlier answer
	NegativeHits int64 // refused by one
	Joined       int64 // waited for another's HEAD
	Heads        int64 // HEADs sent

	// Answers to HEADs.
	Allowed                           int64
	Unauthorized, Forbidden, NotFound int64 // 401, 403, 404
	Limited                           int64 // 429
	Failed                            int64 // 5xx, or whatever makes no sense
	Unreached                         int64 // none

	Stale   int64 // checks allowed by an earlier answer because of Limited, Failed or Unreached
	Revoked int64 // kept permissions that a refusal ended
	Evicted int64 // kept answers that had to make room
	Entries int   // kept now
}
