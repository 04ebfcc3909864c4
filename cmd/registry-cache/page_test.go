package main

import (
	"bufio"
	"flag"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/docker/go-units"

	"github.com/reprise-containers/reprise/cmd/internal/browsertest"
)

var shots = flag.String("shots", "", "folder for pictures of the status page, to look at")

// series are the values of metrics, by their name and labels as they are printed.
type series map[string]float64

// sum returns the sum of a metric over all labels that have the text in them.
func (s series) sum(name, labels string) (sum float64) {
	for of, v := range s {
		if n, rest, _ := strings.Cut(of, "{"); n == "reprise_registry_cache_"+name && strings.Contains(rest, labels) {
			sum += v
		}
	}
	return sum
}

// series returns what /metrics says.
func (r *running) series() series {
	r.t.Helper()
	resp, err := http.Get("http://" + r.metrics + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := series{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			r.t.Fatal(err)
		}
		out[line[:i]] = v
	}
	return out
}

// measured returns the sum of a metric over all labels that have the text in them.
func (r *running) measured(name, labels string) float64 {
	r.t.Helper()
	return r.series().sum(name, labels)
}

// texts returns what the elements say that a selector finds.
func texts(b *browsertest.Browser, selector string) string {
	return browsertest.Eval[string](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].map(e => e.textContent).join(' | ')`, selector))
}

// look takes pictures of a page, wide and narrow, light and dark, and checks that it can
// be read.
func look(b *browsertest.Browser, page, name string) {
	for _, width := range []int64{1200, 390} {
		for _, scheme := range []string{"light", "dark"} {
			b.Open(page, width, scheme)
			where := fmt.Sprintf("%s, %s at %d", name, scheme, width)
			b.Shot(fmt.Sprintf("%s-%d-%s.png", name, width, scheme))
			b.Width(where)
			b.Contrast(where)
		}
	}
}

// The page in a browser, with pulls behind it, says what the metrics say.
func TestPage(t *testing.T) {
	b := browsertest.New(t, *shots)
	o := newOrigin(t)
	r := begin(t, filepath.Join(t.TempDir(), "data"), "--upstream", o.host)
	r.pull(o)
	r.pull(o)
	page := "http://" + r.metrics + "/"
	look(b, page, "status")
	text := func(selector string) string { return texts(b, selector) }
	hits := 100 * r.measured("requests_total", `outcome="hit"`) / r.measured("requests_total", "")
	bytes := int64(r.measured("sent_bytes_total", ""))
	for selector, want := range map[string]string{
		"#hits .value":                          fmt.Sprintf("%.1f %%", hits),
		"#hits .more":                           fmt.Sprintf("of %.0f requests for content", r.measured("requests_total", "")),
		"#byte-hits .more":                      "of " + units.BytesSize(float64(bytes)) + " sent",
		"#disk .value":                          units.BytesSize(r.measured("disk_bytes", "")),
		"#upstream .value":                      units.BytesSize(r.measured("upstream_bytes_total", "")),
		"#workers .value":                       fmt.Sprint(r.measured("workers_busy", "")),
		"#permissions tbody tr:nth-child(1) td": fmt.Sprint(r.measured("permission_checks_total", `by="upstream"`)),
		"#images tbody th":                      o.host + "/team/app",
		"#images tbody td:nth-child(2)":         "6",
		"#kinds tbody th":                       "blobs | manifests",
		"#fetches .more":                        "Nothing is being fetched.",
	} {
		if got := text(selector); got != want {
			t.Errorf("%s is %q, want %q", selector, got, want)
		}
	}
	b.Quiet(page)
}

// Names of images are for those who may see them, and what clients choose is shown,
// not obeyed.
func TestPageWithoutNames(t *testing.T) {
	o := newOrigin(t)
	dir := t.TempDir()
	config := write(t, dir, "metrics: {images: false}\n")
	r := begin(t, filepath.Join(dir, "data"), "--config", config, "--upstream", o.host)
	r.pull(o)
	resp, err := http.Get("http://" + r.metrics + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	said := ""
	for lines.Scan() {
		said += lines.Text() + "\n"
	}
	if resp.StatusCode != http.StatusOK || strings.Contains(said, "team/app") || !strings.Contains(said, "metrics.images") {
		t.Errorf("%s\n%s", resp.Status, said)
	}
	if r.status("none") != http.StatusNotFound || r.status("healthz") != http.StatusOK {
		t.Error("the other pages are not what they were")
	}
}
