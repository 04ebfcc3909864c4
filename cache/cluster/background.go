package cluster

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
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
		after, err := c.position(ctx)
		if err == nil {
			err = c.cfg.Index.Follow(ctx, after, func(a sharedindex.Announcement) {
				c.told(ctx, a)
				if ctx.Err() == nil { // or it may not have been done
					c.keepPosition(a.ID)
				}
			})
		}
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
	// remindLook is how often it is looked whether the index has forgotten what this
	// replica has; remindEvery is how often it is told anyway at the least, as it forgets
	// what it is not asked for.
	remindLook  = time.Second
	remindEvery = 24 * time.Hour
	// remindOf blobs are told at a time. Then it is paused for remindShare times as long
	// as that took, at least remindPause: all replicas may do it at once.
	remindOf    = 256
	remindShare = 20
	remindPause = 50 * time.Millisecond
)

// remind tells the index all that is verified here, after a start, each day, and when
// the index has lost it, until ctx ends.
func (c *Cluster) remind(ctx context.Context) error {
	every := remindEvery
	if r := c.cfg.Remember; r > 0 {
		every = min(every, r/2)
	}
	var told time.Time
	began := time.Now()
	for pause.For(ctx, remindLook) {
		if !c.cache.Scanned() || !c.cfg.Index.Stats().Up {
			continue
		}
		lost := c.forgotten.Swap(false)
		if !lost && !told.IsZero() && time.Since(told) < every {
			continue
		}
		before := time.Now()
		if told.IsZero() && !lost {
			before = began // what was fetched since then it was told
		}
		told = time.Now()
		if err := c.holdAll(ctx, before); err != nil {
			return nil // ctx has ended
		}
	}
	return nil
}

// holdAll tells the index all that is verified here and was fetched before then. Where the
// index is away it waits.
func (c *Cluster) holdAll(ctx context.Context, before time.Time) error {
	var keys []sharedindex.Key
	for _, b := range c.cache.Blobs() {
		if b.Origin == "" && b.FetchedAt.Before(before) {
			keys = append(keys, sharedindex.Key{Digest: b.Descriptor.Digest})
		}
	}
	for len(keys) > 0 {
		some := keys[:min(remindOf, len(keys))]
		began, wait := time.Now(), remindLook
		if !errors.Is(c.cfg.Index.Hold(ctx, some...), sharedindex.ErrAway) { // other errors are of one blob
			keys = keys[len(some):]
			wait = max(remindPause, remindShare*time.Since(began))
		}
		if !pause.For(ctx, wait+mathrand.N(wait)) {
			return ctx.Err()
		}
	}
	return nil
}

// maxPosition bounds what is read back of the file, in bytes.
const maxPosition = 64

// position returns where to go on. A replica that starts for the first time goes on from
// now, and remembers that at once: what is announced while it is away it is to be told.
func (c *Cluster) position(ctx context.Context) (string, error) {
	text, err := os.ReadFile(c.cfg.Position)
	if err == nil && len(text) <= maxPosition {
		return strings.TrimSpace(string(text)), nil
	}
	id, err := c.cfg.Index.Tail(ctx)
	if err == nil {
		c.keepPosition(id)
	}
	return id, err
}

func (c *Cluster) keepPosition(id string) {
	tmp := filepath.Join(filepath.Dir(c.cfg.Position), "."+filepath.Base(c.cfg.Position)+".tmp")
	err := os.WriteFile(tmp, []byte(id+"\n"), 0o600)
	if err == nil {
		err = os.Rename(tmp, c.cfg.Position)
	}
	if err != nil {
		c.failed("remembering what others announced", err)
	}
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
