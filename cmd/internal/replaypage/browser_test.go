package replaypage_test

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/reprise-containers/reprise/cmd/internal/browsertest"
	"github.com/reprise-containers/reprise/cmd/internal/replaypage"
)

var shots = flag.String("shots", "", "folder for pictures of the page, to look at")

// address returns that of a file.
func address(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

func writePage(t *testing.T, in replaypage.Input) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := replaypage.Write(f, in); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// chartIDs are those that a page of everything has.
var chartIDs = []string{
	"latency-all", "latency-kinds", "latency-outcomes", "latency-registries", "rate", "latency-time", "outstanding", "bandwidth", "hits", "failed",
	"sizes-bodies", "policies", "policies-bytes", "curves", "curves-bytes", "over", "sizes-objects", "cluster-times",
}

// TestPage looks at the page of a run and a simulation in a browser: as large as a desk
// and as small as a phone, by day and by night.
func TestPage(t *testing.T) {
	b := browsertest.New(t, *shots)
	path := writePage(t, replaypage.Input{
		Title: "Dallas, 20 June 2017, against two caches", Run: pageRun(""), Sim: pageSimulation(t),
		Advice: []string{"Policy s3fifo with a disk of 10 % of all bytes: expected hit ratio 0.81 of requests, 0.74 of bytes."},
	})
	if info, err := os.Stat(path); err != nil || info.Size() > 2<<20 {
		t.Errorf("the page is %d bytes: %v", info.Size(), err)
	}
	grounds := map[string]string{}
	for _, width := range []int64{1200, 390} {
		for _, scheme := range []string{"light", "dark"} {
			b.Open(address(path), width, scheme)
			b.Shot(fmt.Sprintf("replay-%d-%s.png", width, scheme))
			b.Width(fmt.Sprintf("%s at %d", scheme, width))
			checkCharts(t, b, fmt.Sprintf("%s at %d", scheme, width))
			b.Contrast(fmt.Sprintf("%s at %d", scheme, width))
			grounds[scheme] = browsertest.Eval[string](b, `getComputedStyle(document.body).backgroundColor`)
		}
	}
	if grounds["light"] == grounds["dark"] {
		t.Errorf("the ground is %s by day and by night", grounds["light"])
	}
	b.Quiet(address(path))
}

// checkCharts checks that all charts are there, that their lines are where they can be
// seen, and that texts do not lie on each other.
func checkCharts(t *testing.T, b *browsertest.Browser, where string) {
	t.Helper()
	type mark struct {
		ID, Title, Desc string
		Lines           int
		Seen            bool
		Overlap         string
	}
	marks := browsertest.Eval[[]mark](b, `[...document.querySelectorAll('.chart')].map(chart => {
		const svg = chart.querySelector('.area svg'), area = chart.querySelector('.area').getBoundingClientRect();
		const lines = [...svg.querySelectorAll('.line')];
		const overlap = sel => {
			const all = [...chart.querySelectorAll(sel)].filter(e => getComputedStyle(e).visibility !== 'hidden').map(e => e.getBoundingClientRect());
			return all.some((a, i) => all.some((b, k) => k > i && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom));
		};
		return {
			ID: chart.id, Title: svg.querySelector('title').textContent, Desc: svg.querySelector('desc').textContent,
			Lines: lines.length,
			Seen: lines.length > 0 && lines.every(l => {
				const r = l.getBoundingClientRect();
				return l.getTotalLength() > 0 && getComputedStyle(l).opacity === '1' &&
					r.left >= area.left - 3 && r.right <= area.right + 3 && r.top >= area.top - 3 && r.bottom <= area.bottom + 3;
			}),
			Overlap: ['.xticks span', '.yticks span'].filter(overlap).join(' '),
		};
	})`)
	seen := map[string]bool{}
	for _, m := range marks {
		seen[m.ID] = true
		if !m.Seen || m.Title == "" || m.Desc == "" {
			t.Errorf("%s: chart %s: %+v", where, m.ID, m)
		}
		if m.Overlap != "" {
			t.Errorf("%s: chart %s: texts of %s overlap", where, m.ID, m.Overlap)
		}
	}
	for _, id := range chartIDs {
		if !seen[id] {
			t.Errorf("%s: no chart %s", where, id)
		}
	}
	if len(marks) != len(chartIDs) {
		t.Errorf("%s: %d charts, want %d", where, len(marks), len(chartIDs))
	}
}

// TestPageSaysWhatIsThere moves the pointer and the arrow keys over a chart.
func TestPageSaysWhatIsThere(t *testing.T) {
	b := browsertest.New(t, *shots)
	path := writePage(t, replaypage.Input{Run: pageRun("")})
	b.Open(address(path), 1200, "light")
	type point struct{ X, Y float64 }
	at := browsertest.Eval[point](b, `(() => { const a = document.querySelector('#latency-all .area'); a.scrollIntoView({block: 'center', behavior: 'instant'});
		const r = a.getBoundingClientRect(); return {X: r.left + r.width / 2, Y: r.top + r.height / 2}; })()`)
	read := `document.querySelector('#latency-all .read').textContent`
	b.Do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, at.X, at.Y))
	if got := browsertest.Eval[string](b, read); !strings.Contains(got, "latency ") || !strings.Contains(got, "service ") || !strings.Contains(got, "%") {
		t.Errorf("under the pointer: %q", got)
	}
	if n := browsertest.Eval[int](b, `document.querySelectorAll('#latency-all .cross:not([hidden]) i').length`); n != 2 {
		t.Errorf("%d dots", n)
	}
	b.Do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, 1, 1))
	if got := browsertest.Eval[string](b, read); got != "" {
		t.Errorf("after the pointer left: %q", got)
	}
	b.Do(chromedp.Focus("#latency-all .area"), chromedp.KeyEvent(kb.End))
	end := browsertest.Eval[string](b, read)
	b.Do(chromedp.KeyEvent(kb.ArrowLeft))
	before := browsertest.Eval[string](b, read)
	last := browsertest.Eval[string](b, `document.querySelector('#latency-all tbody tr:last-child th').textContent`)
	if !strings.HasPrefix(end, last) || before == end || before == "" {
		t.Errorf("at the end %q, before it %q, the last row is %q", end, before, last)
	}
	b.Quiet(address(path))
}

// TestPageHostile puts HTML wherever others choose a text: it is shown, not obeyed.
func TestPageHostile(t *testing.T) {
	const hostile = `</script></title></style><script>window.owned = 1</script><img src="http://192.0.2.1/x" onerror="window.owned = 1">"'`
	b := browsertest.New(t, *shots)
	s := pageRun(hostile)
	path := writePage(t, replaypage.Input{Title: hostile, Run: s, Advice: []string{hostile}})
	b.Open(address(path), 390, "dark")
	if browsertest.Eval[bool](b, `'owned' in window`) {
		t.Error("a text was run")
	}
	if got := browsertest.Eval[string](b, `document.querySelector('h1').textContent`); got != hostile {
		t.Errorf("the title is %q", got)
	}
	b.Width("hostile texts")
	b.Quiet(address(path))
}

// TestPageOfLittle opens pages of runs in which hardly anything happened.
func TestPageOfLittle(t *testing.T) {
	b := browsertest.New(t, *shots)
	full := pageSimulation(t)
	for name, in := range map[string]replaypage.Input{
		"nothing":    {},
		"simulation": {Sim: full},
		"empty run":  {Run: emptyRun()},
	} {
		path := writePage(t, in)
		b.Open(address(path), 390, "light")
		if got := browsertest.Eval[string](b, `document.title + document.querySelector('h1').textContent`); got == "" {
			t.Errorf("%s: no title", name)
		}
		text := browsertest.Eval[string](b, `document.body.innerText`)
		for _, bad := range []string{"NaN", "Inf", "undefined", "%!"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s: %s in %s", name, bad, text)
			}
		}
		b.Width(name)
		b.Quiet(address(path))
	}
}
