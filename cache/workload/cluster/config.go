package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/load"
)

// Protocol is the version of what master and clients say. Those of another one
// refuse each other.
const Protocol = 1

// Defaults.
const (
	defaultHeartbeat = 2 * time.Second
	defaultStartIn   = 2 * time.Second
	defaultPatience  = 5 * time.Second
)

// misses is how many heartbeats a peer may be silent.
const misses = 3

// ClientConfig says how a client waits for masters.
type ClientConfig struct {
	Addr string // to listen on, "host:port"
	// Listener is listened on instead of Addr, if there is one.
	Listener net.Listener
	// Secret is what master and clients must both have. A long random text: who
	// knows it decides what this machine sends, and to whom.
	Secret load.Secret
	// Anyone lets a client without a secret listen where other machines can reach
	// it. It is a load generator for all of them.
	Anyone bool
	// TLS has the certificate, and the roots of masters' certificates if they must
	// have one. Nil: a certificate made for this process, which only the secret
	// vouches for.
	TLS *tls.Config
	// Version is that of the program. Master and clients must have the same, as they
	// must measure the same.
	Version string
	// Log is told of masters that come and go. Nil: nothing is.
	Log *slog.Logger
	// New makes what sends the items of a job. Nil: load.New.
	New func(load.Config) (load.Runner, error)

	// Of tests:
	window int           // default maxWindow
	ahead  time.Duration // of the machine's clock
}

func (c ClientConfig) withDefaults() ClientConfig {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.window == 0 {
		c.window = maxWindow
	}
	if c.New == nil {
		c.New = func(cfg load.Config) (load.Runner, error) { return load.New(cfg) }
	}
	return c
}

// Validate returns an error if c makes no sense.
func (c ClientConfig) Validate() error {
	addr := c.Addr
	if c.Listener != nil {
		addr = c.Listener.Addr().String()
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("reading the address to listen on: %w", err)
	}
	if c.Secret == "" && !c.Anyone && !loopback(addr) {
		return fmt.Errorf("listening on %s: %w", addr, ErrNoSecret)
	}
	return nil
}

// Loss is what is done when a client is lost.
type Loss string

// What can be done.
const (
	// Proceed goes on with the other clients. Requests of the lost one are told as
	// lost, those to come too.
	Proceed Loss = "proceed"
	// Takeover gives the requests to come to the other clients.
	Takeover Loss = "takeover"
	// Stop ends the run.
	Stop Loss = "stop"
)

// Job is what clients are told to do.
type Job struct {
	ID   string      `json:"id"` // for people. Default: made up
	Load load.Config `json:"load"`
}

// MasterConfig says what a run is and who does it.
type MasterConfig struct {
	Clients []string // addresses, "host:port"
	Secret  load.Secret
	// Anyone lets a master without a secret use clients on other machines, whoever
	// they are. They are told the passwords of the registries.
	Anyone bool
	// TLS has the roots of the clients' certificates, and the master's certificate
	// if they want one. Nil: only the secret vouches for a client.
	TLS     *tls.Config
	Version string // of the program
	// Job is done by each client: so many threads, so many requests in flight are of
	// each. Job.Load.Start is not used.
	Job Job
	// ByClient gives all requests of a client of the trace to the same client here.
	// Without it they are dealt in turn.
	ByClient bool
	// Heartbeat is how often a peer is told that this one is alive. One that was not
	// heard of for three of them is gone. Default 2 seconds.
	Heartbeat time.Duration
	// StartIn is how long after all clients are known they begin. Default 2 seconds.
	StartIn time.Duration
	// Patience is how long a client is waited for that does not listen yet, or does
	// not answer. Default 5 seconds.
	Patience time.Duration
	Loss     Loss // default Proceed
}

func (c MasterConfig) withDefaults() MasterConfig {
	if c.Heartbeat <= 0 {
		c.Heartbeat = defaultHeartbeat
	}
	if c.StartIn <= 0 {
		c.StartIn = defaultStartIn
	}
	if c.Patience <= 0 {
		c.Patience = defaultPatience
	}
	if c.Loss == "" {
		c.Loss = Proceed
	}
	return c
}

// Validate returns an error if c makes no sense.
func (c MasterConfig) Validate() error {
	if len(c.Clients) == 0 {
		return errors.New("there are no clients")
	}
	seen := map[string]bool{}
	for _, addr := range c.Clients {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("reading the address of a client: %w", err)
		}
		if seen[addr] {
			return fmt.Errorf("client %s is there twice", addr)
		}
		seen[addr] = true
		if c.Secret == "" && !c.Anyone && !loopback(addr) {
			return fmt.Errorf("using client %s: %w", addr, ErrNoSecret)
		}
	}
	switch c.Loss {
	case "", Proceed, Takeover, Stop:
		return nil
	}
	return fmt.Errorf("loss %q is not %s, %s or %s", c.Loss, Proceed, Takeover, Stop)
}

// loopback reports whether only this machine can reach an address.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
