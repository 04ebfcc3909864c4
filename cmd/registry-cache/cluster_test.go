package main

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
	"github.com/reprise-containers/reprise/cmd/internal/browsertest"
)

// asCommand in the environment has the test binary be the command.
const asCommand = "REPRISE_TEST_REGISTRY_CACHE"

// TestMain lets the test binary be the command, for tests that kill it.
func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// spawn starts one as a process of its own, which kill ends.
func spawn(t *testing.T, data string, args ...string) (r *running, kill func()) {
	t.Helper()
	r = &running{t: t, data: data, address: free(t), metrics: free(t), ended: make(chan error, 1)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	c := exec.Command(self, append([]string{"--data", data, "--listen", r.address, "--metrics", r.metrics}, args...)...)
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), asCommand+"=1"), &said, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.ended <- c.Wait() }()
	r.cancel = func() { _ = c.Process.Signal(unix.SIGTERM) }
	kill = func() {
		_ = c.Process.Kill()
		<-r.ended
		close(r.ended)
	}
	t.Cleanup(func() {
		r.end()
		if t.Failed() {
			t.Logf("replica %s said\n%s", r.address, said.String())
		}
	})
	await(t, "the replica being ready", func() bool { return r.status("readyz") == http.StatusOK })
	return r, kill
}

// await waits until something is so, and gives up when that is hopeless.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: in vain", what)
		}
	}
}

// sharing are replicas with what they share.
type sharing struct {
	origin   *origin
	redis    *redistest.Server
	replicas []*running
	names    []string // where peers reach them
	kill     []func()
}

func newSharing(t *testing.T, n int) *sharing {
	t.Helper()
	s := &sharing{origin: newOrigin(t), redis: redistest.Start(t)}
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("not a secret ", 5)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tier"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		name := free(t)
		own := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Fatal(err)
		}
		config := write(t, own, fmt.Sprintf(`
metrics: {images: true}
gc: {disk: {maxSize: 1GiB, minFree: 0B}}
cluster:
  secretPath: %s
  address: %s
  redis: {addresses: [%q]}
  tier: {directory: %s}
`, secret, name, s.redis.Addr(), filepath.Join(dir, "tier")))
		r, kill := spawn(t, filepath.Join(own, "data"), "--config", config, "--upstream", s.origin.host)
		s.replicas, s.names, s.kill = append(s.replicas, r), append(s.names, name), append(s.kill, kill)
	}
	return s
}

// blob has another blob at the origin.
func (s *sharing) blob(seed byte) ocispec.Descriptor {
	content := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{seed})
	_, _ = random.Read(content)
	s.origin.mu.Lock()
	defer s.origin.mu.Unlock()
	return s.origin.put("application/octet-stream", content)
}

// byName returns replicas in the order of their names.
func (s *sharing) byName(some ...int) (out []*running) {
	slices.SortFunc(some, func(a, b int) int { return strings.Compare(s.names[a], s.names[b]) })
	for _, i := range some {
		out = append(out, s.replicas[i])
	}
	return out
}

// html returns the page.
func (r *running) html() string {
	r.t.Helper()
	resp, err := http.Get("http://" + r.metrics + "/")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("the page: %s, %v", resp.Status, err)
	}
	return string(text)
}

// shown returns what the page of a replica is to say, by selectors, as its own metrics
// and those of the others say it; rows are the replicas by name.
func shown(own series, rows []series) map[string]string {
	bytes := func(v float64) string { return units.BytesSize(v) }
	percent := func(a, b float64) string { return fmt.Sprintf("%.1f %%", 100*a/b) }
	from := func(place string) float64 { return own.sum("cluster_bytes_total", `place="`+place+`"`) }
	parts := func(place string) string {
		of := `place="` + place + `"`
		return fmt.Sprintf("in %.0f parts, %.0f failed", own.sum("cluster_segments_total", of), own.sum("cluster_failures_total", of))
	}
	all := from("peer") + from("tier") + from("upstream")
	want := map[string]string{
		"#peers .value": bytes(from("peer")), "#peers .more": parts("peer"),
		"#tier .value": bytes(from("tier")), "#tier .more": parts("tier"),
		"#given .value": bytes(own.sum("cluster_given_bytes_total", "")),
		"#given .more":  fmt.Sprintf("in %.0f requests of theirs", own.sum("cluster_peer_requests_total", "")),
		"#queue .value": fmt.Sprint(own.sum("cluster_queue", "")),
		"#queue .more":  fmt.Sprintf("%.0f written, %.0f failed", own.sum("cluster_written_total", ""), own.sum("cluster_unwritten_total", "")),
		"#shared tbody tr:nth-child(1) td:nth-child(4)": fmt.Sprint(own.sum("cluster_index_operations_total", "")),
		"#shared tbody tr:nth-child(1) td:nth-child(5)": fmt.Sprint(own.sum("cluster_index_errors_total", "")),
		"#shared tbody tr:nth-child(1) td:nth-child(6)": fmt.Sprint(own.sum("cluster_index_skipped_total", "")),
		"#shared tbody tr:nth-child(2) td:nth-child(4)": fmt.Sprint(own.sum("cluster_tier_operations_total", "")),
		"#shared tbody tr:nth-child(2) td:nth-child(5)": fmt.Sprint(own.sum("cluster_tier_errors_total", "")),
		"#shared tbody tr:nth-child(2) td:nth-child(6)": fmt.Sprint(own.sum("cluster_tier_skipped_total", "")),
	}
	row := 0
	for _, of := range slices.Sorted(maps.Keys(own)) { // by operation
		op, ok := strings.CutPrefix(of, `reprise_registry_cache_cluster_index_operations_total{operation="`)
		if ok && own[of] > 0 {
			row++
			want[fmt.Sprintf("#operations tbody tr:nth-child(%d) td:nth-child(1)", row)] = strings.TrimSuffix(op, `"}`)
			want[fmt.Sprintf("#operations tbody tr:nth-child(%d) td:nth-child(2)", row)] = fmt.Sprint(own[of])
		}
	}
	for i, place := range []string{"peer", "tier", "upstream"} {
		row := fmt.Sprintf("#origins tbody tr:nth-child(%d) ", i+1)
		want[row+"td:nth-child(2)"], want[row+"td:nth-child(3)"] = bytes(from(place)), percent(from(place), all)
		want[row+"td:nth-child(4)"] = fmt.Sprint(own.sum("cluster_segments_total", `place="`+place+`"`))
		want[row+"td:nth-child(5)"] = fmt.Sprint(own.sum("cluster_failures_total", `place="`+place+`"`))
	}
	for i, m := range rows {
		row := fmt.Sprintf("#replicas tbody tr:nth-child(%d) td:nth-child(", i+1)
		requests := m.sum("requests_total", "")
		for cell, is := range map[int]string{
			5: fmt.Sprint(requests), 6: percent(m.sum("requests_total", `outcome="hit"`), requests),
			7: bytes(m.sum("disk_bytes", "")) + " of " + bytes(m.sum("disk_max_bytes", "")),
			8: bytes(m.sum("cluster_bytes_total", `place="peer"`)),
			9: bytes(m.sum("cluster_bytes_total", `place="tier"`)), 10: bytes(m.sum("upstream_bytes_total", "")),
		} {
			want[row+strconv.Itoa(cell)+")"] = is
		}
	}
	return want
}

// agrees opens the page of a replica until all it says is what metrics say: those of
// others are some seconds old.
func (s *sharing) agrees(t *testing.T, b *browsertest.Browser, of *running, rows ...*running) {
	t.Helper()
	var wrong []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		b.Open("http://"+of.metrics+"/", 1200, "light")
		said := browsertest.Eval[map[string]string](b, `(() => {
			const out = {};
			for (const e of document.querySelectorAll('#peers *, #tier *, #given *, #queue *')) if (e.className) out['#' + e.closest('[id]').id + ' .' + e.className] = e.textContent;
			for (const id of ['replicas', 'origins', 'shared', 'operations'])
				for (const tr of document.querySelectorAll('#' + id + ' tbody tr'))
					[...tr.children].forEach((e, i) => {
						const row = [...tr.parentElement.children].indexOf(tr) + 1;
						out['#' + id + ' tbody tr:nth-child(' + row + ') td:nth-child(' + (i + 1) + ')'] = e.textContent;
					});
			return out;
		})()`)
		own := of.series() // at once: replicas ask Redis for something all the time
		var others []series
		for _, r := range rows {
			others = append(others, r.series())
		}
		wrong = nil
		for selector, want := range shown(own, others) {
			if said[selector] != want {
				wrong = append(wrong, fmt.Sprintf("%s is %q, want %q", selector, said[selector], want))
			}
		}
		if len(wrong) == 0 {
			return
		}
	}
	t.Errorf("the page is not what metrics say:\n%s", strings.Join(wrong, "\n"))
}

// The page of a replica, in a browser: what it and the others do is what metrics say; a
// replica that is killed goes from it, and it works, and says so, when Redis is away.
func TestClusterPage(t *testing.T) {
	b := browsertest.New(t, *shots)
	s := newSharing(t, 3)
	first, second := s.replicas[0], s.replicas[1]
	page := "http://" + second.metrics + "/"
	for range 2 {
		for _, r := range s.replicas {
			r.pull(s.origin)
		}
	}
	alone := s.blob(2)
	first.get("blobs/" + alone.Digest.String())
	await(t, "everything being written to the tier", func() bool {
		return first.measured("cluster_written_total", "")+second.measured("cluster_written_total", "")+
			s.replicas[2].measured("cluster_written_total", "") >= 4
	})
	s.agrees(t, b, second, s.byName(0, 1, 2)...)
	if own := second.series(); own.sum("cluster_bytes_total", `place="peer"`) == 0 {
		t.Error("nothing came from other replicas")
	}
	if note := texts(b, "#replicas .note"); note != "this one" || !strings.HasPrefix(texts(b, "#replicas tr:has(.note) th"), s.names[1]) {
		t.Errorf("the replica whose page it is is marked by %q", note)
	}
	if w := texts(b, ".warnings"); w != "" {
		t.Errorf("the page warns of %s", w)
	}
	look(b, page, "cluster")

	s.kill[0]()
	second.get("blobs/" + alone.Digest.String())
	if own := second.series(); own.sum("cluster_bytes_total", `place="tier"`) != float64(alone.Size) {
		t.Errorf("%v bytes came from the tier, want %d", own.sum("cluster_bytes_total", `place="tier"`), alone.Size)
	}
	await(t, "the page saying that a replica is silent", func() bool { return strings.Contains(second.html(), "was not heard of for") })
	look(b, page, "cluster-silent")
	await(t, "the page without the replica", func() bool { return !strings.Contains(second.html(), s.names[0]) })
	s.agrees(t, b, second, s.byName(1, 2)...)

	s.redis.Kill()
	second.get("blobs/" + s.blob(3).Digest.String())
	await(t, "the page saying that Redis is away", func() bool { return strings.Contains(second.html(), "Redis has been away") })
	s.agrees(t, b, second, second)
	if w := texts(b, ".warnings li"); !strings.HasPrefix(w, "Redis has been away for ") || !strings.Contains(w, "this replica works alone") {
		t.Errorf("without Redis the page warns of %s", w)
	}
	look(b, page, "cluster-without-redis")
	if err := s.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the page listing both replicas again", func() bool { return strings.Contains(second.html(), s.names[2]) })
	s.agrees(t, b, second, s.byName(1, 2)...)
	if w := texts(b, ".warnings"); w != "" {
		t.Errorf("with Redis again the page warns of %s", w)
	}
	b.Quiet(page)
}
