package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

const (
	beatEvery  = 5 * time.Second
	sweepEvery = time.Hour
)

// beat tells the others how this replica is, until ctx ends. What was said in its name
// before tells it whether the index has lost its memory, and whether another process has
// the same name.
func (c *Cluster) beat(ctx context.Context) error {
	id := []byte(rand.Text()[:idSize])
	for began := false; ; {
		text := append(slices.Clone(id), ' ')
		if c.cfg.Status != nil {
			text = append(text, c.cfg.Status()...)
		}
		before, known, err := c.cfg.Index.Beat(ctx, text)
		if err == nil { // others are counted by the index
			if began && !known {
				c.forgotten.Store(true)
			}
			if began && known && !bytes.HasPrefix(before, id) {
				c.failed("telling of this replica", fmt.Errorf("another one has the name %s too: each needs its own (cluster.advertise)", c.cfg.Self))
			}
			began = true
		}
		if !pause.For(ctx, beatEvery) {
			return nil
		}
	}
}

// idSize is the length of what tells processes apart that have the same name.
const idSize = 16

// Replicas returns those that are there, by name.
func (c *Cluster) Replicas(ctx context.Context) ([]sharedindex.Replica, error) {
	if c.cfg.Index == nil {
		return nil, nil
	}
	all, err := c.cfg.Index.Replicas(ctx)
	for i, r := range all {
		_, all[i].Status, _ = bytes.Cut(r.Status, []byte(" "))
	}
	return all, err
}

// sweep keeps the tier in bounds, now and then, until ctx ends. Of several replicas one
// does, the first by name; if nobody knows who is there, each does.
func (c *Cluster) sweep(ctx context.Context) error {
	for pause.For(ctx, sweepEvery/2+mathrand.N(sweepEvery)) {
		if !c.first(ctx) {
			continue
		}
		report, err := c.cfg.Tier.Sweep(ctx, c.cfg.Sweep)
		c.count.swept.Add(int64(report.Superseded.Count + report.Leftover.Count + report.Evicted.Count))
		if err != nil && ctx.Err() == nil {
			c.failed("sweeping the shared tier", err)
		}
	}
	return nil
}

// first reports whether this replica is the first by name of those that are there.
func (c *Cluster) first(ctx context.Context) bool {
	all, err := c.Replicas(ctx)
	if err != nil || len(all) == 0 {
		return true
	}
	names := make([]string, len(all))
	for i, r := range all {
		names[i] = r.Name
	}
	return c.cfg.Self <= slices.Min(names)
}
