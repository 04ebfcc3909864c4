// Package cachepage serves the status page of the registry cache: what it holds, has
// done and does, in plain HTML without a script, for people. The figures are those
// that the metrics are made of.
package cachepage

import (
	"bytes"
	"context"
	_ "embed" // the page's parts
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/docker/go-units"

	"github.com/reprise-containers/reprise/cache/fill"
	"github.com/reprise-containers/reprise/cache/proxy"
	"github.com/reprise-containers/reprise/cmd/internal/metrics"
)

// State is what a page shows.
type State struct {
	Version, Address string
	Started, Now     time.Time
	Stats            metrics.CacheSnapshot
	Kinds            map[string]Count
	Images           []ImageCount // those with the most requests; nil: names are not shown
	Fetches          []fill.Progress
	Replicas         Replicas
}

//go:embed page.html
var layout string

//go:embed page.css
var style string

var pages = template.Must(template.New("page").Parse(layout))

// policy is what a browser may do with the page: nothing but show it.
const policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler returns what serves the page of what look returns.
func Handler(look func(context.Context) State) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		if err := pages.Execute(&b, newPage(look(r.Context()))); err != nil {
			http.Error(w, "making the page: "+err.Error(), http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = b.WriteTo(w) // who has gone does not read it
	})
}

// page is what the layout is filled with.
type page struct {
	Style    template.CSS
	About    string
	Warnings []string
	Tiles    []tile
	Tables   []table
}

// tile is a figure that comes first. Part is drawn as a bar, 0 to 1; negative: none.
type tile struct {
	ID, Name, Value, More string
	Part                  float64
}

// Percent is the length of the bar.
func (t tile) Percent() string { return strconv.FormatFloat(100*min(1, max(0, t.Part)), 'f', 1, 64) }

// table has its names in the first column; the others are numbers.
type table struct {
	ID, Title, Empty string
	Head             []string
	Rows             []row
	Cards            bool // on a narrow window each row is a block of its own
}

// row is one of a table. Note is said below its first cell.
type row struct {
	Cells []string
	Note  string
}

func (t *table) add(cells ...string) { t.Rows = append(t.Rows, row{Cells: cells}) }

func newPage(s State) page {
	p := page{
		Style: template.CSS(style), //nolint:gosec // embedded
		About: fmt.Sprintf("%s, version %s, up for %s, as of %s", s.Address, s.Version,
			s.Now.Sub(s.Started).Truncate(time.Second), s.Now.UTC().Format("2006-01-02 15:04:05 UTC")),
	}
	p.warn(s)
	p.tiles(s)
	if s.Stats.Cluster != nil {
		p.cluster(s)
	}
	p.Tables = append(p.Tables, kinds(s), images(s), fetches(s), permissions(s), upstreams(s), collected(s))
	if s.Stats.Cluster != nil && s.Stats.Cluster.HasIndex {
		p.Tables = append(p.Tables, operations(s.Stats.Cluster))
	}
	return p
}

// warn says what an operator has to know.
func (p *page) warn(s State) {
	add := func(when bool, format string, args ...any) {
		if when {
			p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
		}
	}
	x := s.Stats
	add(!x.Scanned, "What was there before the start is still being looked at.")
	add(x.Cache.LastError != "", "The disk failed: %v", x.Cache.LastError)
	add(x.Fill.Mismatches > 0, "%d blobs from upstreams were not what their digest says; they were thrown away.", x.Fill.Mismatches)
	add(x.Proxy.StreamersRefused > 0, "%d requests were told to come again, because too many bodies were being sent (server.streamers).", x.Proxy.StreamersRefused)
	add(x.Upstream.WorkersWait > 0, "%d downloads wait for a worker (server.workers).", x.Upstream.WorkersWait)
	for _, h := range x.Upstream.Hosts {
		add(h.BackoffUntil.After(s.Now), "%s asks to be left alone for another %s.", h.Host, units.HumanDuration(h.BackoffUntil.Sub(s.Now)))
	}
}

func (p *page) tiles(s State) {
	x := s.Stats
	var all Count
	for _, c := range s.Kinds {
		all.Requests += c.Requests
		all.Hits += c.Hits
		all.Bytes += c.Bytes
		all.HitBytes += c.HitBytes
	}
	p.Tiles = []tile{
		{"hits", "Hits", share(all.Hits, all.Requests), fmt.Sprintf("of %d requests for content", all.Requests), part(all.Hits, all.Requests)},
		{"byte-hits", "Bytes that were hits", share(all.HitBytes, all.Bytes), "of " + size(all.Bytes) + " sent", part(all.HitBytes, all.Bytes)},
		{"disk", "Disk", size(x.Cache.Bytes), fmt.Sprintf("of %s, %d blobs", size(x.MaxBytes), x.Cache.Blobs), part(x.Cache.Bytes, x.MaxBytes)},
		{"memory", "Memory for content", size(x.Proxy.Memory.Bytes), "of " + size(x.Proxy.Memory.MaxBytes), part(x.Proxy.Memory.Bytes, x.Proxy.Memory.MaxBytes)},
		{"upstream", "From upstreams", size(x.Upstream.Bytes), fmt.Sprintf("in %d requests, %d failed", x.Upstream.Requests, x.Upstream.Errors), -1},
		{"streams", "Bodies being sent", strconv.Itoa(x.Proxy.Streaming), fmt.Sprintf("of %d, %d wait", x.Proxy.Streamers, x.Proxy.StreamersWaiting), part(x.Proxy.Streaming, x.Proxy.Streamers)},
		{"workers", "Downloads", strconv.Itoa(x.Upstream.WorkersBusy), fmt.Sprintf("of %d, %d wait", x.Upstream.Workers, x.Upstream.WorkersWait), part(x.Upstream.WorkersBusy, x.Upstream.Workers)},
		{"waiting", "Waiting for another's fetch", strconv.FormatInt(x.Fill.Waiting, 10), fmt.Sprintf("%d times so far", x.Fill.Joined), -1},
	}
}

func kinds(s State) table {
	t := table{ID: "kinds", Title: "Requests", Empty: "Nothing was asked for yet.", Head: []string{"Kind", "Requests", "Hits", "Sent", "Byte hits"}}
	for _, k := range []string{proxy.KindBlob, proxy.KindManifest, proxy.KindReferrers, proxy.KindTags} {
		if c := s.Kinds[k]; c.Requests > 0 {
			t.add(append([]string{k}, c.cells()...)...)
		}
	}
	return t
}

// cells are the figures of a count.
func (c Count) cells() []string {
	return []string{strconv.FormatUint(c.Requests, 10), share(c.Hits, c.Requests), size(c.Bytes), share(c.HitBytes, c.Bytes)}
}

func images(s State) table {
	t := table{ID: "images", Title: "Images", Empty: "Nothing was asked for yet.", Head: []string{"Image", "Requests", "Hits", "Sent", "Byte hits"}}
	if s.Images == nil {
		t.Empty = "Names are shown with metrics.images: true."
	}
	for _, i := range s.Images {
		t.add(append([]string{i.Host + "/" + i.Repository}, i.cells()...)...)
	}
	return t
}

// mostFetches is how many fetches are listed.
const mostFetches = 20

func fetches(s State) table {
	t := table{ID: "fetches", Title: "Being fetched", Empty: "Nothing is being fetched.", Head: []string{"Blob", "From", "Range", "Has come"}}
	for i, f := range s.Fetches {
		if i == mostFetches {
			t.add(fmt.Sprintf("and %d more", len(s.Fetches)-i), "", "", "")
			break
		}
		name, host := short(f.Blob.Digest.String()), f.Origin
		if s.Images == nil {
			host = ""
		}
		t.add(name, host, size(f.End-f.Off), share(f.Pos-f.Off, f.End-f.Off))
	}
	return t
}

// counts are the rows of what there was any of.
func counts(rows ...counted) (out []row) {
	for _, r := range rows {
		if r.n > 0 {
			out = append(out, row{Cells: []string{r.name, strconv.FormatInt(r.n, 10)}})
		}
	}
	return out
}

type counted struct {
	name string
	n    int64
}

func permissions(s State) table {
	x := s.Stats.Permit
	return table{ID: "permissions", Title: "Permission checks", Empty: "None was made yet.", Head: []string{"Settled by", "Checks"}, Rows: counts(
		counted{"asking the upstream", x.Heads}, counted{"waiting for another's answer", x.Joined}, counted{"an earlier answer", x.Hits},
		counted{"another replica's answer", x.SharedHits},
		counted{"an earlier refusal", x.NegativeHits}, counted{"the trusted policy", x.Trusted},
		counted{"answers: allowed", x.Allowed}, counted{"answers: 401", x.Unauthorized}, counted{"answers: 403", x.Forbidden},
		counted{"answers: 404", x.NotFound}, counted{"answers: 429", x.Limited}, counted{"answers: failures", x.Failed},
		counted{"no answer", x.Unreached}, counted{"stale, for want of an answer", x.Stale}, counted{"permissions that were revoked", x.Revoked},
	)}
}

func upstreams(s State) table {
	t := table{ID: "quotas", Title: "Upstream quotas", Empty: "No upstream has said what it allows.", Head: []string{"Upstream", "Left", "Of", "In", "As of"}}
	for _, h := range s.Stats.Upstream.Hosts {
		if h.Limit < 0 && h.Remaining < 0 {
			continue
		}
		window, seen := "", ""
		if h.Window > 0 {
			window = units.HumanDuration(h.Window)
		}
		if !h.SeenAt.IsZero() {
			seen = units.HumanDuration(s.Now.Sub(h.SeenAt)) + " ago"
		}
		t.add(h.Host, known(h.Remaining), known(h.Limit), window, seen)
	}
	return t
}

func collected(s State) table {
	g := s.Stats.GC
	return table{ID: "collected", Title: "Given up", Empty: "Nothing was given up yet.", Head: []string{"Because of", "Blobs and files"}, Rows: counts(
		counted{"little space", s.Stats.Cache.Evictions}, counted{"age", g.Age}, counted{"not used", g.Unused}, counted{"damage", g.Corrupt},
		counted{"not ours", g.Undesired}, counted{"without metadata", g.Orphans}, counted{"without content", g.Empty},
	)}
}

func known(n int64) string {
	if n < 0 {
		return "?"
	}
	return strconv.FormatInt(n, 10)
}

// short is the beginning of a digest, enough to find it.
func short(digest string) string {
	const enough = len("sha256:") + 12
	return digest[:min(enough, len(digest))]
}

func size(n int64) string { return units.BytesSize(float64(n)) }

type number interface{ ~int | ~int64 | ~uint64 }

func part[N number](a, b N) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// share says how much of b a is.
func share[N number](a, b N) string {
	if b == 0 {
		return "–"
	}
	return strconv.FormatFloat(100*float64(a)/float64(b), 'f', 1, 64) + " %"
}
