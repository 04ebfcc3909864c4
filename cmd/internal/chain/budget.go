package chain

import "sync"

// budget is what all replays together may put into the cache, so that whatever
// plans say, what others need stays there: three quarters of it at a time, of
// which each takes two thirds of what is left at most. That is half of the cache
// for one, and something for all.
type budget struct {
	cache int64 // bytes that the cache can hold, 0 for no limit

	mu    sync.Mutex
	taken int64
}

// take returns how many of want bytes a replay may fetch, at least 1, or 0 for no
// limit, until giveBack is called.
func (b *budget) take(want int64) (n int64, giveBack func()) {
	if b.cache == 0 {
		return 0, func() {}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n = max(min(want, (b.cache/4*3-b.taken)/3*2), 1)
	b.taken += n
	return n, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.taken -= n
	}
}
