package schedule

import (
	"math"
	"math/rand/v2"
	"time"
)

// clock says when requests are due.
type clock struct {
	speed, rate float64
	poisson     *rand.Rand // nil: arrivals are evenly spaced
	ramp        float64    // seconds

	n      float64 // requests so far
	passed float64 // seconds, of arrivals that are independent
	last   time.Duration
}

func newClock(cfg Config) clock {
	c := clock{speed: cfg.Speed, rate: cfg.Rate, ramp: cfg.Ramp.Seconds()}
	if c.speed == 0 {
		c.speed = 1
	}
	if cfg.Poisson {
		c.poisson = rand.New(rand.NewPCG(cfg.Seed, 2))
	}
	return c
}

// due returns when the next request is due, which has a delay in the trace. It is
// never before the one before it.
func (c *clock) due(delay time.Duration) time.Duration {
	var at float64 // seconds, at the full rate
	switch {
	case c.rate == 0:
		at = delay.Seconds() / c.speed
	case c.poisson == nil:
		at = c.n / c.rate
	default:
		c.passed += c.poisson.ExpFloat64() / c.rate
		at = c.passed
	}
	c.n++
	c.last = max(c.last, seconds(c.warp(at)))
	return c.last
}

// warp returns when that comes which would come at a time if the rate were full from
// the beginning. While it grows evenly to full within the ramp, t seconds bring what
// t*t/(2*ramp) bring of the full rate.
func (c *clock) warp(at float64) float64 {
	if at < c.ramp/2 {
		return math.Sqrt(2 * c.ramp * at)
	}
	return at + c.ramp/2
}

// seconds returns a duration, the longest there is if it is longer.
func seconds(s float64) time.Duration {
	if ns := s * float64(time.Second); ns < math.MaxInt64 {
		return time.Duration(math.Round(ns))
	}
	return math.MaxInt64
}
