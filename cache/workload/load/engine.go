package load

import (
	"context"
	"net"
	"slices"
	"time"
)

// Registry is one that requests go to.
type Registry struct {
	Base string `json:"base"` // "http://host:port"
	Auth Auth   `json:"auth,omitzero"`
	CA   string `json:"ca,omitempty"` // PEM of further roots
	// Insecure takes any certificate.
	Insecure bool `json:"insecure,omitempty"`
	// Clients has how the requests of a client of the trace are authorised, where it
	// is not by Auth.
	Clients map[string]Auth `json:"clients,omitempty"`
}

// Auth is how requests to a registry are authorised. Without a user name it is
// anonymous: a token is asked for where the registry wants one. With one it is
// basic, or a token for the user, as the registry wants. It does not print its
// password.
type Auth struct {
	Username string `json:"username,omitempty"`
	Password Secret `json:"password,omitempty"`
	// Token is a bearer token that is sent as it is.
	Token Secret `json:"token,omitempty"`
}

// Secret is a text that is not printed.
type Secret string

func (Secret) String() string { return "..." }

// GoString is for %#v.
func (Secret) GoString() string { return "..." }

// Config says how requests are sent. It has a JSON form, in which the master sends it.
type Config struct {
	Registries []Registry `json:"registries"`
	// Closed sends a request when an earlier one is done, not when it is due.
	Closed bool `json:"closed,omitempty"`
	// Paced is of a closed loop: a request is not sent before it is due. A slow answer
	// delays those behind it, and their latency does not say so: it is what the original
	// did, for comparison.
	Paced bool `json:"paced,omitempty"`
	// Threads is how many requests are under way in a closed loop. Default 1.
	Threads int `json:"threads,omitempty"`
	// MaxInFlight bounds the requests under way in an open loop. What is due beyond
	// it waits, which its latency shows and Stats.Saturated says. Default 4096.
	MaxInFlight int `json:"maxInFlight,omitempty"`
	// Start is when the run starts, from which items are due. Zero: when Run is called.
	Start time.Time `json:"start,omitzero"`
	// Timeout is how long a request may make no progress. Default 1 minute.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Seed decides the content that is pushed.
	Seed uint64 `json:"seed,omitempty"`
	// Unchecked does not compare digests.
	Unchecked bool `json:"unchecked,omitempty"`
	// Compressible pushes zeros as the original did.
	Compressible bool `json:"compressible,omitempty"`
	// Duration ends the run: nothing is sent that is due later, in a closed loop
	// nothing after so long. What is late is still sent: to leave it out would hide
	// that the registry, or the sender, could not keep up. 0: the source ends it.
	Duration time.Duration `json:"duration,omitempty"`

	dial func(ctx context.Context, network, address string) (net.Conn, error) // of tests
}

func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = defaultMaxInFlight
	}
	if c.Threads <= 0 {
		c.Threads = 1
	}
	return c
}

// Stats says how well the generator did.
type Stats struct {
	Sent        uint64        `json:"sent"`
	Ended       uint64        `json:"ended"`
	InFlight    int           `json:"inFlight"`
	MaxInFlight int           `json:"maxInFlight"` // at one time
	Capped      uint64        `json:"capped"`      // requests that waited for Config.MaxInFlight
	LagP99      time.Duration `json:"lagP99"`      // from when a request was due to when it was sent
	LagMax      time.Duration `json:"lagMax"`
	Tokens      uint64        `json:"tokens,omitempty"`  // that were asked for
	Renewed     uint64        `json:"renewed,omitempty"` // of those, because a registry took one no longer
	// Saturated has the reasons why the figures may be the generator's and not the
	// registry's; it is empty when there are none.
	Saturated []string `json:"saturated,omitempty"`
}

// With returns the stats of two senders that send at the same time as if they were one:
// sums, and the worse of their lags.
func (s Stats) With(o Stats) Stats {
	s.Sent += o.Sent
	s.Ended += o.Ended
	s.InFlight += o.InFlight
	s.MaxInFlight += o.MaxInFlight
	s.Capped += o.Capped
	s.LagP99 = max(s.LagP99, o.LagP99)
	s.LagMax = max(s.LagMax, o.LagMax)
	s.Tokens += o.Tokens
	s.Renewed += o.Renewed
	for _, why := range o.Saturated {
		if !slices.Contains(s.Saturated, why) {
			s.Saturated = append(slices.Clip(s.Saturated), why)
		}
	}
	return s
}

// Runner sends items. *Engine is one; a master with its clients is another.
type Runner interface {
	// Run sends the items of src and calls sink for each, one call at a time, in the
	// order in which they end. It returns when all have ended. When ctx ends, what
	// is under way is aborted and told to sink as such.
	Run(ctx context.Context, src Source, sink func(Result)) (Stats, error)
}
