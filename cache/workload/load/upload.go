package load

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"net/url"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Bounds of what is held of uploads that a trace never ends.
const (
	maxStarted = 16      // in one repository by one client, that no part has named yet
	maxPlaces  = 1 << 14 // of such: what is mounted is started too, and no part comes
	maxUploads = 1 << 16 // that were named
)

// upload is one whose parts are sent one by one, in their order.
type upload struct {
	last <-chan struct{} // is closed when the last part that was claimed is done

	// Of the part whose turn it is:
	to   *url.URL // nil: not begun
	off  int64
	hash hash.Hash
}

// turn is the place of a part in its upload.
type turn struct {
	of     *upload
	before <-chan struct{} // is closed when it is the part's turn; nil: it is
	done   chan struct{}
}

// end lets the next part have its turn. There may be no turn.
func (t *turn) end() {
	if t != nil {
		close(t.done)
	}
}

func (u *upload) queue() *turn {
	t := &turn{u, u.last, make(chan struct{})}
	u.last = t.done
	return t
}

// uploads knows which upload of the registry is which of the trace. A trace names an
// upload only after its start, so the parts of a name go to the oldest upload that
// was started by the same client in the same repository; without one they start their
// own.
type uploads struct {
	mu      sync.Mutex
	started map[string][]*upload
	named   map[string]*upload
}

// claim returns the turn of an item in its upload, nil if it is of none. It is called
// for the items in their order.
func (u *uploads) claim(it *Item) *turn {
	if it.Op != Start && it.Op != Append && it.Op != Finish {
		return nil
	}
	t := trace.Parse(it.URI)
	place := fmt.Sprint(it.Registry, " ", t.Repository, " ", it.Client)
	name := fmt.Sprint(it.Registry, " ", t.Repository, " ", t.Reference[strings.LastIndexByte(t.Reference, '/')+1:])
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.named == nil {
		u.named, u.started = map[string]*upload{}, map[string][]*upload{}
	}
	if it.Op == Start {
		one := &upload{}
		all := append(u.started[place], one)
		u.started[place] = all[max(0, len(all)-maxStarted):]
		evict(u.started, place, maxPlaces)
		return one.queue()
	}
	one := u.named[name]
	if one == nil {
		one = u.oldest(place)
	}
	if it.Op == Finish {
		delete(u.named, name)
		return one.queue()
	}
	u.named[name] = one
	evict(u.named, name, maxUploads)
	return one.queue()
}

// evict takes any out of m but the one of key, until there are no more than most.
func evict[V any](m map[string]V, key string, most int) {
	for other := range m {
		if len(m) <= most {
			return
		}
		if other != key {
			delete(m, other)
		}
	}
}

func (u *uploads) oldest(place string) *upload {
	all := u.started[place]
	if len(all) == 0 {
		return &upload{}
	}
	if len(all) == 1 {
		delete(u.started, place)
	} else {
		u.started[place] = all[1:]
	}
	return all[0]
}

// part sends a part of an upload, after the parts before it.
func (p *performer) part(ctx context.Context, x *exchange, it *Item, t *turn) (Answer, error) {
	if t.before != nil {
		select {
		case <-t.before:
		case <-ctx.Done():
			return Answer{}, context.Cause(ctx)
		}
	}
	up := t.of
	var a Answer
	var err error
	if up.to == nil {
		up.off, up.hash = 0, sha256.New()
		up.to, a, err = x.start(ctx, trace.Parse(it.Path).Repository, it.Query)
	}
	if err != nil || it.Op == Start || up.to == nil {
		return a, err
	}
	size := max(it.Size, 0)
	if it.Op == Append || size > 0 {
		if a, err = p.add(ctx, x, it, up); err != nil || it.Op == Append {
			return a, err
		}
	}
	to := withDigest(up.to, digest.NewDigest(digest.SHA256, up.hash))
	up.to = nil
	a, err = x.put(ctx, to, "", 0, empty)
	if err == nil {
		a.Bytes = size
	}
	return a, err
}

// add sends the bytes of a part. An upload of which a part failed is begun anew.
func (p *performer) add(ctx context.Context, x *exchange, it *Item, up *upload) (Answer, error) {
	size := max(it.Size, 0)
	var sent *hashing
	next, a, err := x.patch(ctx, up.to, up.off, size, func() io.Reader {
		sent = &hashing{from: p.maker.Body(it.URI, size)}
		sent.hash, sent.err = up.hash.(hash.Cloner).Clone()
		return sent
	})
	if err == nil && size > 0 {
		_, err = sent.sum(size)
	}
	if err != nil {
		up.to = nil
		return a, err
	}
	up.to, up.off = next, up.off+size
	if size > 0 {
		up.hash = sent.hash
	}
	return a, nil
}
