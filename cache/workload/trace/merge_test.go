package trace_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// timed is a record of a model of merging.
type timed struct {
	uri string
	at  int // milliseconds
}

// merged is what Files must give: the files in order of the first of what is looked
// at; of each the earliest of those within the window, and of those of one time
// the file that begins first.
func merged(files [][]timed, window int) (out []timed, late int) {
	type file struct {
		first int
		rest  []timed
	}
	var order []file
	for _, f := range files {
		if len(f) > 0 {
			first := slices.MinFunc(f[:min(len(f), 256, window)], func(a, b timed) int { return a.at - b.at }).at
			order = append(order, file{first, f})
		}
	}
	slices.SortStableFunc(order, func(a, b file) int { return a.first - b.first })
	last := 0
	for {
		best, which := -1, 0
		for i, f := range order {
			if len(f.rest) == 0 {
				continue
			}
			at := 0
			for j := range f.rest[:min(len(f.rest), window)] {
				if f.rest[j].at < f.rest[at].at {
					at = j
				}
			}
			// A file is opened when it begins no later than all that are open.
			if best < 0 || f.rest[at].at < order[best].rest[which].at && f.first <= order[best].rest[which].at {
				best, which = i, at
			}
		}
		if best < 0 {
			return out, late
		}
		x := order[best].rest[which]
		order[best].rest = slices.Delete(order[best].rest, which, which+1)
		if len(out) > 0 && x.at < last {
			late++
			x.at = last
		}
		last = x.at
		out = append(out, x)
	}
}

// Random files, in every degree of disorder, are merged as the model says.
func TestMergeModel(t *testing.T) {
	dir := t.TempDir()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		window := []int{1, 2, 5, 40, 1000}[r.IntN(5)]
		var files [][]timed
		var names []string
		for i := range 1 + r.IntN(5) {
			var f []timed
			var text strings.Builder
			at := r.IntN(1000)
			disorder := []int{1, 20, 2000}[r.IntN(3)]
			for j := range r.IntN(400) {
				at += r.IntN(5)
				x := timed{fmt.Sprintf("f%d-%d", i, j), at + r.IntN(disorder)}
				f = append(f, x)
				fmt.Fprintf(&text, `{"http.request.uri":%q,"timestamp":%q}`, x.uri, time.UnixMilli(int64(x.at)).UTC().Format(trace.TimestampFormat))
			}
			files = append(files, f)
			if len(f) == 0 {
				text.WriteString("[]")
			}
			names = append(names, write(t, dir, fmt.Sprint(i), []byte(text.String())))
		}
		f, err := trace.Open(trace.Config{Location: dir, Files: names, Window: window})
		if err != nil {
			t.Fatal(err)
		}
		got := all(t, f)
		f.Close()
		want, late := merged(files, window)
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d requests, want %d", seed, len(got), len(want))
		}
		for i, x := range want {
			if got[i].URI != x.uri || got[i].Time.UnixMilli() != int64(x.at) || got[i].Delay != time.Duration(x.at-want[0].at)*time.Millisecond {
				t.Fatalf("seed %d: request %d is %+v, want %+v", seed, i, got[i], x)
			}
		}
		if s := f.Stats(); s.Late != uint64(late) || s.Records != uint64(len(want)) || s.Bytes != s.Of {
			t.Errorf("seed %d: %+v, want %d late", seed, s, late)
		}
	}
}

// Records without a time keep their place among those that have one.
func TestSomeWithoutTime(t *testing.T) {
	dir := t.TempDir()
	text := object("a") + line("b", 5) + object("c") + line("d", 9) + object("e") + line("f", 7)
	f, err := trace.Open(trace.Config{Location: dir, Files: []string{write(t, dir, "t", []byte(text))}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := ""
	for _, r := range all(t, f) {
		got += fmt.Sprintf("%s@%g ", r.URI, r.Delay.Seconds())
	}
	if want := "a@0 b@0 c@0 f@2 d@4 e@4 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What can be read but once is read but once.
func TestPipes(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i := range 3000 {
		text.WriteString(line("p", float64(i)))
	}
	wrote := make(chan error, 1)
	go func() {
		w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err == nil {
			_, err = io.WriteString(w, text.String())
			w.Close()
		}
		wrote <- err
	}()
	f, err := trace.Open(trace.Config{Location: dir, Files: []string{"pipe", write(t, dir, "file", []byte(line("f", 0.5)+line("f", 5.5)))}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := all(t, f)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if len(got) != 3002 || got[1].URI != "f" || got[7].URI != "f" {
		t.Errorf("%d requests, %v", len(got), got[:min(len(got), 9)])
	}
}

// An error in the midst of a file comes after all requests before it, and stays.
func TestErrorStays(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	for i := range 1000 {
		text.WriteString(line("a", float64(i)) + "\n")
	}
	f, err := trace.Open(trace.Config{Location: dir, Window: 10, Files: []string{write(t, dir, "t", []byte(text.String()+"5")), write(t, dir, "u", []byte(line("b", 3)))}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = f.Next()
	}
	for range 2 {
		if _, again := f.Next(); again != err || !strings.Contains(err.Error(), "t: record 1001 (line 1001)") {
			t.Errorf("%v, then %v", err, again)
		}
	}
	before := f.Stats()
	f.Close()
	f.Close()
	if s := f.Stats(); s != before || s.Records < 990 || s.Bytes < int64(text.Len()) {
		t.Errorf("%+v before it was closed, %+v after", before, s)
	}
	if _, again := f.Next(); again != err {
		t.Errorf("closed: %v", again)
	}
}

// million makes a file of that many records and returns its name.
func million(t testing.TB, dir string, n int) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "million.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2017, 6, 20, 0, 0, 0, 0, time.UTC)
	for i := range n {
		fmt.Fprintf(z, `{"host":"dc118836","http.request.duration":1.005269323,"http.request.method":"GET","http.request.remoteaddr":"%08x","http.request.uri":"v2/4715bf52/437c49db/blobs/%08x","http.request.useragent":"docker/17.03.1-ce go/go1.7.5 git-commit/c6d412e kernel/4.4.0-78-generic os/linux arch/amd64","http.response.status":200,"http.response.written":9576,"id":"ed29d65dbd","timestamp":%q}`+"\n",
			i%5000, i, begin.Add(time.Duration(i)*300*time.Millisecond).Format(trace.TimestampFormat))
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return "million.zst"
}

// Memory does not go by the length of a trace.
func TestConstantMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("a million records take seconds")
	}
	const n = 1_000_000
	dir := t.TempDir()
	f, err := trace.Open(trace.Config{Location: dir, Files: []string{million(t, dir, n)}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var at [2]uint64 // bytes in use after a tenth and nine tenths
	for i := range n {
		if _, err := f.Next(); err != nil {
			t.Fatal(err)
		}
		if i == n/10 || i == n/10*9 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			at[i/(n/2)] = m.HeapAlloc
		}
	}
	if _, err := f.Next(); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
	t.Logf("%d MiB after a tenth, %d MiB after nine", at[0]>>20, at[1]>>20)
	if at[1] > at[0]+4<<20 || at[1] > 64<<20 {
		t.Errorf("%d bytes after a tenth, %d after nine", at[0], at[1])
	}
}

// drain reads a file to its end.
func drain(b *testing.B, dir, name string) {
	f, err := trace.Open(trace.Config{Location: dir, Files: []string{name}})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Next()
	}
}

// BenchmarkFiles reads compressed records, with their order.
func BenchmarkFiles(b *testing.B) {
	dir := b.TempDir()
	name := million(b, dir, 200_000)
	b.ReportAllocs()
	for b.Loop() {
		drain(b, dir, name)
	}
	b.ReportMetric(float64(b.N)*200_000/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkWrongOrder reads two days that are in the wrong order in their file.
func BenchmarkWrongOrder(b *testing.B) {
	dir := b.TempDir()
	var text strings.Builder
	for day := range 2 {
		for i := range 50_000 {
			text.WriteString(line("v2/a/blobs/b", float64((1-day)*86400+i)))
		}
	}
	name := write(b, dir, "t", []byte(text.String()))
	for b.Loop() {
		drain(b, dir, name)
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "records/s")
}
