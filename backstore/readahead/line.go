package readahead

import "time"

const (
	fewSamples = 8               // below, the line is not known
	memory     = 0.98            // weight of what is known when another sample comes
	stalled    = 2 * time.Second // reads that took longer say nothing about the line
)

// line estimates what a request costs from how long reads of different lengths
// take: the straight line through them, older ones weighing less, begins at what
// is paid for the request and rises by what is paid for a byte.
//
// That is not what replay.Line knows of the same way: the time to the first byte and
// the bandwidth of a registry host, to bound what is in flight there. Here it is one
// device, and whole reads of it: whatever they cost on the way down, several blocks,
// pages of hashes and decompression included, since these are what a longer read
// costs or saves.
type line struct {
	samples          int
	w, n, t, nn, nt  float64 // sums of weights, lengths, times and their products
	perByte, request float64 // seconds
}

// observe enters a read of n bytes.
func (l *line) observe(n int64, took time.Duration) {
	if took > stalled || n <= 0 {
		return
	}
	x, y := float64(n), took.Seconds()
	l.samples++
	l.w = l.w*memory + 1
	l.n = l.n*memory + x
	l.t = l.t*memory + y
	l.nn = l.nn*memory + x*x
	l.nt = l.nt*memory + x*y
	if spread := l.w*l.nn - l.n*l.n; spread > 0 {
		l.perByte = max(0, (l.w*l.nt-l.n*l.t)/spread)
		l.request = max(0, (l.t-l.perByte*l.n)/l.w)
	}
}

// worth returns how many bytes take as long as a request without any, at most
// limit; while the line is not known, minBlock.
func (l *line) worth(limit int64) int64 {
	switch {
	case l.samples < fewSamples:
		return minBlock
	case l.request >= l.perByte*float64(limit):
		return limit
	}
	return int64(l.request / l.perByte)
}
