package tracelayer

import (
	"time"
)

// Recording is a trace and when it was made.
type Recording struct {
	Trace Trace
	Time  time.Time
}

// MergeConfig says which reads of several recordings are kept.
type MergeConfig struct {
	// HalfLife is how much older a recording is that counts half as much.
	// Default a week; negative: all count the same.
	HalfLife time.Duration
	// MinShare is the share of the recordings, weighted, that must have read
	// a byte for it to be kept, 0 to 1. Default 0.5; negative: any.
	MinShare float64
}

// Merge returns the reads that enough of the recordings have.
func Merge(recordings []Recording, cfg MergeConfig) Trace { return nil }
