package gc

import "time"

// SetClock has the collector see a clock that was set forward by d, or back, since
// it looked last.
func (g *Collector) SetClock(d time.Duration) { g.clock.wall -= d }
