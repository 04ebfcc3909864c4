package sharedindex

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	probeEvery = time.Second

	// keptTokens is how long the last token of a key is remembered. That only matters
	// where the clock of Redis goes back by less.
	keptTokens = time.Hour

	// maxConnections bounds those to each node. It does not depend on processors, as the
	// client's own bound does: a hundred replicas of sixteen processors would open more
	// than the 10,000 that Redis takes. Redis does one command after another, so more
	// connections would only wait there and not here. Pipelines use the same ones.
	maxConnections = 16
)

// Index is one replica's view of what all share. It may be used concurrently.
type Index struct {
	cfg     Config
	client  redis.UniversalClient
	circuit circuit
	count   counters
}

// New returns an Index. Redis need not be there. The log of the Redis client, which is
// one for the whole process, is switched off: calls return their errors.
func New(cfg Config) (*Index, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuring the shared index: %w", err)
	}
	logging.Disable()
	x := &Index{cfg: cfg.withDefaults()}
	x.circuit = circuit{away: map[string]string{}, since: time.Now()}
	x.client = x.dial()
	return x, nil
}

// dial returns a client, which connects when it is used. It tries nothing a second time
// where that may do a second time what was done: the answer may be what got lost.
func (x *Index) dial() redis.UniversalClient {
	c := x.cfg
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if c.Cluster {
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: c.Addrs, Username: c.Username, Password: c.Password, TLSConfig: c.TLS,
			DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout,
			ContextTimeoutEnabled: true, DialerRetries: 1, MaxRetries: -1, PoolSize: maxConnections, PipelinePoolSize: -1,
			DisableIdentity: true, DisableRoutingPolicies: true, MaintNotificationsConfig: quiet,
			FailingTimeoutSeconds: 1, ClusterStateReloadInterval: 10 * time.Second,
		})
	}
	return redis.NewClient(&redis.Options{
		Addr: c.Addrs[0], Username: c.Username, Password: c.Password, TLSConfig: c.TLS, DB: c.Database,
		DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout,
		ContextTimeoutEnabled: true, DialerRetries: 1, MaxRetries: -1, PoolSize: maxConnections, PipelinePoolSize: -1,
		DisableIdentity: true, MaintNotificationsConfig: quiet,
	})
}

// Run looks each second whether what was away is back. It returns when ctx ends.
func (x *Index) Run(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			x.probe(ctx)
		}
	}
}

// probe writes something beside a key that was not answered for, wherever in a cluster
// it is by now.
func (x *Index) probe(ctx context.Context) {
	for node, key := range x.circuit.outages() {
		bound, cancel := context.WithTimeout(ctx, x.cfg.Timeout)
		x.count.ops[opProbe].Add(1)
		err := x.client.Set(bound, key+":probe", x.cfg.Replica, x.cfg.BeatTTL).Err()
		cancel()
		switch {
		case err == nil:
			x.circuit.mend(node)
		case ctx.Err() == nil:
			x.count.errors.Add(1)
			x.circuit.note(err)
		}
	}
}

// Close ends all connections; calls fail from then on.
func (x *Index) Close() error { return x.client.Close() }

// LeaseTTL is how long a lease or a claim lasts that is not renewed.
func (x *Index) LeaseTTL() time.Duration { return x.cfg.LeaseTTL }

func (x *Index) kept() int64 { return max(keptTokens, 2*x.cfg.LeaseTTL).Milliseconds() }
