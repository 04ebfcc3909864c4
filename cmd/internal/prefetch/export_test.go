package prefetch

// Idle reports whether p has nothing to do.
func (p *Prefetcher) Idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.images) == 0
}
