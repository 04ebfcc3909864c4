package simulate

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	units "github.com/docker/go-units"
)

// writeCluster writes what numbers of replicas did.
func (r *Report) writeCluster(t io.Writer) {
	if len(r.Cluster) == 0 {
		return
	}
	first := r.Cluster[0]
	fmt.Fprintf(t, "\nREPLICAS\t\tL1 (%s)\tHITS\tJOINED\tFOLLOWED\tPEERS\tL2\tUPSTREAM\tOF BYTES\tBYTES\tBY UNIQUE\tBUSIEST\t\n", first.Policy)
	for _, c := range r.Cluster {
		share := func(f Flow) float64 { return per(float64(f.Requests), float64(c.All.Requests)) }
		fmt.Fprintf(t, "%d\t%s\t%s\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%s\t%.3f\t%.2fx\t\n", c.Replicas, c.how(), r.amount(c.L1),
			share(c.Hits), share(c.Joined), share(c.Followed), share(c.Peers), share(c.Stored), share(c.Fetched),
			per(float64(c.Fetched.Bytes), float64(c.All.Bytes)), r.amount(c.Fetched.Bytes), c.Times(), c.Skew())
	}
	r.writeIndex(t)
	r.writeBetween(t)
}

// writeIndex writes what Redis was asked, and holds.
func (r *Report) writeIndex(t io.Writer) {
	if !slices.ContainsFunc(r.Cluster, ClusterCell.indexed) {
		return
	}
	fmt.Fprint(t, "\nREDIS, PER REQUEST\tALL\tLOCATE\tRENEW\tRELEASE\tHOLD\tDROP\tL2\tPERMITS\tSTALE\t\n")
	for _, c := range r.Cluster {
		if !c.indexed() {
			continue
		}
		o := c.Redis.Ops
		fmt.Fprintf(t, "%d\t%.4f", c.Replicas, c.PerRequest())
		for _, n := range []uint64{
			o.Locate, o.Renew, o.Release, o.Hold, o.Drop, o.Claim + o.RenewClaim + o.Look + o.Publish + o.Unpublish, o.Granted + o.Grant, c.Redis.Stale,
		} {
			fmt.Fprintf(t, "\t%.4f", per(float64(n), float64(c.All.Requests)))
		}
		fmt.Fprint(t, "\t\n")
	}
	fmt.Fprint(t, "\nREDIS\tOPS/S\tIDLE\tBUSIEST SECOND\tBLOBS\tHOLDERS\tIN L2\tTOKENS\tPERMITS\tMEMORY\t\n")
	for _, c := range r.Cluster {
		if c.indexed() {
			fmt.Fprintf(t, "%d\t%.2f\t%.2f\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", c.Replicas, c.PerSecond(), c.Redis.Idle, c.Redis.Busiest,
				c.Redis.Blobs, c.Redis.Holders, c.Redis.Objects, c.Redis.Tokens, c.Redis.Permits, units.BytesSize(float64(c.Redis.Memory)))
		}
	}
}

// writeBetween writes what went between replicas, to L2, and for permissions.
func (r *Report) writeBetween(t io.Writer) {
	fmt.Fprint(t, "\nREPLICAS\t\tBETWEEN THEM\tMOST SENT\tMOST TAKEN\tA SECOND\tL2 GETS\tMISSED\tPUTS\tWRITTEN\tREMOVED\tLISTS\tCHECKS\tGRANTED\t\n")
	for _, c := range r.Cluster {
		speed := "-"
		if c.Span > 0 {
			speed = r.amount(c.Between.Peak)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t\n", c.Replicas, c.how(), r.amount(c.Between.Bytes), r.amount(c.Between.Sent),
			r.amount(c.Between.Taken), speed, c.Tier.Gets, c.Tier.Missed, c.Tier.Puts, r.amount(c.Tier.Written), c.Tier.Removes, c.Tier.Lists,
			c.Permits.Checked, c.Permits.Granted)
	}
}

// how tells a cell from the other one with as many replicas.
func (c ClusterCell) how() string {
	if c.Shared {
		return "shared"
	}
	return "alone"
}

// indexed reports whether there was Redis.
func (c ClusterCell) indexed() bool { return c.Redis.Idle > 0 }

// Skew returns the requests of the replica that got most, by the mean.
func (c ClusterCell) Skew() float64 {
	return per(float64(c.Busiest)*float64(c.Replicas), float64(c.All.Requests))
}

// WriteClusterCSV writes all figures of the clusters that were simulated.
func (r *Report) WriteClusterCSV(w io.Writer) error {
	head := []string{"replicas", "shared", "spread", "policy", "l1", "l2", "span_seconds", "requests", "bytes"}
	flows := []struct {
		name string
		of   func(ClusterCell) Flow
	}{
		{"hits", func(c ClusterCell) Flow { return c.Hits }},
		{"joined", func(c ClusterCell) Flow { return c.Joined }},
		{"followed", func(c ClusterCell) Flow { return c.Followed }},
		{"peers", func(c ClusterCell) Flow { return c.Peers }},
		{"stored", func(c ClusterCell) Flow { return c.Stored }},
		{"upstream", func(c ClusterCell) Flow { return c.Fetched }},
	}
	for _, f := range flows {
		head = append(head, f.name, f.name+"_bytes")
	}
	head = append(head, "unique_bytes", "upstream_by_unique", "evicted", "busiest_replica")
	for _, k := range redisOps {
		head = append(head, "redis_"+k.name)
	}
	head = append(head, "redis_stale", "redis_per_request", "redis_idle_per_second", "redis_per_second", "redis_busiest_second",
		"redis_blobs", "redis_holders", "redis_objects", "redis_tokens", "redis_permits", "redis_memory", "peer_bytes", "peer_most_sent", "peer_most_taken", "peer_peak_per_second",
		"l2_gets", "l2_missed", "l2_puts", "l2_lists", "l2_removes", "l2_written", "permissions_known", "permissions_granted", "permissions_checked")
	rows := [][]string{head}
	for _, c := range r.Cluster {
		row := []string{strconv.Itoa(c.Replicas), strconv.FormatBool(c.Shared), string(c.Spread), c.Policy}
		add := func(all ...any) {
			for _, v := range all {
				row = append(row, fmt.Sprint(v))
			}
		}
		add(c.L1, c.L2, c.Span.Round(time.Millisecond).Seconds(), c.All.Requests, c.All.Bytes)
		for _, f := range flows {
			add(f.of(c).Requests, f.of(c).Bytes)
		}
		add(c.Unique, c.Times(), c.Evicted, c.Busiest)
		for _, k := range redisOps {
			add(*k.of(&c.Redis.Ops))
		}
		x, b, l, p := c.Redis, c.Between, c.Tier, c.Permits
		add(x.Stale, c.PerRequest(), x.Idle, c.PerSecond(), x.Busiest, x.Blobs, x.Holders, x.Objects, x.Tokens, x.Permits, x.Memory,
			b.Bytes, b.Sent, b.Taken, b.Peak, l.Gets, l.Missed, l.Puts, l.Lists, l.Removes, l.Written, p.Known, p.Granted, p.Checked)
		rows = append(rows, row)
	}
	return csv.NewWriter(w).WriteAll(rows)
}
