package replay

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/reprise-containers/reprise/remote/blob"
)

// watchFor is how long after the begin of a replay it is noted what is read.
const watchFor = 10 * time.Minute

// Use is a blob.Blob at the top of a layer's decorators that notes which extents
// of replays are read, and when. While there are none, a read costs it one look.
type Use struct {
	blob.Blob
	now atomic.Pointer[[]watch]
	mu  sync.Mutex // held to replace what now points at
}

// watch is the marks of one replay, by offset. It outlives the replay, of which it
// must hold nothing that is large.
type watch struct {
	marks   []*mark
	o       Observer
	count   *counters
	expires time.Time
}

// mark is an extent that a replay is to fetch.
type mark struct {
	off, end int64
	arrived  atomic.Int64 // Unix nanoseconds, 0: not yet
	used     atomic.Bool
}

// NewUse returns b watched.
func NewUse(b blob.Blob) *Use { return &Use{Blob: b} }

// came notes that an extent is there.
func (m *mark) came(now time.Time) {
	if m != nil {
		m.arrived.Store(now.UnixNano())
	}
}

// watch adds the marks of a replay, until they expire, whether anybody reads or not.
func (u *Use) watch(w watch) {
	slices.SortFunc(w.marks, func(a, b *mark) int { return cmp.Compare(a.off, b.off) })
	w.expires = time.Now().Add(watchFor)
	u.mu.Lock()
	defer u.mu.Unlock()
	var now []watch
	if old := u.now.Load(); old != nil {
		now = slices.Clone(*old)
	}
	now = append(now, w)
	u.now.Store(&now)
	closed := weak.Make(u) // it may be, long before that
	time.AfterFunc(watchFor, func() {
		if u := closed.Value(); u != nil {
			u.expire()
		}
	})
}

// expire drops the marks that are old.
func (u *Use) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.now.Load()
	if old == nil {
		return
	}
	now := slices.DeleteFunc(slices.Clone(*old), func(w watch) bool { return !time.Now().Before(w.expires) })
	if len(now) == 0 {
		u.now.Store(nil)
	} else {
		u.now.Store(&now)
	}
}

// ReadAt implements blob.ReaderAt.
func (u *Use) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if now := u.now.Load(); now != nil && blob.PriorityOf(ctx) == blob.Demand {
		read(*now, off, off+int64(len(p)))
	}
	return u.Blob.ReadAt(ctx, p, off)
}

// read notes a read of [off, end).
func read(now []watch, off, end int64) {
	at := time.Now()
	for _, w := range now {
		i, _ := slices.BinarySearchFunc(w.marks, off, func(m *mark, off int64) int {
			if m.end <= off {
				return -1
			}
			return 1
		})
		for ; i < len(w.marks) && w.marks[i].off < end; i++ {
			w.read(w.marks[i], at)
		}
	}
}

func (w watch) read(m *mark, at time.Time) {
	if m.used.Load() || m.used.Swap(true) {
		return
	}
	if n := m.end - m.off; m.arrived.Load() == 0 {
		w.count.missed.add(n)
		w.o.Missed(n)
	} else {
		w.count.used.add(n)
		w.o.Used(n, at.Sub(time.Unix(0, m.arrived.Load())))
	}
}

// Present implements blob.Presence.
func (u *Use) Present(off, n int64) bool { return blob.Present(u.Blob, off, n) }

// Discard implements blob.Discarder.
func (u *Use) Discard(off, n int64) { blob.Discard(u.Blob, off, n) }

// Reject implements blob.Rejecter.
func (u *Use) Reject(origin string) { blob.Reject(u.Blob, origin) }
