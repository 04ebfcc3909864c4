package readahead

import (
	"errors"
	"fmt"
)

// Names of policies.
const (
	// Off reads nothing ahead.
	Off = "off"
	// Sequential reads ahead of sequential streams, at most half of what they
	// have read. It wastes few bytes.
	Sequential = "sequential"
	// Expand fetches around what is missing, too, as many bytes as take about
	// twice as long as a request without any. It wastes bytes to save time.
	Expand = "expand"
)

// Config says how is read ahead of one device.
type Config struct {
	// Policy is Off, Sequential or Expand; empty is Sequential.
	Policy string
	// Trigger is how many bytes a stream must have read in sequence before
	// Sequential reads anything ahead of it.
	Trigger int64
	// Max is the largest distance in bytes to read ahead of a stream; 0 turns
	// all readahead off.
	Max int64
	// Block is the largest block in bytes, aligned to its size, that Expand
	// fetches where something in it is missing; 0 is that of DefaultConfig.
	Block int64
}

// DefaultConfig fetches around what is missing, and reads ahead of two pages in a row.
var DefaultConfig = Config{Policy: Expand, Trigger: 8 << 10, Max: 1 << 20, Block: 128 << 10}

// Validate reports values that make no sense.
func (c Config) Validate() error {
	var errs []error
	switch c.Policy {
	case "", Off, Sequential, Expand:
	default:
		errs = append(errs, fmt.Errorf("readahead policy %q is not %q, %q or %q", c.Policy, Off, Sequential, Expand))
	}
	if c.Trigger < 0 || c.Max < 0 || c.Block < 0 {
		errs = append(errs, errors.New("numbers of bytes to read ahead must not be negative"))
	}
	return errors.Join(errs...)
}

// policy returns the policy that c names, nil if nothing is read ahead, for a device of size bytes.
func (c Config) policy(size int64) Policy {
	if c.Block == 0 {
		c.Block = DefaultConfig.Block
	}
	switch {
	case c.Max == 0 || c.Policy == Off:
		return nil
	case c.Policy == Expand:
		return newExpand(c, size)
	}
	return newSequential(c, size)
}
