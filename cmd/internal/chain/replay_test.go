package chain_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/cmd/internal/chain"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/tracelayer"
)

// recorded is an image of three layers, the first of which has no chunk table,
// with a trace layer whose plan has all of them.
type recorded struct {
	host     string
	layers   []ocispec.Descriptor
	data     [][]byte
	plan     *tracelayer.Plan
	trace    backstore.TraceLayer
	members  []byte // the data
	requests map[digest.Digest]*atomic.Int64
	answer   func(d digest.Digest, data []byte) []byte
}

func newRecorded(t *testing.T) *recorded {
	t.Helper()
	r := &recorded{plan: &tracelayer.Plan{}, requests: make(map[digest.Digest]*atomic.Int64)}
	for i, name := range []string{"L2.lz4-4k.tar", "L0.lz4-4k.tar", "L1.zstd-64k.tar"} {
		data, desc := withTable(t, name)
		if i == 0 {
			desc.Annotations = nil
		}
		r.layers, r.data = append(r.layers, desc), append(r.data, data)
		r.plan.Layers = append(r.plan.Layers, tracelayer.PlanLayer{Digest: desc.Digest, Size: desc.Size})
		if i > 0 { // what verifies the layer comes first
			table := tableOf(t, desc)
			r.add(t, i, table.Offset, table.Size)
		}
	}
	for i, data := range r.data {
		end := int64(len(data))
		if i > 0 {
			end = tableOf(t, r.layers[i]).Offset - 512
		}
		for off := int64(0); off < end; off += 20_000 {
			r.add(t, i, off, min(20_000, end-off))
		}
	}
	r.pack(t)
	blobs := map[digest.Digest][]byte{}
	for i, l := range r.layers {
		blobs[l.Digest] = r.data[i]
		r.requests[l.Digest] = new(atomic.Int64)
	}
	r.requests[r.trace.Layer.Digest] = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		d := digest.Digest(q.URL.Path[strings.LastIndex(q.URL.Path, "/")+1:])
		data, ok := blobs[d]
		if !ok {
			data = r.members
		}
		if r.answer != nil {
			data = r.answer(d, data)
		}
		r.requests[d].Add(1)
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	r.host = strings.TrimPrefix(s.URL, "http://")
	return r
}

func (r *recorded) add(t *testing.T, layer int, off, n int64) {
	t.Helper()
	p := r.data[layer][off : off+n]
	r.plan.Extents = append(r.plan.Extents, tracelayer.Extent{Layer: layer, Off: off, Size: n, Sum: sha256.Sum256(p), Stored: n})
}

// dataMember returns the data of the plan.
func (r *recorded) dataMember() (out []byte) {
	for _, e := range r.plan.Extents {
		out = append(out, r.data[e.Layer][e.Off:e.Off+e.Size]...)
	}
	return out
}

// pack makes the trace layer.
func (r *recorded) pack(t *testing.T) {
	t.Helper()
	plan, err := r.plan.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	data := r.dataMember()
	info, err := tracelayer.WriteLayer(&layer, tracelayer.Contents{
		Slot: tracelayer.Trace{}.Encode(), Plan: plan, Data: bytes.NewReader(data), DataSize: int64(len(data)),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.members = layer.Bytes()
	r.trace = backstore.TraceLayer{Layer: backstore.Layer{Digest: info.Digest, Size: info.Size}, Plan: info.Plan}
}

func (r *recorded) ref() string { return r.host + "/app:1" }

// layerRequests returns the number of requests for layers with tables.
func (r *recorded) layerRequests() int64 {
	return r.requests[r.layers[1].Digest].Load() + r.requests[r.layers[2].Digest].Load()
}

// check reads all of all layers and fails the test if a byte is wrong.
func (r *recorded) check(t *testing.T, c *chain.Chain) {
	t.Helper()
	for i, l := range r.layers {
		b := openBlob(t, c, r.ref(), l)
		if read(t, b, len(r.data[i]), 0) != string(r.data[i]) {
			t.Errorf("layer %d reads wrong", i)
		}
	}
}

// One request for the trace layer brings what is verified, others what is not;
// reading the layers then takes none.
func TestReplay(t *testing.T) {
	r := newRecorded(t)
	var origin counter
	c := newChain(t, chain.Config{Retry: tries, OriginReads: &origin})
	s, err := c.Replay(t.Context(), r.ref(), r.trace, r.plan, r.layers)
	if err != nil || s.Prefetched.Extents != int64(len(r.plan.Extents)) || s.Streams != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if n := r.layerRequests(); n != 0 {
		t.Errorf("%d requests for layers with tables", n)
	}
	if n := r.requests[r.layers[0].Digest].Load(); n == 0 || n != origin.Load() {
		t.Errorf("%d requests for the layer without, %d reads seen", n, origin.Load())
	}
	for i, l := range r.layers {
		for _, e := range r.plan.Extents {
			if e.Layer == i && !blob.Present(openBlob(t, c, r.ref(), l), e.Off, e.Size) {
				t.Errorf("layer %d has nothing at %d", i, e.Off)
			}
		}
	}
	r.check(t, c)
	s, err = c.Replay(t.Context(), r.ref(), r.trace, r.plan, r.layers)
	if err != nil || s.Streams+s.Ranges != 0 || s.Present.Extents != int64(len(r.plan.Extents)) {
		t.Errorf("again: %+v, %v", s, err)
	}
}

// The members of a trace layer that was unpacked do as well; a file that is not
// what the plan says is left alone.
func TestReplayLocal(t *testing.T) {
	r := newRecorded(t)
	dir := t.TempDir()
	r.trace.Dir = dir
	remote := r.trace.Layer.Digest
	r.trace.Layer = backstore.Layer{}
	path := filepath.Join(dir, tracelayer.DataName)
	for _, c := range []struct {
		data    []byte
		streams int64
	}{{r.dataMember(), 1}, {r.dataMember()[:100], 0}, {nil, 0}} {
		if err := os.WriteFile(path, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		ch := newChain(t, chain.Config{Retry: tries})
		s, err := ch.Replay(t.Context(), r.ref(), r.trace, r.plan, r.layers)
		if err != nil || s.Prefetched.Extents != int64(len(r.plan.Extents)) || s.Streams != c.streams {
			t.Errorf("%d bytes of data: %+v, %v", len(c.data), s, err)
		}
		r.check(t, ch)
	}
	if r.requests[remote].Load() != 0 {
		t.Error("the trace layer was fetched")
	}
}

// Who made a trace layer does not decide what a layer's bytes are: wrong ones,
// about which the plan is right or lies, too, are not cached and reach nobody.
func TestReplayTampered(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, r *recorded){
		"data": func(_ *testing.T, r *recorded) {
			at := len(r.members) - 1024 - 30_000
			for i := range 25_000 {
				r.members[at+i] ^= 0xff
			}
		},
		"data and plan": func(t *testing.T, r *recorded) {
			for k := range r.plan.Extents {
				e := &r.plan.Extents[k]
				p := bytes.Clone(r.data[e.Layer][e.Off : e.Off+e.Size])
				p[e.Size/2] ^= 0xff
				e.Sum = sha256.Sum256(p)
			}
			good := make([][]byte, len(r.data))
			for i := range r.data {
				good[i] = bytes.Clone(r.data[i])
			}
			for _, e := range r.plan.Extents {
				r.data[e.Layer][e.Off+e.Size/2] ^= 0xff
			}
			r.pack(t)
			r.requests[r.trace.Layer.Digest] = new(atomic.Int64)
			for i := range r.data { // what the registry has stays as it is
				copy(r.data[i], good[i])
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			spoil(t, r)
			var seen failures
			c := newChain(t, chain.Config{Retry: tries, VerifyFailures: &seen})
			s, err := c.Replay(t.Context(), r.ref(), r.trace, r.plan, r.layers)
			if err != nil || s.Corrupt.Extents == 0 {
				t.Errorf("%+v, %v", s, err)
			}
			r.check(t, c)
			// Readers may come to what is wrong first, which then is not.
			c = newChain(t, chain.Config{Retry: tries, VerifyFailures: &seen})
			stop := r.read(t, c)
			_, err = c.Replay(t.Context(), r.ref(), r.trace, r.plan, r.layers)
			stop()
			if err != nil {
				t.Error(err)
			}
			r.check(t, c)
			for _, origin := range seen.origins() {
				if origin != "trace layer" && origin != "" {
					t.Errorf("%s is blamed", origin)
				}
			}
		})
	}
}

// read reads all layers but the lowest, all over and again and again, until the
// function returned is called.
func (r *recorded) read(t *testing.T, c *chain.Chain) (stop func()) {
	var readers sync.WaitGroup
	done := make(chan struct{})
	for i, l := range r.layers[1:] {
		b := openBlob(t, c, r.ref(), l)
		readers.Go(func() {
			for off := int64(0); ; off = (off + 4099) % (b.Size() - 600) {
				select {
				case <-done:
					return
				default:
				}
				p := make([]byte, 600)
				if n, err := b.ReadAt(t.Context(), p, off); n != len(p) || !bytes.Equal(p, r.data[i+1][off:off+600]) {
					t.Errorf("layer %d at %d: %d bytes, wrong or not, %v", i+1, off, n, err)
					return
				}
			}
		})
	}
	return func() {
		close(done)
		readers.Wait()
	}
}

// A trace layer that can't be had, of a plan that is partly of another image,
// harms nobody.
func TestReplayAbsent(t *testing.T) {
	r := newRecorded(t)
	trace := r.trace.Layer.Digest
	r.answer = func(d digest.Digest, data []byte) []byte {
		if d == trace {
			return nil
		}
		return data
	}
	c := newChain(t, chain.Config{Retry: tries})
	s, err := c.Replay(t.Context(), r.ref(), r.trace, r.plan, r.layers[:2])
	if err != nil || s.Invalid.Extents == 0 || s.Prefetched.Extents == 0 || s.Prefetched.Extents+s.Invalid.Extents != int64(len(r.plan.Extents)) {
		t.Errorf("%+v, %v", s, err)
	}
	r.check(t, c)
}

// Two replays of one plan are one; when the first is given up, the second goes on.
func TestReplayTwice(t *testing.T) {
	r := newRecorded(t)
	arrived, answer := make(chan struct{}, 10), make(chan struct{})
	trace := r.trace.Layer.Digest
	r.answer = func(d digest.Digest, data []byte) []byte {
		if d == trace {
			arrived <- struct{}{}
			<-answer
		}
		return data
	}
	c := newChain(t, chain.Config{Retry: tries})
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	replay := func(ctx context.Context, done chan error) {
		_, err := c.Replay(ctx, r.ref(), r.trace, r.plan, r.layers)
		done <- err
	}
	go replay(ctx, first)
	<-arrived
	if c.Quiet(r.ref()) != 0 {
		t.Error("the registry is quiet although a start is replayed")
	}
	go replay(t.Context(), second)
	for c.Waiting() == 0 && len(arrived) == 0 {
		runtime.Gosched()
	}
	if len(arrived) > 0 {
		t.Error("two replays of one plan run at a time")
	}
	cancel()
	if err := <-first; err == nil {
		t.Error("a replay that was given up has no error")
	}
	close(answer)
	if err := <-second; err != nil {
		t.Error(err)
	}
	r.check(t, c)
}

// All replays at a time take no more than a part of the cache, one no more than
// half, and each gets something.
func TestReplayBudget(t *testing.T) {
	const most = 400
	take := chain.NewBudget(most)
	var all int64
	var back []func()
	for i, want := range []int64{most, most, 10, most, most, most, most} {
		n, giveBack := take(want)
		if all += n; n < 1 || n > min(want, most/2) || all > most*3/4+5 {
			t.Errorf("replay %d gets %d of %d bytes, all have %d", i, n, want, all)
		}
		back = append(back, giveBack)
	}
	for _, f := range back {
		f()
	}
	if n, _ := take(most); n != most/2 {
		t.Errorf("%d bytes when all have ended", n)
	}
	if n, _ := chain.NewBudget(0)(most); n != 0 {
		t.Errorf("a limit of %d bytes without one", n)
	}
}

// A plan for more than its share is replayed up to that.
func TestReplayShare(t *testing.T) {
	r := newRecorded(t)
	c := newChain(t, chain.Config{Retry: tries, PrefetchBudget: r.plan.Size()})
	s, err := c.Replay(t.Context(), r.ref(), r.trace, r.plan, r.layers)
	if err != nil || s.Budget.Extents == 0 || s.Prefetched.Bytes == 0 || s.Prefetched.Bytes > r.plan.Size()/2 {
		t.Errorf("of %d bytes: %+v, %v", r.plan.Size(), s, err)
	}
	r.check(t, c)
}
