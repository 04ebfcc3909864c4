package lsmt

import "slices"

// overlay merges two sorted lists of disjoint entries: where both have a
// sector, upper wins, zeroed or not.
func overlay(upper, lower []entry) []entry {
	if len(lower) == 0 {
		return upper
	}
	if len(upper) == 0 {
		return lower
	}
	out := make([]entry, 0, len(upper)+len(lower))
	low := lower[0] // what is left of the lower entry at hand
	lower = lower[1:]
	more := true
	advance := func() {
		if more = len(lower) > 0; more {
			low, lower = lower[0], lower[1:]
		}
	}
	for _, up := range upper {
		for more && low.end() <= up.offset() {
			out = append(out, low)
			advance()
		}
		if more && low.offset() < up.offset() {
			head := up.offset() - low.offset()
			out = append(out, low.trimBack(low.length()-head))
			low = low.trimFront(head)
		}
		for more && low.end() <= up.end() {
			advance()
		}
		if more && low.offset() < up.end() {
			low = low.trimFront(up.end() - low.offset())
		}
		out = append(out, up)
	}
	if more {
		out = append(out, low)
	}
	return append(out, lower...)
}

// mergeLayers merges layers, bottom first, and tags entries with the number
// of their layer, the bottom one being number first. Halves are merged
// recursively, so that an entry is copied 8 times for 255 layers, not 255.
func mergeLayers(layers []*Layer, first int) []entry {
	switch len(layers) {
	case 0:
		return nil
	case 1:
		entries := slices.Clone(layers[0].entries)
		for i := range entries {
			entries[i].to |= uint64(first) << layerShift
		}
		return entries
	}
	half := len(layers) / 2
	return overlay(mergeLayers(layers[half:], first+half), mergeLayers(layers[:half], first))
}
