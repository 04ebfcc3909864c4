package blobtest

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

// ErrInjected is the error of reads that a Fault without an error of its own
// makes fail.
var ErrInjected = errors.New("injected fault")

// Fault is one entry of a script: the reads it applies to, and what happens to
// them. Conditions that are zero hold for every read.
type Fault struct {
	// First is the number of the first read it applies to, counted from 1
	// over all reads of the blob.
	First int
	// Count is the number of reads it applies to; after them it is spent.
	Count int
	// Every applies it to each Every-th read only.
	Every int
	// Off and Len restrict it to reads that touch [Off, Off+Len).
	Off, Len int64

	// Delay is waited before anything else happens.
	Delay time.Duration
	// Hang blocks the read until its context is done.
	Hang bool
	// Gate, if not nil, blocks the read until it is closed, or the context
	// is done.
	Gate <-chan struct{}
	// Err is the error the read ends with, after Truncate bytes.
	Err error
	// Fail makes the read end with ErrInjected, after Truncate bytes.
	Fail bool
	// Truncate cuts the read to that many bytes, with io.ErrUnexpectedEOF
	// unless Err or Fail say otherwise.
	Truncate int
	// Corrupt inverts every bit of the bytes delivered.
	Corrupt bool
}

// Read is one call that a Faulty blob got.
type Read struct {
	Off      int64
	Len      int
	Priority blob.Priority
}

// Faulty is a Blob that fails by script.
type Faulty struct {
	blob.Blob

	mu     sync.Mutex
	script []Fault
	used   []int
	reads  []Read
}

// NewFaulty returns b with the faults of the script; the first one that applies
// to a read is the one that happens.
func NewFaulty(b blob.Blob, script ...Fault) *Faulty {
	return &Faulty{Blob: b, script: script, used: make([]int, len(script))}
}

// Reads returns the reads so far, in the order in which they came.
func (f *Faulty) Reads() []Read {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Read(nil), f.reads...)
}

// Script replaces the script. Reads go on being counted.
func (f *Faulty) Script(script ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script, f.used = script, make([]int, len(script))
}

// ReadAt implements blob.ReaderAt.
func (f *Faulty) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	fault, ok := f.pick(ctx, len(p), off)
	if !ok {
		return f.Blob.ReadAt(ctx, p, off)
	}
	if err := fault.pause(ctx); err != nil {
		return 0, err
	}
	err := fault.Err
	switch {
	case err == nil && fault.Fail:
		err = ErrInjected
	case err == nil && fault.Truncate > 0:
		err = io.ErrUnexpectedEOF
	}
	want := p
	if err != nil {
		want = p[:min(fault.Truncate, len(p))]
	}
	n, rerr := f.Blob.ReadAt(ctx, want, off)
	if fault.Corrupt {
		for i := range want[:n] {
			want[i] = ^want[i]
		}
	}
	if err == nil {
		err = rerr
	}
	return n, err
}

// pick records a read and returns the fault that happens to it.
func (f *Faulty) pick(ctx context.Context, n int, off int64) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads = append(f.reads, Read{Off: off, Len: n, Priority: blob.PriorityOf(ctx)})
	for i, fault := range f.script {
		switch nth := len(f.reads); {
		case nth < fault.First,
			fault.Count > 0 && f.used[i] >= fault.Count,
			fault.Every > 0 && nth%fault.Every != 0,
			fault.Len > 0 && (off >= fault.Off+fault.Len || off+int64(n) <= fault.Off):
			continue
		}
		f.used[i]++
		return fault, true
	}
	return Fault{}, false
}

// pause waits as the fault says, or until ctx is done.
func (f Fault) pause(ctx context.Context) error {
	if f.Delay > 0 && !pause.For(ctx, f.Delay) {
		return ctx.Err()
	}
	if f.Hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.Gate != nil {
		select {
		case <-f.Gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
