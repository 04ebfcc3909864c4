package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/docker/go-units"

	"github.com/reprise-containers/reprise/cmd/internal/cacheadmin"
)

func human(n int64) string { return units.BytesSize(float64(n)) }

func printStat(w io.Writer, s cacheadmin.Stat) {
	scanned := ""
	if !s.Scanned {
		scanned = ", still looking at what was there before"
	}
	fmt.Fprintf(w, "registry-cache\t%s, since %s, at %s\n", s.Version, s.Started.Local().Format(time.DateTime), s.Address)
	fmt.Fprintf(w, "data path\t%s\n", s.DataPath)
	fmt.Fprintf(w, "disk\t%s of %s, %d blobs, %d links%s\n", human(s.Bytes), human(s.MaxBytes), s.Blobs, s.Links, scanned)
	if s.DiskError != "" {
		fmt.Fprintf(w, "disk error\t%s\n", s.DiskError)
	}
	fmt.Fprintf(w, "memory\t%s\n", human(s.Memory))
	fmt.Fprintf(w, "requests\t%d, %d now; %s sent\n", s.Requests, s.InFlight, human(int64(s.BytesSent)))
	for _, o := range slices.Sorted(maps.Keys(s.Outcomes)) {
		if n := s.Outcomes[o]; n > 0 {
			fmt.Fprintf(w, "  %s\t%d\n", o, n)
		}
	}
	fmt.Fprintf(w, "streamers\t%d of %d\n", s.Streaming, s.Streamers)
	fmt.Fprintf(w, "waiting\t%d for what somebody else has fetched\n", s.Waiting)
	fmt.Fprintf(w, "permissions\t%d asked for, %d known\n", s.PermissionHeads, s.PermissionHits)
	fmt.Fprintf(w, "upstreams\t%d requests, %s, %d errors, %d told to wait\n",
		s.UpstreamRequests, human(s.UpstreamBytes), s.UpstreamErrors, s.UpstreamLimited)
	fmt.Fprintf(w, "workers\t%d of %d\n", s.WorkersBusy, s.Workers)
	fmt.Fprintf(w, "wrong content\t%d\n", s.Mismatches)
	fmt.Fprintf(w, "fetched ahead\t%d images, %s\n", s.Warmed, human(s.WarmedBytes))
	if s.Cluster != nil {
		printCluster(w, s.Cluster)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Collected)) {
		if n := s.Collected[name]; n > 0 {
			fmt.Fprintf(w, "collected %s\t%d\n", name, n)
		}
	}
}

// printCluster prints what is shared with other replicas.
func printCluster(w io.Writer, c *cacheadmin.ClusterStat) {
	if c.Self != "" {
		fmt.Fprintf(w, "replica\t%s\n", c.Self)
	}
	reached := func(name string, r *cacheadmin.Reached) {
		if r == nil {
			return
		}
		state := "up"
		if !r.Up {
			state = fmt.Sprintf("away since %s: %q", r.Since.Local().Format(time.DateTime), r.Error)
		}
		fmt.Fprintf(w, "  %s\t%s\n", name, state)
	}
	reached("index", c.Index)
	reached("tier", c.Tier)
	fmt.Fprintf(w, "  blobs from\treplicas %s, tier %s, upstreams %s\n", human(c.FromPeers), human(c.FromTier), human(c.FromUpstreams))
	fmt.Fprintf(w, "  given\t%s to replicas\n", human(c.Given))
	fmt.Fprintf(w, "  leases\t%d; %d parts of blobs without the index\n", c.Leases, c.Alone)
	fmt.Fprintf(w, "  written back\t%d blobs, %d wait, %d failed, %d were damaged\n", c.Written, c.Queue, c.Unwritten, c.Damaged)
}

func printBlobs(w io.Writer, blobs []cacheadmin.Blob, now time.Time) {
	fmt.Fprint(w, "DIGEST\tSIZE\tON DISK\tSTATE\tFETCHED\tUSED\n")
	for _, b := range blobs {
		state := "verified"
		if b.Origin != "" {
			state = "of " + b.Origin
			if !b.Complete {
				state = "part, " + state
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s ago\t%s ago\n", b.Digest, human(b.Size), human(b.Bytes), state,
			age(now, b.Fetched), age(now, b.Used))
	}
}

// age is how long ago t was, in a unit that says enough.
func age(now, t time.Time) string {
	if t.IsZero() || t.After(now) {
		return "0 seconds"
	}
	return units.HumanDuration(now.Sub(t))
}
