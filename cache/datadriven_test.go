package cache_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/reprise-containers/reprise/cache"
	"github.com/reprise-containers/reprise/cache/cachetest"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

// script is the state of one test file. Its commands:
//
//	open [policy=P] [max=N] [merge=N]   opens the cache in an empty folder
//	blob NAME size=N                    makes a blob
//	read NAME off=N len=N               reads, and waits until it is stored;
//	                                    prints what was fetched, or "hit"
//	held NAME                           prints the ranges held
//	discard NAME off=N len=N            drops a range
//	fail NAME reads=N                   lets the next N reads of the origin fail
//	restart                             closes the cache and opens it again
//	stats                               prints counters
//
// Every read is compared with the blob.
type script struct {
	cfg   cache.Config
	c     *cache.Cache
	blobs map[string]*origin
}

type origin struct {
	*blobtest.Faulty
	data []byte
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{cfg: cache.Config{Dir: t.TempDir()}, blobs: make(map[string]*origin)}
		defer func() { s.c.Close() }()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out, err := s.run(t, d)
			if err != nil {
				return out + "error: " + err.Error() + "\n"
			}
			return out
		})
	})
}

func (s *script) run(t *testing.T, d *datadriven.TestData) (string, error) {
	var off, n, size int
	d.MaybeScanArgs(t, "off", &off)
	d.MaybeScanArgs(t, "len", &n)
	switch d.Cmd {
	case "open":
		d.MaybeScanArgs(t, "policy", &s.cfg.Policy)
		d.MaybeScanArgs(t, "max", &s.cfg.MaxBytes)
		d.MaybeScanArgs(t, "merge", &s.cfg.MergeGap)
		return "", s.open()
	case "restart":
		if err := s.c.Close(); err != nil {
			return "", err
		}
		return "", s.open()
	case "stats":
		return s.stats(), nil
	case "blob":
		d.ScanArgs(t, "size", &size)
		data := cachetest.Random(size, uint64(len(s.blobs)))
		s.blobs[d.CmdArgs[0].Key] = &origin{blobtest.NewFaulty(blobtest.Bytes(data)), data}
		return "", nil
	}
	o := s.blobs[d.CmdArgs[0].Key]
	switch d.Cmd {
	case "read":
		return s.read(t, o, off, n)
	case "held":
		return held(s.c.Blob(o)), nil
	case "discard":
		blob.Discard(s.c.Blob(o), int64(off), int64(n))
		return "", nil
	case "fail":
		d.ScanArgs(t, "reads", &n)
		o.Script(blobtest.Fault{Count: n, Fail: true})
		return "", nil
	}
	return "", fmt.Errorf("unknown command %s", d.Cmd)
}

func (s *script) open() (err error) {
	s.c, err = cache.Open(s.cfg)
	return err
}

func (s *script) stats() string {
	n := s.c.Stats()
	return fmt.Sprintf("hits %d, misses %d, fetched %d, stored %d, evicted %d, dropped %d, forgotten %d, blobs %d\n",
		n.Hits, n.Misses, n.BytesFetched, n.BytesStored, n.BytesEvicted, n.DroppedStores, n.Forgotten, n.Blobs)
}

func (s *script) read(t *testing.T, o *origin, off, n int) (string, error) {
	before := len(o.Reads())
	err := cachetest.Check(t.Context(), s.c.Blob(o), o.data, off, n)
	reads := o.Reads()[before:]
	slices.SortFunc(reads, func(a, b blobtest.Read) int { return int(a.Off - b.Off) })
	var out strings.Builder
	for _, r := range reads {
		fmt.Fprintf(&out, "fetch [%d,%d)\n", r.Off, r.Off+int64(r.Len))
	}
	if len(reads) == 0 {
		out.WriteString("hit\n")
	}
	if err != nil {
		return out.String(), err
	}
	return out.String(), s.c.Sync(t.Context())
}

// held lists the ranges of b that are present.
// held prints the ranges held of b.
func held(b blob.Blob) string {
	var out strings.Builder
	for off, end := range cache.Held(b) {
		fmt.Fprintf(&out, "[%d,%d)\n", off, end)
	}
	if out.Len() == 0 {
		return "nothing\n"
	}
	return out.String()
}
