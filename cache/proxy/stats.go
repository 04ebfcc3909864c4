package proxy

// Stats is a snapshot of what a Handler did since it was made, and does.
type Stats struct {
	Requests   uint64
	Outcomes   map[Outcome]uint64
	Bytes      uint64 // of bodies that were sent
	Aborted    uint64 // answers that were cut off, by a client or by us
	BadContent uint64 // times that an upstream or the disk had wrong bytes
	NotStored  uint64 // manifests that the disk or the index did not take

	InFlight int64 // requests now

	Streaming        int // bodies under way that count for Streamers
	Streamers        int
	StreamersWaiting int64
	StreamersRefused uint64 // told to come again

	Memory MemoryStats
}

// MemoryStats is about the tier in memory.
type MemoryStats struct {
	Items               int
	Bytes, MaxBytes     int64
	Hits, Misses, Evict uint64
}

// Stats returns a snapshot. Safe for parallel use.
func (h *Handler) Stats() Stats {
	s := Stats{
		Requests: h.count.requests.Load(), Outcomes: make(map[Outcome]uint64, len(outcomes)),
		Bytes: h.count.bytes.Load(), Aborted: h.count.aborted.Load(),
		BadContent: h.count.badContent.Load(), NotStored: h.count.notStored.Load(), InFlight: h.count.inFlight.Load(),
		Streaming: len(h.streamers.slots), Streamers: cap(h.streamers.slots),
		StreamersWaiting: h.streamers.waiting.Load(), StreamersRefused: h.streamers.refused.Load(),
	}
	for i, o := range outcomes {
		s.Outcomes[o] = h.count.outcomes[i].Load()
	}
	if m := h.memory; m != nil {
		s.Memory = MemoryStats{
			Items: m.len(), Bytes: m.bytes.Load(), MaxBytes: m.max,
			Hits: m.hits.Load(), Misses: m.misses.Load(), Evict: m.evicted.Load(),
		}
	}
	return s
}

// outcomes are all there are, in the order in which they are counted.
var outcomes = [...]Outcome{
	OutcomeHit, OutcomeMiss, OutcomePartial, OutcomeRevalidated, OutcomeStale, OutcomePassed, OutcomeDenied, OutcomeError,
}

// finished counts an answer.
func (c *counters) finished(x *exchange) {
	c.inFlight.Add(-1)
	c.requests.Add(1)
	c.bytes.Add(uint64(x.sent))
	if x.aborted {
		c.aborted.Add(1)
	}
	for i, o := range outcomes {
		if o == x.outcome {
			c.outcomes[i].Add(1)
			return
		}
	}
}
