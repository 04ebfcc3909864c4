package cachepage

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster"
	"github.com/reprise-containers/reprise/cmd/internal/cachechain"
)

// Replicas is who shares with whom. The zero value is a replica without others.
type Replicas struct {
	Self cachechain.Replica   // as it is now
	All  []cachechain.Replica // that are there, Self among them, as they were when they said so
	Err  error                // why All is not known
}

const (
	// silentFor is how long nothing is heard of a replica before that is said: more
	// than two of its beats.
	silentFor = 11 * time.Second
	// mostReplicas is how many are listed.
	mostReplicas = 100
	// mostText bounds texts of others, in bytes.
	mostText = 200
)

// list returns the replicas, by name; Self is what it is now.
func (r Replicas) list() []cachechain.Replica {
	out := []cachechain.Replica{r.Self}
	for _, one := range r.All {
		if one.Name != r.Self.Name {
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b cachechain.Replica) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// cluster adds what is shared with other replicas. There is a cluster.
func (p *page) cluster(s State) {
	x := s.Stats.Cluster
	p.warnCluster(s)
	if x.HasIndex {
		p.Tiles = append(p.Tiles,
			tile{"peers", "From replicas", size(x.Peers.Bytes), came(x.Peers), part(x.Peers.Bytes, fromAll(x))},
			tile{"given", "Given to replicas", size(x.Given), fmt.Sprintf("in %d requests of theirs", x.Asked), -1})
	}
	if x.HasTier {
		p.Tiles = append(p.Tiles,
			tile{"tier", "From the shared tier", size(x.Tier.Bytes), came(x.Tier), part(x.Tier.Bytes, fromAll(x))},
			tile{"queue", "Blobs to be written back", strconv.Itoa(x.Queue), fmt.Sprintf("%d written, %d failed", x.Written, x.Unwritten), -1})
	}
	if x.HasIndex {
		p.Tables = append(p.Tables, replicas(s))
	}
	p.Tables = append(p.Tables, origins(x), shared(s))
}

func came(f cluster.From) string { return fmt.Sprintf("in %d parts, %d failed", f.Segments, f.Failed) }

// fromAll is how many bytes of blobs came from everywhere.
func fromAll(x *cluster.Stats) int64 { return x.Peers.Bytes + x.Tier.Bytes + x.Upstream.Bytes }

// warnCluster says what an operator has to know of what is shared.
func (p *page) warnCluster(s State) {
	add := func(when bool, format string, args ...any) {
		if when {
			p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
		}
	}
	x := s.Stats.Cluster
	away := x.HasIndex && !x.Index.Up
	add(away, "Redis has been away for %s, so this replica works alone. The last error: %s", since(s.Now, x.Index.Since), cut(x.Index.LastError))
	add(!away && s.Replicas.Err != nil, "Redis did not say which replicas there are: %s", cut(fmt.Sprint(s.Replicas.Err)))
	for i, r := range s.Replicas.list() {
		if i == mostReplicas {
			break
		}
		add(s.Now.Sub(r.Seen) > silentFor, "Replica %s was not heard of for %s.", cut(r.Name), since(s.Now, r.Seen))
	}
	if x.HasTier {
		t := x.Shared
		add(t.Reading.Away, "The shared tier could not be read for %s. The last error: %s", since(s.Now, t.Reading.Since), cut(t.Reading.Error))
		add(t.Writing.Away, "The shared tier could not be written for %s. The last error: %s", since(s.Now, t.Writing.Since), cut(t.Writing.Error))
	}
	add(x.Damaged > 0, "%d objects of the shared tier were damaged; they were removed.", x.Damaged)
	add(x.Dropped > 0, "%d blobs were not written back, because too many waited for that.", x.Dropped)
}

func replicas(s State) table {
	t := table{ID: "replicas", Title: "Replicas", Cards: true, Head: []string{
		"Replica", "Version", "Up for", "Seen", "Requests", "Hits", "Disk", "From replicas", "From the tier", "From upstreams",
	}}
	all := s.Replicas.list()
	for i, r := range all {
		if i == mostReplicas {
			t.add(fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		x, seen := r.Status, since(s.Now, r.Seen)+" ago"
		cells := []string{cut(r.Name), x.Version, since(s.Now, x.Started), seen, strconv.FormatUint(x.Requests, 10), share(x.Hits, x.Requests),
			size(x.Bytes) + " of " + size(x.MaxBytes), size(x.FromPeer), size(x.FromTier), size(x.Upstream)}
		note := ""
		switch {
		case r.Name == s.Replicas.Self.Name:
			note, cells[3] = "this one", "now"
		case r.Err != nil:
			note, cells = "What it says of itself makes no sense.", []string{cells[0], "?", "?", seen, "?", "?", "?", "?", "?", "?"}
		case s.Now.Sub(r.Seen) > silentFor:
			note = "silent"
		}
		t.Rows = append(t.Rows, row{cells, note})
	}
	return t
}

// origins is where blobs came from.
func origins(x *cluster.Stats) table {
	t := table{ID: "origins", Title: "Blobs came from", Head: []string{"Place", "Bytes", "Share", "Parts", "Failed"}}
	add := func(name string, f cluster.From) {
		t.add(name, size(f.Bytes), share(f.Bytes, fromAll(x)), strconv.FormatInt(f.Segments, 10), strconv.FormatInt(f.Failed, 10))
	}
	if x.HasIndex {
		add("other replicas", x.Peers)
	}
	if x.HasTier {
		add("the shared tier", x.Tier)
	}
	add("upstreams", x.Upstream)
	return t
}

// shared is how that is that replicas share.
func shared(s State) table {
	t := table{ID: "shared", Title: "Redis and the shared tier", Cards: true, Head: []string{"What", "State", "Since", "Asked", "Failed", "Not asked"}}
	x := s.Stats.Cluster
	add := func(name string, up bool, at time.Time, last string, counts ...uint64) {
		cells := []string{name, "up", ""}
		if !up {
			cells[1] = "away"
		}
		if !at.IsZero() {
			cells[2] = since(s.Now, at) + " ago"
		}
		for _, n := range counts {
			cells = append(cells, strconv.FormatUint(n, 10))
		}
		if last != "" {
			last = "last error: " + cut(last)
		}
		t.Rows = append(t.Rows, row{cells, last})
	}
	if x.HasIndex {
		var asked uint64
		for _, n := range x.Index.Ops {
			asked += n
		}
		add("Redis", x.Index.Up, x.Index.Since, x.Index.LastError, asked, x.Index.Errors, x.Index.Away)
	}
	if x.HasTier {
		y := x.Shared
		worst := y.Reading
		if y.Writing.Away && !worst.Away || worst.Error == "" {
			worst = y.Writing
		}
		add("Shared tier", !worst.Away, worst.Since, worst.Error, y.Finds+y.Reads+y.Puts, y.FindErrors+y.ReadErrors+y.PutErrors, y.Refused)
	}
	return t
}

// operations are what Redis was asked for.
func operations(x *cluster.Stats) table {
	t := table{ID: "operations", Title: "Operations of Redis", Empty: "There were none yet.", Head: []string{"Operation", "Times"}}
	for _, op := range slices.Sorted(maps.Keys(x.Index.Ops)) {
		if n := x.Index.Ops[op]; n > 0 {
			t.add(op, strconv.FormatUint(n, 10))
		}
	}
	return t
}

// since says how long ago at was, in a unit that says enough.
func since(now, at time.Time) string {
	d := max(0, now.Sub(at))
	switch {
	case at.IsZero():
		return "?"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " days"
}

// cut bounds a text of somebody else.
func cut(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= mostText {
		return text
	}
	return strings.ToValidUTF8(text[:mostText], "") + "…"
}
