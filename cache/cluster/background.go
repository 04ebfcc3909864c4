package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
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
// It carries a MAC: who can write to the index, and does not know the secret, can at most
// have said again what was said once.
func (c *Cluster) Announce(ctx context.Context, payload []byte) error {
	if c.cfg.Index == nil {
		return nil
	}
	return c.cfg.Index.Announce(ctx, append(c.sign(payload), payload...))
}

func (c *Cluster) sign(payload []byte) []byte {
	mac := hmac.New(sha256.New, c.announcing)
	mac.Write(payload)
	return mac.Sum(nil)
}

// signed returns the payload of an announcement; false if it is not one of a replica.
func (c *Cluster) signed(text []byte) ([]byte, bool) {
	if len(text) < sha256.Size {
		return nil, false
	}
	mac, payload := text[:sha256.Size], text[sha256.Size:]
	return payload, hmac.Equal(mac, c.sign(payload))
}

// follow tells OnAnnouncement what others announce, until ctx ends. What was told is
// remembered, so that it goes on there after a restart.
func (c *Cluster) follow(ctx context.Context) error {
	for {
		after := c.position()
		err := c.cfg.Index.Follow(ctx, after, func(a sharedindex.Announcement) {
			c.told(ctx, a)
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

// told passes an announcement on.
func (c *Cluster) told(ctx context.Context, a sharedindex.Announcement) {
	if a.Missed { // it may have lost more than that
		c.forgotten.Store(true)
	}
	if c.cfg.OnAnnouncement == nil || !a.Missed && a.Replica == c.cfg.Self {
		return
	}
	if a.Missed {
		c.cfg.OnAnnouncement(ctx, nil, true)
		return
	}
	payload, ok := c.signed(a.Payload)
	if !ok {
		c.failed("following announcements of other replicas", fmt.Errorf("one in the name of %s is not of who knows the secret", a.Replica))
		return
	}
	c.cfg.OnAnnouncement(ctx, payload, false)
}

const (
	// remindLook is how often it is looked whether the index was away, and may have
	// forgotten what this replica has; remindEvery is how often it is told anyway, as it
	// forgets what it is not asked for.
	remindLook  = time.Second
	remindEvery = 24 * time.Hour
	// remindOf blobs are told at a time, with a pause of remindPause.
	remindOf    = 256
	remindPause = 50 * time.Millisecond
)

// remind tells the index all that is verified here, after a start and whenever it may
// have forgotten it, until ctx ends.
func (c *Cluster) remind(ctx context.Context) error {
	var told time.Time
	began, since := time.Now(), c.cfg.Index.Stats().Since
	for pause.For(ctx, remindLook) {
		now := c.cfg.Index.Stats()
		same := now.Since.Equal(since) && !c.forgotten.Swap(false)
		if !c.cache.Scanned() || !now.Up || same && !told.IsZero() && time.Since(told) < remindEvery {
			continue
		}
		before := time.Now()
		if told.IsZero() && same {
			before = began // what was fetched since then it was told
		}
		if c.holdAll(ctx, before) != nil {
			c.forgotten.Store(true)
			continue
		}
		told, since = time.Now(), now.Since
	}
	return nil
}

// holdAll tells the index all that is verified here and was fetched before then.
func (c *Cluster) holdAll(ctx context.Context, before time.Time) error {
	var keys []sharedindex.Key
	for _, b := range c.cache.Blobs() {
		if b.Origin == "" && b.FetchedAt.Before(before) {
			keys = append(keys, sharedindex.Key{Digest: b.Descriptor.Digest})
		}
	}
	for some := range slices.Chunk(keys, remindOf) {
		if err := c.cfg.Index.Hold(ctx, some...); err != nil {
			return err
		}
		if !pause.For(ctx, remindPause) {
			return ctx.Err()
		}
	}
	return nil
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
