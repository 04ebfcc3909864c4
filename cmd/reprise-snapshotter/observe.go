package main

import (
	"context"
	"errors"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/backstore/fusedev"
	"github.com/reprise-containers/reprise/backstore/readahead"
	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
	"github.com/reprise-containers/reprise/cmd/internal/prefetch"
	"github.com/reprise-containers/reprise/cmd/internal/recordings"
	"github.com/reprise-containers/reprise/snapshot"
)

// devices is what the snapshotter knows of devices: how to attach them, what is
// to be fetched ahead, how their reads are recorded, and what their blobs take of
// the cache.
type devices struct {
	*attach.Attacher
	cache      *cache.Cache
	prefetcher *prefetch.Prefetcher // nil: nothing is fetched ahead
	recordings *recordings.Recordings
}

var (
	_ snapshot.Devices    = devices{}
	_ snapshot.Prefetcher = devices{}
	_ snapshot.Recorder   = devices{}
	_ snapshot.Writer     = devices{}
	_ snapshot.CacheUser  = devices{}
)

// Prefetch implements snapshot.Prefetcher.
func (d devices) Prefetch(img backstore.Image) {
	if d.prefetcher != nil {
		d.prefetcher.Prefetch(img)
	}
}

// Wanted implements snapshot.Recorder.
func (d devices) Wanted(ref string) bool { return d.recordings.Wanted(ref) }

// Record implements snapshot.Recorder.
func (d devices) Record(ctx context.Context, id string, img backstore.Image, target string, opts snapshot.RecordOptions) error {
	return d.recordings.Record(ctx, id, img, target, opts)
}

// Abandon implements snapshot.Recorder.
func (d devices) Abandon(id string, opts snapshot.RecordOptions) { d.recordings.Abandon(id, opts) }

// Detach implements snapshot.Devices. A device that goes has been recorded to the
// end.
func (d devices) Detach(ctx context.Context, id, target string) error {
	d.recordings.Ended(id)
	return d.Attacher.Detach(ctx, id, target)
}

// CacheUsage implements snapshot.CacheUser.
func (d devices) CacheUsage(blob digest.Digest) int64 { return d.cache.BlobBytes(blob) }

// events logs what the device server cannot return.
type events struct{ ctx context.Context }

// ReadFailed implements fusedev.Observer.
func (e events) ReadFailed(id string, off int64, n int, err error) {
	log.G(e.ctx).WithError(err).WithField("device", id).Errorf("reading %d bytes at %d failed; the application gets EIO", n, off)
}

// WriteFailed implements fusedev.Observer.
func (e events) WriteFailed(id string, off, n int64, err error) {
	log.G(e.ctx).WithError(err).WithField("device", id).Errorf("writing %d bytes at %d failed; the file system gets an error", n, off)
}

// FileSystemChecked implements fusedev.CheckObserver.
func (e events) FileSystemChecked(id, report string) {
	log.G(e.ctx).WithField("device", id).Warnf("a file system was not unmounted before and was checked: %s", report)
}

// HolderLost implements fusedev.Observer.
func (e events) HolderLost(err error) {
	if err != nil {
		log.G(e.ctx).WithError(err).Error("the descriptor holder is gone and cannot be replaced: until it is, a crash of this daemon would take all mounts with it")
		return
	}
	log.G(e.ctx).Warn("the descriptor holder ended and was replaced")
}

// health says why the daemon is not well, if it is not.
func health(server *fusedev.Server, a *api) error {
	switch {
	case !a.ready.Load():
		return errors.New("the snapshotter is not serving yet")
	case server.HolderPID() == 0:
		return errors.New("there is no descriptor holder: a crash would take all mounts")
	}
	return nil
}

// export exports the snapshots of cache, images and devices.
func export(m *metrics.Metrics, c *cache.Cache, a *attach.Attacher, server *fusedev.Server) {
	m.Gauge("reprise_images_attached", "Images attached.", func() float64 { return float64(a.Stats().Attached) })
	m.Gauge("reprise_images_local", "Images of which everything is held locally, looked at every few seconds.",
		func() float64 { return float64(a.Stats().Local) })
	ahead := func(value func(readahead.Stats) int64) func() float64 {
		return func() float64 { return float64(value(a.Stats().Readahead)) }
	}
	m.Counter("reprise_readahead_bytes_total", "Bytes of devices read ahead of what the kernel asked for.",
		ahead(func(s readahead.Stats) int64 { return s.Ahead }))
	m.Counter("reprise_readahead_used_bytes_total", "Bytes read ahead that the kernel asked for later.",
		ahead(func(s readahead.Stats) int64 { return s.Used }))
	m.Counter("reprise_readahead_skipped_total", "Reads that were not made longer, because somebody else waited for the registry, or a start was replayed from it.",
		ahead(func(s readahead.Stats) int64 { return s.Skipped }))
	of := func(value func(cache.Stats) int64) func() float64 {
		return func() float64 { return float64(value(c.Stats())) }
	}
	m.Gauge("reprise_cache_bytes", "Disk space the cache takes.", of(func(s cache.Stats) int64 { return s.Bytes }))
	m.Gauge("reprise_cache_blobs", "Blobs of which the cache holds something.", of(func(s cache.Stats) int64 { return int64(s.Blobs) }))
	m.Counter("reprise_cache_hits_total", "Reads served from the cache alone.", of(func(s cache.Stats) int64 { return s.Hits }))
	m.Counter("reprise_cache_misses_total", "Reads for which something was fetched.", of(func(s cache.Stats) int64 { return s.Misses }))
	m.Counter("reprise_cache_evicted_bytes_total", "Disk space given back by eviction.", of(func(s cache.Stats) int64 { return s.BytesEvicted }))
	m.Counter("reprise_cache_dropped_stores_total", "Ranges fetched but not stored.", of(func(s cache.Stats) int64 { return s.DroppedStores }))
	m.Counter("reprise_cache_discards_total", "Ranges forgotten because they were damaged.", of(func(s cache.Stats) int64 { return s.Discards }))
	m.Counter("reprise_cache_errors_total", "Failed reads, stores and checkpoints of the cache's disk.",
		of(func(s cache.Stats) int64 { return s.ReadErrors + s.StoreErrors }))

	sum := func(value func(fusedev.DeviceStats) int64) func() float64 {
		return func() float64 {
			var n int64
			for _, d := range server.Stats() {
				n += value(d)
			}
			return float64(n)
		}
	}
	m.Gauge("reprise_devices", "Devices attached.", sum(func(fusedev.DeviceStats) int64 { return 1 }))
	m.Gauge("reprise_device_reads_in_flight", "Kernel reads that are being answered.", sum(func(d fusedev.DeviceStats) int64 { return d.InFlight }))
	m.Gauge("reprise_device_reads_waiting", "Kernel reads that wait for their device's turn.", sum(func(d fusedev.DeviceStats) int64 { return d.Waiting }))
	// Devices come and go, and their counts with them, so these are gauges.
	m.Gauge("reprise_device_read_bytes", "Bytes read by the kernel from attached devices.", sum(func(d fusedev.DeviceStats) int64 { return d.Bytes }))
	m.Gauge("reprise_device_reads", "Kernel reads of attached devices.", sum(func(d fusedev.DeviceStats) int64 { return d.Requests }))
	m.Gauge("reprise_device_read_errors", "Kernel reads of attached devices that failed.", sum(func(d fusedev.DeviceStats) int64 { return d.Errors }))
}
