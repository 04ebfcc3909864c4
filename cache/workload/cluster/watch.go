package cluster

import (
	"context"
	"fmt"
	"time"
)

// watch ends something when a peer is silent.
type watch struct {
	timer    *time.Timer
	patience time.Duration
}

// watchOver returns a watch over a peer that must be heard of within a time.
func watchOver(patience time.Duration, end context.CancelCauseFunc) *watch {
	return &watch{time.AfterFunc(patience, func() {
		end(fmt.Errorf("%w for %v", ErrSilent, patience))
	}), patience}
}

// heard tells that the peer was heard of, and is waited for anew.
func (w *watch) heard() { w.timer.Reset(w.patience) }

// pause ends the waiting until heard is called.
func (w *watch) pause() { w.timer.Stop() }
