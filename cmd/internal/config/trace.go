package config

import (
	"path/filepath"

	"github.com/reprise-containers/reprise/cmd/internal/verdict"
	"github.com/reprise-containers/reprise/tracelayer"
)

// Trace says what is made of the traces of images, and which are recorded.
type Trace struct {
	Replay    bool   `toml:"replay" comment:"Fetch what the trace of an image says, from when its trace layer is known on."`
	Images    int    `toml:"images" comment:"Images for which something is fetched ahead at once."`
	Referrers bool   `toml:"referrers" comment:"For images without a trace layer, look for a trace among what refers to the image in its registry (reprise trace attach). Who can push there can push such traces: they decide what is fetched ahead, not what is read."`
	Workload  string `toml:"workload" comment:"Of several such traces take the one for this workload, or else one for none; the newest."`

	Record          []string `toml:"record" comment:"Images whose containers are recorded without being asked: references, in which * is any text, as \"registry.example/team/*\"."`
	RecordLabels    bool     `toml:"record_labels" comment:"Record containers whose labels ask for it (ctr record-trace). With CRI, the annotations of a pod become such labels."`
	RecordPaths     []string `toml:"record_paths" comment:"Directories below which, and below record_dir, are the files that such labels may name (ctr record-trace --working-dir). The snapshotter writes there as root. Absolute paths."`
	RecordTime      Duration `toml:"record_time" comment:"How long a recording to record_dir lasts."`
	RecordLabelTime Duration `toml:"record_label_time" comment:"How long a recording to a file that a label names may last; the client, or the end of the container, ends it before."`
	RecordDir       string   `toml:"record_dir" comment:"Directory of recordings for which nobody named a file; empty: <root>/traces."`
	RecordKeep      int      `toml:"record_keep" comment:"With so many recordings of a repository in record_dir, no more are made there."`

	MaxRecords    int `toml:"max_records" comment:"Reads in one recording; 24 bytes of memory each."`
	MaxRecordings int `toml:"max_recordings" comment:"Recordings at once."`
}

// RecordDir returns the directory of recordings.
func (c Snapshotter) RecordDir() string {
	if c.Trace.RecordDir != "" {
		return c.Trace.RecordDir
	}
	return filepath.Join(c.Root, "traces")
}

func (t Trace) validate(v *verdict.Verdict) {
	v.Check(t.Images > 0, "trace.images: must be positive")
	v.Check(t.Workload == "" || t.Referrers, "trace.workload: chooses among referrers, and trace.referrers is off")
	v.Check(t.RecordTime > 0, "trace.record_time: must be positive")
	v.Check(t.RecordLabelTime > 0, "trace.record_label_time: must be positive")
	for _, p := range t.RecordPaths {
		v.Check(filepath.IsAbs(p), "trace.record_paths: %q: must be an absolute path", p)
	}
	v.Check(t.RecordKeep > 0, "trace.record_keep: must be positive")
	v.Check(t.MaxRecords > 0 && t.MaxRecords <= tracelayer.MaxRecords, "trace.max_records: must be 1 to %d", tracelayer.MaxRecords)
	v.Check(t.MaxRecordings > 0, "trace.max_recordings: must be positive")
	for _, p := range t.Record {
		v.Check(p != "", "trace.record: an empty pattern means no image")
	}
}
