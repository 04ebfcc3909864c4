package replaypage_test

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/reprise-containers/reprise/cmd/internal/replaypage"
)

var shots = flag.String("shots", "", "folder for pictures of the page, to look at")

// browser is a real one, without a window.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
	asked    []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getuid() != 0 {
			t.Skip("no chromium, and only root can install it")
		}
		if out, err := exec.CommandContext(t.Context(), "../../../integration/tools/install.sh", "test").CombinedOutput(); err != nil {
			t.Fatalf("installing chromium: %v\n%s", err, out)
		}
		if path, err = exec.LookPath("chromium"); err != nil {
			t.Fatal(err)
		}
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // t's context ends before the browser can
	ctx, end := chromedp.NewExecAllocator(ctx, options...)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser to end
		closeTab()
		end()
		cancel()
	})
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	return b
}

// hear notes what the page asks for and what goes wrong in it.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, "data:") {
			b.asked = append(b.asked, e.Request.URL)
		}
	case *log.EventEntryAdded:
		b.problems = append(b.problems, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		b.problems = append(b.problems, fmt.Sprint("console: ", e.Type))
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// call sends a command of the protocol.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what an expression is in the page.
func eval[T any](b *browser, expression string) (v T) {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// open shows a file in a window of a size, dark or light.
func (b *browser) open(path string, width int64, scheme string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	b.do(chromedp.EmulateViewport(width, 900), chromedp.Navigate((&url.URL{Scheme: "file", Path: path}).String()))
}

// quiet checks that the page asked for nothing but itself and had no trouble.
func (b *browser) quiet(path string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("the page says: %s", p)
	}
	if len(b.asked) == 0 {
		b.t.Error("the browser asked for nothing")
	}
	for _, u := range b.asked {
		if u != "file://"+path {
			b.t.Errorf("the page asked for %s", u)
		}
	}
}

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
	"sizes-bodies", "policies", "policies-bytes", "curves", "curves-bytes", "over", "sizes-objects",
}

// TestPage looks at the page of a run and a simulation in a browser: as large as a desk
// and as small as a phone, by day and by night.
func TestPage(t *testing.T) {
	b := newBrowser(t)
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
			b.open(path, width, scheme)
			b.shot(fmt.Sprintf("%d-%s.png", width, scheme))
			checkWidth(b, fmt.Sprintf("%s at %d", scheme, width))
			checkCharts(b, fmt.Sprintf("%s at %d", scheme, width))
			checkContrast(b, fmt.Sprintf("%s at %d", scheme, width))
			grounds[scheme] = eval[string](b, `getComputedStyle(document.body).backgroundColor`)
		}
	}
	if grounds["light"] == grounds["dark"] {
		t.Errorf("the ground is %s by day and by night", grounds["light"])
	}
	b.quiet(path)
}

// checkWidth checks that nothing but tables, which scroll, is wider than the window.
func checkWidth(b *browser, where string) {
	b.t.Helper()
	if eval[bool](b, `document.documentElement.scrollWidth > innerWidth`) {
		b.t.Errorf("%s: the page is wider than the window; too wide are\n%s", where, eval[string](b,
			`[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth && !e.closest('.scroll')).map(e => e.outerHTML.slice(0, 120)).join('\n')`))
	}
}

// checkCharts checks that all charts are there, that their lines are where they can be
// seen, and that texts do not lie on each other.
func checkCharts(b *browser, where string) {
	b.t.Helper()
	type mark struct {
		ID, Title, Desc string
		Lines           int
		Seen            bool
		Overlap         string
	}
	marks := eval[[]mark](b, `[...document.querySelectorAll('.chart')].map(chart => {
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
			b.t.Errorf("%s: chart %s: %+v", where, m.ID, m)
		}
		if m.Overlap != "" {
			b.t.Errorf("%s: chart %s: texts of %s overlap", where, m.ID, m.Overlap)
		}
	}
	for _, id := range chartIDs {
		if !seen[id] {
			b.t.Errorf("%s: no chart %s", where, id)
		}
	}
	if len(marks) != len(chartIDs) {
		b.t.Errorf("%s: %d charts, want %d", where, len(marks), len(chartIDs))
	}
}

// checkContrast checks that all texts differ from what is behind them as WCAG asks of
// small texts (4.5 to 1), and lines as it asks of graphics (3 to 1).
func checkContrast(b *browser, where string) {
	b.t.Helper()
	bad := eval[[]string](b, `(() => {
		const rgb = s => s.match(/[\d.]+/g).map(Number);
		const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
			.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
		const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
		const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
		const out = new Set();
		for (const e of document.querySelectorAll('body *')) {
			const style = getComputedStyle(e);
			if ([...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && !e.closest('svg, script') && ratio(rgb(style.color), ground(e)) < 4.5)
				out.add(e.tagName + '.' + e.className + ' ' + style.color + ' on ' + ground(e));
			if (e.matches('.line') && ratio(rgb(e.matches('.bars') ? style.fill : style.stroke), ground(e)) < 3)
				out.add('line ' + e.className.baseVal + ' ' + style.stroke);
		}
		return [...out];
	})()`)
	for _, what := range bad {
		b.t.Errorf("%s: little contrast: %s", where, what)
	}
}

// TestPageSaysWhatIsThere moves the pointer and the arrow keys over a chart.
func TestPageSaysWhatIsThere(t *testing.T) {
	b := newBrowser(t)
	path := writePage(t, replaypage.Input{Run: pageRun("")})
	b.open(path, 1200, "light")
	type point struct{ X, Y float64 }
	at := eval[point](b, `(() => { const a = document.querySelector('#latency-all .area'); a.scrollIntoView({block: 'center', behavior: 'instant'});
		const r = a.getBoundingClientRect(); return {X: r.left + r.width / 2, Y: r.top + r.height / 2}; })()`)
	read := `document.querySelector('#latency-all .read').textContent`
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, at.X, at.Y))
	if got := eval[string](b, read); !strings.Contains(got, "latency ") || !strings.Contains(got, "service ") || !strings.Contains(got, "%") {
		t.Errorf("under the pointer: %q", got)
	}
	if n := eval[int](b, `document.querySelectorAll('#latency-all .cross:not([hidden]) i').length`); n != 2 {
		t.Errorf("%d dots", n)
	}
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, 1, 1))
	if got := eval[string](b, read); got != "" {
		t.Errorf("after the pointer left: %q", got)
	}
	b.do(chromedp.Focus("#latency-all .area"), chromedp.KeyEvent(kb.End))
	end := eval[string](b, read)
	b.do(chromedp.KeyEvent(kb.ArrowLeft))
	before := eval[string](b, read)
	last := eval[string](b, `document.querySelector('#latency-all tbody tr:last-child th').textContent`)
	if !strings.HasPrefix(end, last) || before == end || before == "" {
		t.Errorf("at the end %q, before it %q, the last row is %q", end, before, last)
	}
	b.quiet(path)
}

// TestPageHostile puts HTML wherever others choose a text: it is shown, not obeyed.
func TestPageHostile(t *testing.T) {
	const hostile = `</script></title></style><script>window.owned = 1</script><img src="http://192.0.2.1/x" onerror="window.owned = 1">"'`
	b := newBrowser(t)
	s := pageRun(hostile)
	path := writePage(t, replaypage.Input{Title: hostile, Run: s, Advice: []string{hostile}})
	b.open(path, 390, "dark")
	if eval[bool](b, `'owned' in window`) {
		t.Error("a text was run")
	}
	if got := eval[string](b, `document.querySelector('h1').textContent`); got != hostile {
		t.Errorf("the title is %q", got)
	}
	checkWidth(b, "hostile texts")
	b.quiet(path)
}

// TestPageOfLittle opens pages of runs in which hardly anything happened.
func TestPageOfLittle(t *testing.T) {
	b := newBrowser(t)
	full := pageSimulation(t)
	for name, in := range map[string]replaypage.Input{
		"nothing":    {},
		"simulation": {Sim: full},
		"empty run":  {Run: emptyRun()},
	} {
		path := writePage(t, in)
		b.open(path, 390, "light")
		if got := eval[string](b, `document.title + document.querySelector('h1').textContent`); got == "" {
			t.Errorf("%s: no title", name)
		}
		text := eval[string](b, `document.body.innerText`)
		for _, bad := range []string{"NaN", "Inf", "undefined", "%!"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s: %s in %s", name, bad, text)
			}
		}
		checkWidth(b, name)
		b.mu.Lock()
		b.asked = nil
		for _, p := range b.problems {
			t.Errorf("%s: the page says %s", name, p)
		}
		b.mu.Unlock()
	}
}

// shot writes a picture of the whole page if they are asked for.
func (b *browser) shot(name string) {
	if *shots == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*shots, name), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
