package fusedev

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"

	"github.com/reprise-containers/reprise/backstore/device"
)

var (
	// ErrExists is wrapped by Add's error if the ID is taken.
	ErrExists = errors.New("device exists")
	// ErrNotFound is wrapped by errors about an unknown device.
	ErrNotFound = errors.New("no such device")
)

// Add makes d available under id, which may have up to 128 letters, digits and
// -_.: characters. It can be written if it is a device.Writable. If an earlier
// daemon had a device of that ID and did not remove it, d takes its place, and
// must have its size, or may have grown if it can be written. Waiting requests go
// on.
func (s *Server) Add(ctx context.Context, id string, d device.Device) error {
	if err := s.add(ctx, id, d); err != nil {
		return fmt.Errorf("adding device %s: %w", id, err)
	}
	return nil
}

func (s *Server) add(ctx context.Context, id string, d device.Device) error {
	if err := checkID(id); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	size := d.Size()
	if size <= 0 || size%device.SectorSize != 0 {
		return fmt.Errorf("size %d is not a positive multiple of %d", size, device.SectorSize)
	}
	_, writable := d.(device.Writable)
	e := s.table.byID(id)
	if e == nil {
		// Random numbers need no counter to never come twice.
		e = newEntry(id, record{Node: rand.Uint64N(1<<62) + rootNode + 1, Size: size, Writable: writable}, s.slotBytes())
		if !s.table.insert(e) {
			return ErrExists
		}
		// The kernel may ask for the file from here on, but nobody
		// knows its name before Add returns.
		if err := saveRecord(s.cfg.deviceDir(), id, e.record()); err != nil {
			s.table.remove(e)
			return fmt.Errorf("recording its inode number: %w", err)
		}
		s.channel.Expect(e.writers())
	}
	if e.writable != writable {
		return fmt.Errorf("that it can be written is %t, but was %t when it was added before", writable, e.writable)
	}
	if err := s.resize(e, size); err != nil {
		return err
	}
	if !e.set(d) {
		return ErrExists
	}
	return nil
}

// Resized makes the size that device id has grown to known. The loop devices of
// its mounts still have to be told, see GrowFS.
func (s *Server) Resized(ctx context.Context, id string) error {
	e := s.table.byID(id)
	if e == nil {
		return fmt.Errorf("resizing device %s: %w", id, ErrNotFound)
	}
	d, err := e.acquire(ctx)
	if err == nil {
		err = s.resize(e, d.Size())
		e.release()
	}
	if err != nil {
		return fmt.Errorf("resizing device %s: %w", id, err)
	}
	return nil
}

// resize records that the device of e has size bytes, and makes the kernel ask for
// that.
func (s *Server) resize(e *entry, size int64) error {
	was := e.size.Load()
	switch {
	case size == was:
		return nil
	case !e.writable || size < was:
		return fmt.Errorf("size is %d, but was %d when it was added before", size, was)
	}
	r := e.record()
	r.Size = size
	if err := saveRecord(s.cfg.deviceDir(), e.id, r); err != nil {
		return fmt.Errorf("recording its size: %w", err)
	}
	e.size.Store(size)
	return s.channel.Forget(e.node)
}

// Remove takes device id away. Its requests in progress fail with EIO at once,
// and Remove waits until the device is not used any more or ctx ends; it is
// removed in either case. Its mounts, if there are any left, can only fail.
func (s *Server) Remove(ctx context.Context, id string) error {
	e := s.table.byID(id)
	if e == nil {
		return fmt.Errorf("removing device %s: %w", id, ErrNotFound)
	}
	if err := removeRecord(s.cfg.deviceDir(), id); err != nil {
		return fmt.Errorf("removing device %s: %w", id, err)
	}
	s.table.remove(e)
	if !e.remove() {
		return fmt.Errorf("removing device %s: %w", id, ErrNotFound)
	}
	s.channel.FailNode(e.node, syscall.EIO, errRemoved)
	select {
	case <-e.unused:
		s.channel.Expect(-e.writers())
		return nil
	case <-ctx.Done():
		// What it still uses stays set aside.
		return fmt.Errorf("waiting for the last requests of device %s: %w", id, context.Cause(ctx))
	}
}

// DeviceStats says what happened to the requests of one device.
type DeviceStats struct {
	ID    string
	Size  int64 // in bytes
	Added bool  // false: of an earlier daemon, and not added again

	Requests int64 // reads so far, by this daemon
	Bytes    int64 // of successful reads
	Errors   int64 // failed, killed or abandoned requests
	InFlight int64 // requests inside the device
	Waiting  int64 // reads that wait for their turn

	Writable bool
	Writes   int64 // so far, by this daemon
	Written  int64 // bytes of successful writes
	Discards int64
	Flushes  int64
}

// Stats returns the statistics of all devices, ordered by ID.
func (s *Server) Stats() []DeviceStats {
	var stats []DeviceStats
	for _, e := range s.table.all() {
		stats = append(stats, DeviceStats{
			ID:       e.id,
			Size:     e.size.Load(),
			Added:    e.added(),
			Requests: e.stats.requests.Load(),
			Bytes:    e.stats.bytes.Load(),
			Errors:   e.stats.errors.Load(),
			InFlight: e.stats.inFlight.Load(),
			Waiting:  e.stats.waiting.Load(),
			Writable: e.writable,
			Writes:   e.stats.writes.Load(),
			Written:  e.stats.written.Load(),
			Discards: e.stats.discards.Load(),
			Flushes:  e.stats.flushes.Load(),
		})
	}
	return stats
}
