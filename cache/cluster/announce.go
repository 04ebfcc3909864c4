package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// followAgain is waited after following failed.
const followAgain = time.Second

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
