package download

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

// Config says when and how fast images are downloaded.
type Config struct {
	// Delay is the time from when an image is attached to when it begins to be
	// downloaded, to which up to a tenth is added at random: nodes that
	// started together do not download together.
	Delay time.Duration
	// Idle is how long nobody may have been waiting for a registry before
	// something is downloaded from it. Default 2 s.
	Idle time.Duration
	// ImageRate and TotalRate bound what is fetched for one image and for all
	// of them, in bytes a second; 0 is no bound.
	ImageRate, TotalRate int64
	// Images is how many images are downloaded at once. Default 1.
	Images int
	// MinFree is how many bytes of the file system are left free.
	MinFree int64
}

// Validate reports values that make no sense.
func (c Config) Validate() error {
	var errs []error
	if c.Delay < 0 || c.Idle < 0 {
		errs = append(errs, errors.New("download times must not be negative"))
	}
	if c.ImageRate < 0 || c.TotalRate < 0 {
		errs = append(errs, fmt.Errorf("download rates %d and %d must not be negative", c.ImageRate, c.TotalRate))
	}
	if c.Images < 0 || c.MinFree < 0 {
		errs = append(errs, errors.New("number of images and free bytes must not be negative"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Idle <= 0 {
		c.Idle = 2 * time.Second
	}
	if c.Images <= 0 {
		c.Images = 1
	}
	return c
}

// delay returns how long to wait for an image that was just attached.
func (c Config) delay() time.Duration { return c.Delay + rand.N(c.Delay/10+1) }

// newRate returns a token bucket of bytes, nil without a bound.
func newRate(bytes int64) *rate.Limiter {
	if bytes == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), pieceSize)
}

// The pauses after failures double from the first to the longest.
const (
	firstPause   = time.Minute
	longestPause = time.Hour
)

// backOff returns how long to leave a layer alone that failed so many times.
func backOff(failures int) time.Duration {
	span := longestPause
	if shift := failures - 1; shift < 16 {
		span = min(span, firstPause<<shift)
	}
	return span/2 + rand.N(span/2+1)
}
