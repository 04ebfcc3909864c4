// Package blocktrace records which sectors of a block device are read, with
// the kernel's own trace events in a private buffer.
package blocktrace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Extent is a run of sectors of 512 bytes that one request read.
type Extent struct {
	Sector, Sectors int64
}

// bufferKB is the trace buffer of each processor; an event takes below 100
// bytes.
const bufferKB = 16 << 10

// Record runs fn and returns what was read from the device meanwhile, in
// order. device is major << 20 | minor. dir is an empty folder to mount the
// trace file system on. It is an error if events were lost.
func Record(dir string, device uint64, fn func() error) (extents []Extent, err error) {
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		return nil, fmt.Errorf("mounting the trace file system: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	instance := filepath.Join(dir, "instances", fmt.Sprintf("reprise-%d", os.Getpid()))
	if err := os.Mkdir(instance, 0o700); err != nil {
		return nil, fmt.Errorf("making a trace buffer: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(instance)) }()
	if err := setUp(instance, device); err != nil {
		return nil, fmt.Errorf("tracing device %#x: %w", device, err)
	}
	if err := fn(); err != nil {
		return nil, err
	}
	if err := set(instance, "tracing_on", "0"); err != nil {
		return nil, err
	}
	if err := lost(instance); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(instance, "trace"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

func setUp(instance string, device uint64) error {
	const event = "events/block/block_bio_queue/"
	return errors.Join(
		set(instance, "buffer_size_kb", fmt.Sprint(bufferKB)),
		set(instance, event+"filter", fmt.Sprintf("dev == %d", device)),
		set(instance, event+"enable", "1"),
		set(instance, "tracing_on", "1"),
	)
}

func set(instance, file, value string) error {
	return os.WriteFile(filepath.Join(instance, file), []byte(value), 0)
}

// lost reports an error if a buffer overflowed.
func lost(instance string) error {
	files, err := filepath.Glob(filepath.Join(instance, "per_cpu/cpu*/stats"))
	if err == nil && len(files) == 0 {
		err = errors.New("no trace statistics")
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			name, n, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if (name == "overrun" || name == "dropped events" || name == "commit overrun") && n != "0" {
				return fmt.Errorf("trace events were lost: %s %s", name, n)
			}
		}
	}
	return err
}

// parse reads lines that end in "block_bio_queue: 7,0 R 1234 + 8 [comm]",
// where a read's flags may have more letters after R.
func parse(r io.Reader) ([]Extent, error) {
	var out []Extent
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		_, event, ok := strings.Cut(sc.Text(), "block_bio_queue: ")
		if !ok {
			continue
		}
		var dev, flags string
		var e Extent
		if _, err := fmt.Sscanf(event, "%s %s %d + %d", &dev, &flags, &e.Sector, &e.Sectors); err != nil {
			return nil, fmt.Errorf("parsing trace event %q: %w", event, err)
		}
		if strings.HasPrefix(flags, "R") {
			out = append(out, e)
		}
	}
	return out, sc.Err()
}
