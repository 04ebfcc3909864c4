package sharedindex

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits of what is written.
const (
	// MaxStatus and MaxPayload are the sizes of a replica's status and of an
	// announcement; MaxValue is that of a permission's value. In bytes.
	MaxStatus  = 16 << 10
	MaxPayload = 4 << 10
	MaxValue   = 4 << 10

	// MaxHolders is the number of holders that Locate returns.
	MaxHolders = 4

	// maxKept is the number of holders that are remembered for one key, and
	// maxLeases that of its leases.
	maxKept   = 8
	maxLeases = 256

	// maxNumber is the largest number that a script, whose numbers are floating
	// point, can tell from the next one.
	maxNumber = 1<<53 - 1

	// maxLeaseTTL is that of the scripts, to which a lease that ends later is wrong.
	maxLeaseTTL = 24 * time.Hour

	maxName = 255
)

// Config says where Redis is and who asks.
type Config struct {
	Addrs    []string // host:port; several are nodes of one Redis Cluster
	Cluster  bool     // also if only one address is given
	Username string
	Password string
	TLS      *tls.Config // nil: without TLS
	Database int         // 0 with a cluster

	Prefix  string // of keys; "reprise" if ""
	Replica string // host:port where peers reach this replica; its name in the index

	LeaseTTL time.Duration // of leases and claims; 10 s if 0
	Remember time.Duration // who has a content is forgotten when it was not told or asked so long; 7 days if 0
	BeatTTL  time.Duration // a replica is gone when it was silent so long; 15 s if 0, three times the time between beats
	Timeout  time.Duration // of a call; 500 ms if 0

	// MaxEvents is about how many announcements are kept for those who are away;
	// 4096 if 0.
	MaxEvents int64
}

func (c Config) withDefaults() Config {
	orDefault := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Prefix == "" {
		c.Prefix = "reprise"
	}
	if c.MaxEvents == 0 {
		c.MaxEvents = 4096
	}
	orDefault(&c.LeaseTTL, 10*time.Second)
	orDefault(&c.Remember, 7*24*time.Hour)
	orDefault(&c.BeatTTL, 15*time.Second)
	orDefault(&c.Timeout, 500*time.Millisecond)
	c.Cluster = c.Cluster || len(c.Addrs) > 1
	return c
}

// Validate says what is wrong with the configuration, all of it.
func (c Config) Validate() error {
	var wrong []error
	unless := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	c = c.withDefaults()
	unless(len(c.Addrs) > 0, "no address of Redis is given")
	for _, a := range c.Addrs {
		unless(strings.Contains(a, ":"), "address %q of Redis is not host:port", a)
	}
	unless(!c.Cluster || c.Database == 0, "a Redis Cluster has no database but 0")
	unless(c.Database >= 0, "database %d is negative", c.Database)
	unless(!strings.ContainsAny(c.Prefix, "{}") && len(c.Prefix) <= maxName, "prefix %q of keys has a brace or is too long", c.Prefix)
	unless(validName(c.Replica), "name %q of the replica is empty, too long or not printable", c.Replica)
	unless(c.LeaseTTL >= time.Millisecond && c.LeaseTTL <= maxLeaseTTL, "leases of %s are too short or too long", c.LeaseTTL)
	unless(c.Remember >= time.Second, "remembering for %s is too short", c.Remember)
	unless(c.BeatTTL >= time.Millisecond, "beats of %s are too short", c.BeatTTL)
	unless(c.Timeout > 0, "timeout %s is not positive", c.Timeout)
	unless(c.MaxEvents > 0, "%d kept announcements are too few", c.MaxEvents)
	return errors.Join(wrong...)
}

// validName reports whether s may be the name of a replica or an origin: printable
// ASCII without blanks, so that scripts can put it between blanks.
func validName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}
