package tier

import (
	"context"
	"time"
)

// SweepConfig is what a Sweep keeps.
type SweepConfig struct {
	MaxBytes int64         // of all objects as the store counts them; 0: no bound
	Grace    time.Duration // how long what is not needed stays for those who use it still; 1 h if 0
}

// Removed counts what was removed.
type Removed struct {
	Count int
	Bytes int64
}

// SweepReport is what a Sweep found and did.
type SweepReport struct {
	Objects    int     // that stay
	Bytes      int64   // of those, as the store counts them
	Superseded Removed // generations
	Leftover   Removed // of Puts that were killed
	Evicted    Removed // for MaxBytes, oldest first
	Foreign    int     // names that are not the tier's, which are left alone
}

// Sweep removes generations that were superseded longer than Grace ago, what is left
// of Puts that were killed, and the oldest objects until the rest has at most MaxBytes.
// It goes on after an error where it can, and returns the first.
func (t *Tier) Sweep(ctx context.Context, cfg SweepConfig) (SweepReport, error) {
	return SweepReport{}, ErrAway
}
