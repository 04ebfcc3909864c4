package mounter

import (
	"os"
	"strconv"
	"strings"

	"github.com/reprise-containers/reprise/backstore/fusedev/kernel"
)

// The queue of a loop device that can be written: at most writeRequests of
// writeKiB are in flight. The data of a write is in the daemon's memory until it
// is on the disk, so this, and not how much is dirty, is what a device takes
// of the daemon's memory. Discards are not limited by it, as they carry no data.
const (
	writeRequests = 32
	writeKiB      = 256
)

// readRequests is the kernel's own number of requests for a loop device.
const readRequests = 128

// limitQueue limits what is in flight on dev. The limits stay with a loop device
// when it is detached, so they are also set for reading, to the kernel's own.
func limitQueue(dev string, writable bool) error {
	if writable {
		if err := writeNumber(kernel.LoopQueue(dev, "max_sectors_kb"), writeKiB); err != nil {
			return err
		}
		return setRequests(dev, writeRequests)
	}
	if hw, err := readNumber(kernel.LoopQueue(dev, "max_hw_sectors_kb")); err == nil {
		// Where it was not lowered, 0 or this is the kernel's default.
		_ = writeNumber(kernel.LoopQueue(dev, "max_sectors_kb"), min(hw, defaultKiB))
	}
	// As many as the loop module's parameter allows.
	_ = setRequests(dev, readRequests)
	return nil
}

// defaultKiB is BLK_DEF_MAX_SECTORS_CAP, the kernel's limit for devices that can
// do more.
const defaultKiB = 1280

// setRequests sets the number of requests of dev's queue, unless it is that
// already: changing it waits for those that are in flight.
func setRequests(dev string, n int) error {
	name := kernel.LoopQueue(dev, "nr_requests")
	if have, err := readNumber(name); err == nil && have == n {
		return nil
	}
	return writeNumber(name, n)
}

// writeNumber writes a setting in sysfs.
func writeNumber(file string, n int) error {
	return os.WriteFile(file, []byte(strconv.Itoa(n)), 0o644)
}

// readNumber reads a setting in sysfs.
func readNumber(file string) (int, error) {
	p, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(p)))
}
