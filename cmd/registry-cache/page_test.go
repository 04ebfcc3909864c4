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

// measured returns the sum of a metric over all labels that have the text in them.
func (r *running) measured(name, labels string) (sum float64) {
	r.t.Helper()
	resp, err := http.Get("http://" + r.metrics + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		series, value, _ := strings.Cut(line, " ")
		if i := strings.IndexByte(line, '}'); i > 0 {
			series, value = line[:i+1], strings.TrimSpace(line[i+1:])
		}
		if n, _, _ := strings.Cut(series, "{"); n != "reprise_registry_cache_"+name || !strings.Contains(series, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// The page in a browser, with pulls behind it, says what the metrics say.
func TestPage(t *testing.T) {
	b := browsertest.New(t, *shots)
	o := newOrigin(t)
	r := begin(t, filepath.Join(t.TempDir(), "data"), "--upstream", o.host)
	r.pull(o)
	r.pull(o)
	page := "http://" + r.metrics + "/"
	for _, width := range []int64{1200, 390} {
		for _, scheme := range []string{"light", "dark"} {
			b.Open(page, width, scheme)
			where := fmt.Sprintf("%s at %d", scheme, width)
			b.Shot(fmt.Sprintf("status-%d-%s.png", width, scheme))
			b.Width(where)
			b.Contrast(where)
		}
	}
	text := func(selector string) string {
		return browsertest.Eval[string](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].map(e => e.textContent).join(' | ')`, selector))
	}
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
