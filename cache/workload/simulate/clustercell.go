package simulate

import "time"

// Flow counts requests, and the bytes that they were for.
type Flow struct {
	Requests uint64 `json:"requests"`
	Bytes    int64  `json:"bytes"`
}

func (f *Flow) add(size int64) {
	f.Requests++
	f.Bytes += size
}

// ClusterCell is what a number of replicas did. Each request is in one of Hits, Joined,
// Followed, Peers, Stored and Fetched.
type ClusterCell struct {
	Replicas int    `json:"replicas"`
	Shared   bool   `json:"shared"` // false: each replica alone
	Spread   Spread `json:"spread"`
	Policy   string `json:"policy"`
	L1       int64  `json:"l1"`           // capacity of each replica
	L2       int64  `json:"l2,omitempty"` // capacity of the tier; 0: there is none

	All      Flow   `json:"all"`
	Hits     Flow   `json:"hits"`     // in L1
	Joined   Flow   `json:"joined"`   // the replica was fetching it
	Followed Flow   `json:"followed"` // another replica was, under a lease
	Peers    Flow   `json:"peers"`    // fetched from another replica that had it
	Stored   Flow   `json:"stored"`   // fetched from L2
	Fetched  Flow   `json:"fetched"`  // fetched from the upstream
	Evicted  uint64 `json:"evicted"`  // of L1
	// Unique is the size of all distinct objects: less cannot be fetched.
	Unique int64 `json:"unique"`

	Redis   RedisUse      `json:"redis"`
	Between BetweenUse    `json:"between"`
	Tier    TierUse       `json:"tier"`
	Permits PermissionUse `json:"permissions"`
	Span    time.Duration `json:"span"`    // of the requests, in virtual time
	Busiest uint64        `json:"busiest"` // requests of the replica that got most
}

// Times returns how many times the distinct content was fetched from the upstream.
func (c ClusterCell) Times() float64 { return per(float64(c.Fetched.Bytes), float64(c.Unique)) }

// PerRequest returns Redis' operations a request, beside the idle ones.
func (c ClusterCell) PerRequest() float64 {
	return per(float64(c.Redis.Ops.sum()), float64(c.All.Requests))
}

// PerSecond returns Redis' operations a second, with the idle ones; 0 of a trace without times.
func (c ClusterCell) PerSecond() float64 {
	if c.Span <= 0 {
		return 0
	}
	return float64(c.Redis.Ops.sum())/c.Span.Seconds() + c.Redis.Idle
}

// per returns a divided by b, of nothing 0.
func per(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// RedisUse is what the index was asked, and holds.
type RedisUse struct {
	Ops RedisOps `json:"ops"`
	// Idle are those of all replicas in a second, whatever they are asked: beats, and looks
	// at the stream of announcements. They are not in Ops.
	Idle float64 `json:"idle"`
	// Busiest is the most operations of one second of virtual time, beside the idle ones.
	// Seconds begin at whole ones of the trace's times: what lies across two of them may be
	// up to twice as much.
	Busiest int64 `json:"busiest"`
	// Blobs and Holders are the most that were known at a time; Objects those in L2.
	Blobs   int64 `json:"blobs"`
	Holders int64 `json:"holders"`
	Objects int64 `json:"objects"`
	// Tokens are the leases and claims of the busiest whole hour: the last token of each is
	// kept for an hour. Permits are the most permissions that were known at a time.
	Tokens  int64 `json:"tokens"`
	Permits int64 `json:"permits"`
	Memory  int64 `json:"memory"` // bytes, for all of those
	// Stale are holders that were named and did not have it.
	Stale uint64 `json:"stale"`
}

// RedisOps are operations on the index: commands or scripts, each a round trip.
type RedisOps struct {
	Locate     uint64 `json:"locate"`
	Renew      uint64 `json:"renew"`
	Release    uint64 `json:"release"`
	Hold       uint64 `json:"hold"`
	Drop       uint64 `json:"drop"`
	Claim      uint64 `json:"claim"`
	RenewClaim uint64 `json:"renewClaim"`
	Look       uint64 `json:"look"`
	Publish    uint64 `json:"publish"`
	Unpublish  uint64 `json:"unpublish"`
	Granted    uint64 `json:"granted"`
	Grant      uint64 `json:"grant"`
}

// redisOps are the kinds, in the order of a request's life.
var redisOps = []struct {
	name string
	of   func(*RedisOps) *uint64
}{
	{"locate", func(o *RedisOps) *uint64 { return &o.Locate }},
	{"renew", func(o *RedisOps) *uint64 { return &o.Renew }},
	{"release", func(o *RedisOps) *uint64 { return &o.Release }},
	{"hold", func(o *RedisOps) *uint64 { return &o.Hold }},
	{"drop", func(o *RedisOps) *uint64 { return &o.Drop }},
	{"claim", func(o *RedisOps) *uint64 { return &o.Claim }},
	{"renew_claim", func(o *RedisOps) *uint64 { return &o.RenewClaim }},
	{"look", func(o *RedisOps) *uint64 { return &o.Look }},
	{"publish", func(o *RedisOps) *uint64 { return &o.Publish }},
	{"unpublish", func(o *RedisOps) *uint64 { return &o.Unpublish }},
	{"granted", func(o *RedisOps) *uint64 { return &o.Granted }},
	{"grant", func(o *RedisOps) *uint64 { return &o.Grant }},
}

func (o RedisOps) sum() (n uint64) {
	for _, k := range redisOps {
		n += *k.of(&o)
	}
	return n
}

// BetweenUse is what replicas sent each other.
type BetweenUse struct {
	Bytes int64 `json:"bytes"`
	Sent  int64 `json:"sent"`  // by the replica that sent most
	Taken int64 `json:"taken"` // by the one that took most
	// Peak is the most that one replica sent in a minute, in bytes a second; minutes begin
	// at whole ones, as seconds of RedisUse.Busiest do. A fetch counts when it begins.
	Peak int64 `json:"peak"`
}

// TierUse is what L2 was asked.
type TierUse struct {
	Gets    uint64 `json:"gets"`
	Missed  uint64 `json:"missed"` // gets of what was removed, beside Gets
	Puts    uint64 `json:"puts"`
	Lists   uint64 `json:"lists"`
	Removes uint64 `json:"removes"`
	Written int64  `json:"written"` // bytes
}

// PermissionUse is how permissions were found.
type PermissionUse struct {
	Known   uint64 `json:"known"`   // to the replica
	Granted uint64 `json:"granted"` // to another one
	Checked uint64 `json:"checked"` // HEAD requests to the upstream
}

// busiest finds the most of something in windows of time, each of which begins where the
// one before ends.
type busiest struct {
	window, start int64 // nanoseconds
	n, max        int64
}

// add counts n at a time that does not go back.
func (b *busiest) add(at, n int64) {
	if at >= b.start+b.window {
		b.start = at - at%b.window
		b.n = 0
	}
	b.n += n
	b.max = max(b.max, b.n)
}
