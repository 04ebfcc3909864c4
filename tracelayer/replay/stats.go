package replay

import (
	"sync/atomic"
	"time"
)

// Skipped is why an extent is not fetched.
type Skipped int

const (
	// SkippedPresent is that it is there already.
	SkippedPresent Skipped = iota
	// SkippedBudget is that it lies beyond Job.Budget.
	SkippedBudget
	// SkippedInvalid is that it is of no layer of the image, or lies outside of
	// its layer.
	SkippedInvalid
	// SkippedCorrupt is that what came is not what the plan says. It counts
	// wrong data, too, which are then asked for at the layer's own blob.
	SkippedCorrupt
	// SkippedFailed is that it could not be read.
	SkippedFailed
	kindsOfSkipped
)

// String returns the name of a reason as metrics have it.
func (s Skipped) String() string {
	return [...]string{"present", "budget", "invalid", "corrupt", "failed"}[s]
}

// Observer is told what a replay does, and what its work is good for, which
// includes reads after it. It is called in parallel and must be quick.
type Observer interface {
	// Prefetched is called for each extent, of n bytes, that was fetched.
	Prefetched(n int64)
	// Skipped is called for each extent, of n bytes, that was not.
	Skipped(why Skipped, n int64)
	// Used is called when somebody reads, for the first time, of an extent
	// of n bytes that was fetched, so long ago.
	Used(n int64, ahead time.Duration)
	// Missed is called when somebody reads of an extent of n bytes that is
	// to be fetched and is not there yet, for each extent once.
	Missed(n int64)
}

// Count is a number of extents and their bytes.
type Count struct{ Extents, Bytes int64 }

// Stats is what a replay did.
type Stats struct {
	// Prefetched was fetched and is cached.
	Prefetched Count
	// Present, Budget, Invalid, Corrupt and Failed were skipped: see the
	// constants of Skipped.
	Present, Budget, Invalid, Corrupt, Failed Count
	// Used was prefetched and then read by somebody, Missed was read before
	// it came. Both until the end of Run; see Observer for later.
	Used, Missed Count
	// Streams and Ranges are how many requests were made for the data and
	// for ranges of layers, as far as a replay knows: a blob may need several
	// for one range.
	Streams, Ranges int64
	// Received is how many bytes came: of extents as they are stored, and of
	// what lies between them.
	Received int64
	// Took is how long all of that took.
	Took time.Duration
}

type counter struct{ extents, bytes atomic.Int64 }

func (c *counter) add(n int64) {
	c.extents.Add(1)
	c.bytes.Add(n)
}

func (c *counter) load() Count { return Count{c.extents.Load(), c.bytes.Load()} }

type counters struct {
	prefetched, used, missed  counter
	skipped                   [kindsOfSkipped]counter
	streams, ranges, received atomic.Int64
}

func (c *counters) stats() Stats {
	return Stats{
		Prefetched: c.prefetched.load(),
		Present:    c.skipped[SkippedPresent].load(),
		Budget:     c.skipped[SkippedBudget].load(),
		Invalid:    c.skipped[SkippedInvalid].load(),
		Corrupt:    c.skipped[SkippedCorrupt].load(),
		Failed:     c.skipped[SkippedFailed].load(),
		Used:       c.used.load(),
		Missed:     c.missed.load(),
		Streams:    c.streams.Load(),
		Ranges:     c.ranges.Load(),
		Received:   c.received.Load(),
	}
}

// nobody is an Observer.
type nobody struct{}

func (nobody) Prefetched(int64)          {}
func (nobody) Skipped(Skipped, int64)    {}
func (nobody) Used(int64, time.Duration) {}
func (nobody) Missed(int64)              {}
