package generate

import "math"

// quantiles are sizes of blobs, by the share of requests for smaller ones: what was
// measured of 999 requests of the largest zone up to 0.9, and of the whole archive
// from there. Between them the logarithm of the size is linear.
var quantiles = []struct {
	share float64
	size  float64 // bytes
}{
	{0, 32}, {0.05, 130}, {0.10, 181}, {0.25, 1100}, {0.50, 11_500}, {0.65, 645_000}, {0.75, 3.35e6}, {0.80, 9.4e6},
	{0.90, 30e6}, {0.9395, 64 << 20}, {0.9948, 256 << 20}, {0.99946, 1 << 30}, {1, 2 << 30},
}

// sizeAt returns the size below which a share of the requests is.
func sizeAt(share float64) int64 {
	for i, q := range quantiles[1:] {
		if share <= q.share {
			p := quantiles[i]
			at := (share - p.share) / (q.share - p.share)
			return int64(math.Exp(math.Log(p.size) + at*(math.Log(q.size)-math.Log(p.size))))
		}
	}
	return int64(quantiles[len(quantiles)-1].size)
}

// golden is the fraction of the golden ratio: its multiples are spread evenly.
const golden = 0.6180339887498949

// size returns the size of a blob. Sizes of blobs that come one after the other are
// spread evenly over the distribution: the few that are asked for all the time would
// else decide, by chance, what most requests are for.
func (w *world) size(number uint64) int64 {
	number = w.content(number)
	_, u := math.Modf(float64(number)*golden + w.unit(kindUpload, 0))
	if number < hotBlobs {
		u = min(u, 0.96)
	}
	return sizeAt(u)
}

// manifestSize returns the size of a manifest, by what it lists. The tag that most
// repositories have moves from image to image, and its size with it.
func (w *world) manifestSize(p pull) int64 { return 420 + 150*int64(p.lists) }
