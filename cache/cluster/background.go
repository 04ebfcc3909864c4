package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

const (
	beatEvery  = 5 * time.Second
	sweepEvery = time.Hour
	// followAgain is waited after following failed.
	followAgain = time.Second
)

// beat tells the others how this replica is, until ctx ends.
func (c *Cluster) beat(ctx context.Context) error {
	for {
		var status []byte
		if c.cfg.Status != nil {
			status = c.cfg.Status()
		}
		_ = c.cfg.Index.Beat(ctx, status) // counted by the index
		if !pause.For(ctx, beatEvery) {
			return nil
		}
	}
}

// Replicas returns those that are there, by name.
func (c *Cluster) Replicas(ctx context.Context) ([]sharedindex.Replica, error) {
	if c.cfg.Index == nil {
		return nil, nil
	}
	return c.cfg.Index.Replicas(ctx)
}

// Announce tells the other replicas something that OnAnnouncement of theirs understands.
func (c *Cluster) Announce(ctx context.Context, payload []byte) error {
	if c.cfg.Index == nil {
		return nil
	}
	return c.cfg.Index.Announce(ctx, payload)
}

// follow tells OnAnnouncement what others announce, until ctx ends. What was told is
// remembered, so that it goes on there after a restart.
func (c *Cluster) follow(ctx context.Context) error {
	for {
		after := c.position()
		err := c.cfg.Index.Follow(ctx, after, func(a sharedindex.Announcement) {
			if a.Replica != c.cfg.Self && c.cfg.OnAnnouncement != nil && (a.Missed || len(a.Payload) > 0) {
				c.cfg.OnAnnouncement(ctx, a.Payload, a.Missed)
			}
			if err := c.keepPosition(a.ID); err != nil {
				c.failed("remembering what others announced", err)
			}
		})
		if err != nil && ctx.Err() == nil && !errors.Is(err, sharedindex.ErrAway) {
			c.failed("following announcements of other replicas", err)
		}
		if !pause.For(ctx, followAgain) {
			return nil
		}
	}
}

// maxPosition bounds what is read back of the file, in bytes.
const maxPosition = 64

// position returns where to go on, "" for now.
func (c *Cluster) position() string {
	text, err := os.ReadFile(c.cfg.Position)
	if err != nil || len(text) > maxPosition {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (c *Cluster) keepPosition(id string) error {
	if c.cfg.Position == "" || id == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(c.cfg.Position), "."+filepath.Base(c.cfg.Position)+".tmp")
	if err := os.WriteFile(tmp, []byte(id+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, c.cfg.Position)
}

// sweep keeps the tier in bounds, now and then, until ctx ends. Of several replicas one
// does, the first by name; if nobody knows who is there, each does.
func (c *Cluster) sweep(ctx context.Context) error {
	for pause.For(ctx, sweepEvery/2+rand.N(sweepEvery)) {
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

// Forget removes blobs from the tier. Other replicas are told by Announce.
func (c *Cluster) Forget(ctx context.Context, digests []digest.Digest) error {
	if c.cfg.Tier == nil {
		return nil
	}
	var errs []error
	for _, d := range digests {
		o, found, err := c.cfg.Tier.Find(ctx, d)
		for ; found && err == nil; o, found, err = c.cfg.Tier.Find(ctx, d) {
			if err = c.cfg.Tier.Remove(ctx, d, o.Generation); err != nil {
				break
			}
			if c.cfg.Index != nil {
				_ = c.cfg.Index.Unpublish(ctx, d, o.Generation) // counted by the index
			}
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
