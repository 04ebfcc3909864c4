package main

import (
	"context"
	"errors"

	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/backstore/download"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
)

// downloads logs what comes of background downloads.
type downloads struct{ ctx context.Context }

// LayerDownloaded implements download.Observer.
func (d downloads) LayerDownloaded(ref string, l backstore.Layer) {
	d.entry(ref, l).Info("a layer was downloaded and verified; it needs no registry any more")
}

// DownloadFailed implements download.Observer.
func (d downloads) DownloadFailed(ref string, l backstore.Layer, err error) {
	if errors.Is(err, download.ErrMismatch) {
		d.entry(ref, l).WithError(err).Error("a downloaded layer does not have its digest; it is not used, but what was read of it so far may have been wrong; it is tried again later")
		return
	}
	d.entry(ref, l).WithError(err).Warn("a layer could not be downloaded; reads go on from the registry, and it is tried again later")
}

func (d downloads) entry(ref string, l backstore.Layer) *log.Entry {
	return log.G(d.ctx).WithFields(log.Fields{"image": ref, "digest": l.Digest, "size": l.Size})
}

// exportDownloads exports what a downloader counts.
func exportDownloads(m *metrics.Metrics, d *download.Downloader) {
	of := func(value func(download.Stats) int64) func() float64 {
		return func() float64 { return float64(value(d.Stats())) }
	}
	m.Counter("reprise_download_bytes_total", "Bytes written to local copies of layers, from the cache or a registry.",
		of(func(s download.Stats) int64 { return s.Bytes }))
	m.Counter("reprise_download_layers_total", "Layers downloaded, verified and read from their files.",
		of(func(s download.Stats) int64 { return s.Layers }))
	m.Counter("reprise_download_mismatches_total", "Downloaded layers that did not have their digest.",
		of(func(s download.Stats) int64 { return s.Mismatches }))
	m.Counter("reprise_download_failures_total", "Downloads that failed for other reasons, a full disk among them.",
		of(func(s download.Stats) int64 { return s.Failures }))
}
