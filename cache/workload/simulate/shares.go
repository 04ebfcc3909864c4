package simulate

import "slices"

// SizeShare is a point of a distribution of sizes.
type SizeShare struct {
	Share float64 `json:"share"` // of objects are not larger than
	Size  int64   `json:"size"`  // bytes
}

// sizeShares returns the distribution of the sizes of objects.
func sizeShares(d *Decoded) []SizeShare {
	sizes := slices.Clone(d.Sizes)
	slices.Sort(sizes)
	const n = 200
	var out []SizeShare
	for i := range n + 1 {
		at := min(len(sizes)-1, i*len(sizes)/n)
		out = append(out, SizeShare{Share: float64(at+1) / float64(len(sizes)), Size: sizes[at]})
	}
	return slices.Compact(out)
}
