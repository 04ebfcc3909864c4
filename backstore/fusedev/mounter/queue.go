package mounter

import (
	"errors"
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

// readRequests and readKiB are what loop devices have otherwise: the loop
// driver's default, and BLK_DEF_MAX_SECTORS_CAP of the kernel.
const (
	readRequests = 128
	readKiB      = 1280
)

// limitQueue limits what is in flight on dev. The limits stay with a loop device
// when it is detached, so they are also set for reading, where they only matter
// for speed.
func limitQueue(dev string, writable bool) error {
	kib, requests := kernel.LoopQueue(dev, "max_sectors_kb"), kernel.LoopQueue(dev, "nr_requests")
	if writable {
		return errors.Join(set(kib, writeKiB), set(requests, writeRequests))
	}
	if hardware, err := readNumber(kernel.LoopQueue(dev, "max_hw_sectors_kb")); err == nil {
		_ = set(kib, min(hardware, readKiB))
	}
	_ = set(requests, readRequests)
	return nil
}

// set writes a setting in sysfs unless it is that already: a queue whose
// settings change waits for what is in flight, and resets others.
func set(file string, n int) error {
	if have, err := readNumber(file); err == nil && have == n {
		return nil
	}
	return writeNumber(file, n)
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
