package cache

import (
	"errors"
	"fmt"
	"time"

	"github.com/reprise-containers/reprise/cache/policy"
)

// Config configures a Cache. Only Dir is required.
type Config struct {
	// Dir is the folder the cache lives in. It is made when missing, its
	// parent must exist, and one process at a time may use it.
	Dir string

	// MaxBytes is the disk space the cache may take, data, maps and metadata
	// together. 0 leaves the limit to MinFreeBytes and the disk.
	MaxBytes int64

	// MinFreeBytes is the disk space to leave free, whoever fills the disk.
	// Below it nothing is stored and the cache gives up content, at most
	// what is missing and at most a quarter of itself in 10 seconds.
	MinFreeBytes int64

	// Policy names the eviction policy of cache/policy; "s3fifo" if empty.
	Policy string

	// MergeGap makes one request of two whose ranges are separated by less
	// than this many cached bytes, which are then fetched again. 0 means
	// never, so that no byte crosses the network twice.
	MergeGap int64

	// FetchParallel bounds the requests one read makes at a time; 4 if 0.
	FetchParallel int

	// QueueBytes bounds the bytes fetched but not yet stored; 32 MiB if 0.
	// A read that finds the queue full is not stored.
	QueueBytes int64

	// CheckpointEvery is how long stored bytes may take to become durable,
	// that is, what a crash can cost; 10 s if 0.
	CheckpointEvery time.Duration

	// IdleAfter is when the map and the descriptor of a blob that nobody
	// reads are released; 2 minutes if 0.
	IdleAfter time.Duration

	// MaxOpen bounds the blobs that are open at a time, each with a file
	// descriptor and a map in memory; 512 if 0. It may be passed for a
	// moment when more blobs are read at once.
	MaxOpen int

	// WholeBlobs makes a blob the unit of eviction, not a run of 1 MiB of it:
	// its files are removed. Needed for Hold and what comes of it.
	WholeBlobs bool

	// ScanInBackground has Open return before it is known what the folder
	// holds. Until then a blob is looked for by its name. See Scanned.
	ScanInBackground bool

	// OnError is told when the disk starts to fail, once until it works
	// again. It must not block. Optional.
	OnError func(error)
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Dir == "" {
		return errors.New("cache: dir is not set")
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"max_bytes", c.MaxBytes}, {"min_free_bytes", c.MinFreeBytes}, {"merge_gap", c.MergeGap},
		{"fetch_parallel", int64(c.FetchParallel)}, {"queue_bytes", c.QueueBytes},
		{"checkpoint_every", int64(c.CheckpointEvery)}, {"idle_after", int64(c.IdleAfter)},
		{"max_open", int64(c.MaxOpen)},
	} {
		if n.value < 0 {
			return fmt.Errorf("cache: %s is negative", n.name)
		}
	}
	if _, err := policy.New[int](c.withDefaults().Policy); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Policy == "" {
		c.Policy = policy.NameS3FIFO
	}
	if c.FetchParallel == 0 {
		c.FetchParallel = 4
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = 32 << 20
	}
	if c.CheckpointEvery == 0 {
		c.CheckpointEvery = 10 * time.Second
	}
	if c.IdleAfter == 0 {
		c.IdleAfter = 2 * time.Minute
	}
	if c.MaxOpen == 0 {
		c.MaxOpen = 512
	}
	return c
}
