// Package pause waits, but no longer than a context lasts.
package pause

import (
	"context"
	"time"
)

// For waits for d, not at all if it is not positive, and reports whether ctx was still
// alive at the end.
func For(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
