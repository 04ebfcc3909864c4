package sectors_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"github.com/reprise-containers/reprise/integration/load/sectors"
)

// fault is what a faulty disk does in one of eight cases.
type fault string

const (
	none          fault = ""
	dropsWrite    fault = "drops a write"
	tearsSector   fault = "tears a sector"
	misplaces     fault = "writes a sector too far"
	forgetsFlush  fault = "forgets a flush"
	forgetsPart   fault = "forgets a sector of a flush"
	dropsDiscard  fault = "forgets a discard"
	dropsZero     fault = "forgets to zero"
	zeroesTooMuch fault = "discards a sector too many"
	repeatsOld    fault = "repeats an old write"
	shadows       fault = "a write of a sector hides the rest of 4 KiB"
)

var errPower = errors.New("no power")

// disk has a volatile cache over another disk and one fault. It does one thing
// at a time.
type disk struct {
	below sectors.Disk
	fault fault

	mu    sync.Mutex
	rand  *rand.Rand
	cache map[int64][]byte // by sector
	old   map[int64][]byte // a write of long ago
	dead  bool
}

func newDisk(below sectors.Disk, f fault, seed uint64) *disk {
	return &disk{below: below, fault: f, rand: rand.New(rand.NewPCG(seed, 1)), cache: map[int64][]byte{}}
}

// now says whether it is time for a fault.
func (d *disk) now(f fault) bool { return d.fault == f && d.rand.IntN(8) == 0 }

func (d *disk) ReadAt(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.below.ReadAt(p, off); err != nil {
		return err
	}
	for i := range int64(len(p) / sectors.Size) {
		if c, ok := d.cache[off/sectors.Size+i]; ok {
			copy(p[i*sectors.Size:], c)
		}
	}
	return nil
}

// put caches sectors; without power only some of them.
func (d *disk) put(p []byte, sector int64) {
	for i := range int64(len(p) / sectors.Size) {
		if !d.dead || d.rand.IntN(2) == 0 {
			d.cache[sector+i] = append([]byte(nil), p[i*sectors.Size:][:sectors.Size]...)
		}
	}
}

func (d *disk) power() error {
	if d.dead {
		return errors.Join(errPower, syscall.EIO)
	}
	return nil
}

func (d *disk) WriteAt(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	sector := off / sectors.Size
	switch {
	case d.now(dropsWrite):
		return d.power()
	case d.now(misplaces):
		sector++
	}
	torn := d.now(tearsSector)
	if torn {
		before := make([]byte, sectors.Size)
		d.put(p, sector)
		copy(before, d.cache[sector][:sectors.Size/2])
		d.cache[sector] = before
		return d.power()
	}
	if d.now(shadows) {
		for s := sector &^ 7; s < sector; s++ {
			d.cache[s] = make([]byte, sectors.Size)
		}
	}
	d.put(p, sector)
	if d.now(repeatsOld) {
		for s, old := range d.old {
			d.cache[s] = old
		}
		d.old = nil
	}
	if d.fault == repeatsOld && d.old == nil {
		d.old = map[int64][]byte{sector: append([]byte(nil), p[:sectors.Size]...)}
	}
	return d.power()
}

func (d *disk) Discard(off, n int64) error { return d.clear(off, n, dropsDiscard) }

func (d *disk) Zero(off, n int64) error { return d.clear(off, n, dropsZero) }

func (d *disk) clear(off, n int64, drops fault) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now(drops) {
		return d.power()
	}
	if d.now(zeroesTooMuch) {
		n += sectors.Size
	}
	d.put(make([]byte, n), off/sectors.Size)
	return d.power()
}

func (d *disk) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	// One of two, since the next one makes up for a forgotten one.
	if d.dead || d.fault == forgetsFlush && d.rand.IntN(2) == 0 {
		return d.power()
	}
	if d.now(forgetsPart) {
		for s := range d.cache {
			delete(d.cache, s)
			break
		}
	}
	return d.writeBack()
}

// writeBack empties the cache, by runs of sectors.
func (d *disk) writeBack() error {
	all := slices.Sorted(maps.Keys(d.cache))
	for len(all) > 0 {
		first, n := all[0], int64(1)
		for int(n) < len(all) && all[n] == first+n {
			n++
		}
		run := make([]byte, 0, n*sectors.Size)
		for s := range n {
			run = append(run, d.cache[first+s]...)
		}
		if err := d.below.WriteAt(aligned(run), first*sectors.Size); err != nil {
			return err
		}
		all = all[n:]
	}
	clear(d.cache)
	return nil
}

// cut takes the power away: what is in progress fails, half done.
func (d *disk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

// restore gives it back. Some of what was not flushed is there.
func (d *disk) restore() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.cache {
		if d.rand.IntN(2) == 0 {
			delete(d.cache, s)
		}
	}
	d.dead = false
	return d.writeBack()
}
