package main

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/reprise-containers/reprise/backstore/attach"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/cmd/internal/config"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
	"github.com/reprise-containers/reprise/cmd/internal/prefetch"
	"github.com/reprise-containers/reprise/cmd/internal/recordings"
	"github.com/reprise-containers/reprise/remote/registry"
	"github.com/reprise-containers/reprise/tracelayer/replay"
)

// newPrefetcher returns what fetches ahead, nil if nothing is to.
func newPrefetcher(ctx context.Context, cfg config.Snapshotter, source prefetch.Source, client *registry.Client, counts *metrics.Prefetch) *prefetch.Prefetcher {
	if !cfg.Trace.Replay {
		return nil
	}
	var finder *prefetch.Finder
	if cfg.Trace.Referrers {
		finder = prefetch.NewFinder(client, cfg.Trace.Workload)
	}
	return prefetch.New(source, finder, &prefetches{ctx: ctx, metrics: counts}, prefetch.Config{
		Parallel: cfg.Trace.Images,
		Budget:   int64(cfg.Cache.Max) / 2, // as a replay may at most
	})
}

// outcomes are the values of a label.
func outcomes() []string {
	var all []string
	for _, o := range prefetch.Outcomes {
		all = append(all, string(o))
	}
	return all
}

// prefetches counts what comes of fetching ahead, and logs it: what is wrong with
// an image once.
type prefetches struct {
	ctx     context.Context
	metrics *metrics.Prefetch

	mu     sync.Mutex
	logged map[string]bool // image and error
}

// Prefetched implements prefetch.Observer.
func (p *prefetches) Prefetched(ref string, o prefetch.Outcome, s replay.Stats, err error) {
	p.metrics.Image(string(o))
	entry := log.G(p.ctx).WithField("image", ref)
	switch {
	case err != nil && p.first(ref+" "+err.Error()):
		entry.WithError(err).Warn("nothing, or not all, is fetched ahead for an image; it is read when needed")
	case err != nil:
	case o == prefetch.Replayed:
		entry.WithFields(log.Fields{
			"extents": s.Prefetched.Extents, "bytes": s.Prefetched.Bytes, "present": s.Present.Extents,
			"skipped": s.Budget.Extents + s.Invalid.Extents + s.Corrupt.Extents + s.Failed.Extents,
			"missed":  s.Missed.Extents, "took": s.Took.Round(time.Millisecond),
		}).Info("the trace of an image was replayed")
	default:
		entry.WithField("outcome", o).Debug("a trace was looked at")
	}
}

// Skipped implements prefetch.Observer.
func (p *prefetches) Skipped(ref string, why error) {
	if p.first(ref + " " + why.Error()) {
		log.G(p.ctx).WithField("image", ref).WithError(why).Warn("not all that there is of traces of an image is used")
	}
}

// first reports whether what is new.
func (p *prefetches) first(what string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logged[what] {
		return false
	}
	if len(p.logged) >= maxLogged || p.logged == nil {
		p.logged = make(map[string]bool)
	}
	p.logged[what] = true
	return true
}

// planTime is how long making the plan of a recording may take: ctr record-trace, to
// which this must be known in time, waits 5 minutes for all of it.
const planTime = 2 * time.Minute

// newRecordings returns the recordings of what a attaches.
func newRecordings(ctx context.Context, cfg config.Snapshotter, a *attach.Attacher, blobs *chain.Chain, m *metrics.Metrics) *recordings.Recordings {
	r := recordings.New(a, blobs.Open, recorded{ctx}, recordings.Config{
		Dir:       cfg.RecordDir(),
		Images:    cfg.Trace.Record,
		ByLabel:   cfg.Trace.RecordLabels,
		Paths:     cfg.Trace.RecordPaths,
		Time:      time.Duration(cfg.Trace.RecordTime),
		LabelTime: time.Duration(cfg.Trace.RecordLabelTime),
		PlanTime:  planTime,
		Keep:      cfg.Trace.RecordKeep,
		Records:   cfg.Trace.MaxRecords,
		Parallel:  cfg.Trace.MaxRecordings,
	})
	exportRecordings(m, r)
	return r
}

// recorded logs what comes of recordings.
type recorded struct{ ctx context.Context }

// Recorded implements recordings.Observer.
func (r recorded) Recorded(of recordings.Result) {
	entry := log.G(r.ctx).WithFields(log.Fields{"image": of.Ref, "file": of.Path, "records": of.Records})
	if of.Dropped > 0 {
		entry = entry.WithField("dropped", of.Dropped)
	}
	if of.Unplanned > 0 {
		entry = entry.WithField("unplanned", of.Unplanned)
	}
	if of.NoPlan != nil {
		entry.WithError(of.NoPlan).Warn("a start was recorded, but without a plan")
		return
	}
	entry.Info("a start was recorded")
}

// RecordingFailed implements recordings.Observer.
func (r recorded) RecordingFailed(ref, path string, err error) {
	log.G(r.ctx).WithError(err).WithFields(log.Fields{"image": ref, "file": path}).Warn("a start could not be recorded")
}

// exportRecordings exports what recordings count.
func exportRecordings(m *metrics.Metrics, r *recordings.Recordings) {
	of := func(value func(recordings.Stats) int64) func() float64 {
		return func() float64 { return float64(value(r.Stats())) }
	}
	m.Gauge("reprise_recordings_active", "Containers that are being recorded.",
		of(func(s recordings.Stats) int64 { return int64(s.Active) }))
	m.Counter("reprise_recordings_started_total", "Recordings begun.",
		of(func(s recordings.Stats) int64 { return s.Started }))
	m.Counter("reprise_recordings_finished_total", "Recordings of which there is a trace.",
		of(func(s recordings.Stats) int64 { return s.Finished }))
	m.Counter("reprise_recordings_failed_total", "Recordings of which there is none.",
		of(func(s recordings.Stats) int64 { return s.Failed }))
	m.Counter("reprise_recordings_refused_total", "Recordings that were asked for and not begun.",
		of(func(s recordings.Stats) int64 { return s.Refused }))
}
