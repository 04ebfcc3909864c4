// Package browsertest looks at pages in a real browser, Chromium without a window.
package browsertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Browser is a real one, without a window. It notes what pages ask for and what goes
// wrong in them.
type Browser struct {
	// Ctx is what chromedp's actions are done in.
	Ctx context.Context

	t     *testing.T
	shots string

	mu       sync.Mutex
	problems []string
	asked    []string
}

// ShotsVariable names the folder for pictures in the environment, for tests that are not
// told another one.
const ShotsVariable = "REPRISE_SHOTS"

// New starts a browser that ends with the test. Pictures go to the folder shots, which
// is made; "" for what ShotsVariable says, and nowhere if it says nothing. Where there is no chromium and none can be installed the test is
// skipped.
func New(t *testing.T, shots string) *Browser {
	t.Helper()
	if shots == "" {
		shots = os.Getenv(ShotsVariable)
	}
	if shots != "" {
		if err := os.MkdirAll(shots, 0o755); err != nil {
			t.Fatal(err)
		}
	}
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
	b := &Browser{Ctx: ctx, t: t, shots: shots}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	return b
}

// hear notes what the page asks for and what goes wrong in it.
func (b *Browser) hear(event any) {
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

// Do does actions.
func (b *Browser) Do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.Ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// call sends a command of the protocol.
func call[P, R any](b *Browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.Ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// Eval returns what an expression is in the page.
func Eval[T any](b *Browser, expression string) (v T) {
	b.t.Helper()
	v, err := chromedp.Run(b.Ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// Open shows an address in a window of a size, dark or light.
func (b *Browser) Open(address string, width int64, scheme string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	b.Do(chromedp.EmulateViewport(width, 900), chromedp.Navigate(address))
}

// Quiet checks that pages asked for nothing but the address and had no trouble.
func (b *Browser) Quiet(address string) {
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
		if u != address {
			b.t.Errorf("the page asked for %s", u)
		}
	}
	b.asked, b.problems = nil, nil
}

// Width checks that nothing but tables, which scroll, is wider than the window.
func (b *Browser) Width(where string) {
	b.t.Helper()
	if Eval[bool](b, `document.documentElement.scrollWidth > innerWidth`) {
		b.t.Errorf("%s: the page is wider than the window; too wide are\n%s", where, Eval[string](b,
			`[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth && !e.closest('.scroll')).map(e => e.outerHTML.slice(0, 120)).join('\n')`))
	}
}

// Contrast checks that all texts differ from what is behind them as WCAG asks of
// small texts (4.5 to 1), and lines as it asks of graphics (3 to 1).
func (b *Browser) Contrast(where string) {
	b.t.Helper()
	bad := Eval[[]string](b, `(() => {
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

// Shot writes a picture of the whole page, if they are asked for.
func (b *Browser) Shot(name string) {
	if b.shots == "" {
		return
	}
	png, err := chromedp.Run(b.Ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.shots, name), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
