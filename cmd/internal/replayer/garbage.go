package replayer

import (
	"os"
	"runtime"
	"runtime/debug"
)

const (
	lazily   = 400      // percent of what is alive, before garbage is collected
	fewBytes = 64 << 20 // alive, of which so much more is no matter
)

// lessOften has garbage be collected less often until restore is called. Each request
// makes some, and beside it a run has little: it would be collected a hundred times a
// second. Where a run has much, an interim map of millions, or the environment says
// how often, everything stays as it is.
func lessOften() (restore func()) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > fewBytes || os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(lazily)
	return func() { debug.SetGCPercent(before) }
}
