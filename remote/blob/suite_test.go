package blob_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/blobtest"
)

func TestSuite(t *testing.T) {
	quick := blob.RetryConfig{Base: time.Microsecond, Max: time.Microsecond}
	for name, open := range map[string]func(*testing.T, []byte) blob.Blob{
		"Bytes": func(_ *testing.T, data []byte) blob.Blob { return blobtest.Bytes(data) },
		"File": func(t *testing.T, data []byte) blob.Blob {
			path := filepath.Join(t.TempDir(), "blob")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := blob.OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return f
		},
		"Coalesce": func(_ *testing.T, data []byte) blob.Blob { return blob.Coalesce(blobtest.Bytes(data)) },
		"Limit": func(_ *testing.T, data []byte) blob.Blob {
			return blob.NewLimiter(blob.LimitConfig{Requests: 2}).Limit(blobtest.Bytes(data))
		},
		"Observe": func(_ *testing.T, data []byte) blob.Blob {
			return blob.Observe(blobtest.Bytes(data), blob.ObserverFunc(
				func(int, time.Duration, error, blob.Priority) {}))
		},
		"Retry": func(_ *testing.T, data []byte) blob.Blob {
			return blob.Retry(blobtest.NewFaulty(blobtest.Bytes(data),
				blobtest.Fault{Every: 2, Fail: true},
				blobtest.Fault{Every: 3, Truncate: 100}), quick)
		},
		"Chain": func(_ *testing.T, data []byte) blob.Blob {
			faulty := blobtest.NewFaulty(blobtest.Bytes(data), blobtest.Fault{Every: 3, Fail: true})
			limited := blob.NewLimiter(blob.LimitConfig{Requests: 3}).Limit(faulty)
			return blob.Coalesce(blob.Retry(limited, quick))
		},
	} {
		t.Run(name, func(t *testing.T) { blobtest.Run(t, open) })
	}
}

// present is a blob that holds the first half of its bytes.
type present struct {
	blob.Blob
	discarded *int64
}

func (p present) Present(off, n int64) bool { return off+n <= p.Size()/2 }

func (p present) Discard(_, n int64) { *p.discarded += n }

func TestAbilitiesPassThrough(t *testing.T) {
	plain := blobtest.Bytes(make([]byte, 100))
	for name, decorate := range map[string]func(blob.Blob) blob.Blob{
		"Coalesce": blob.Coalesce,
		"Retry":    func(b blob.Blob) blob.Blob { return blob.Retry(b, blob.RetryConfig{}) },
		"Limit":    blob.NewLimiter(blob.LimitConfig{}).Limit,
		"Stage":    func(b blob.Blob) blob.Blob { return blob.NewStage(b, "elsewhere") },
		"Observe":  func(b blob.Blob) blob.Blob { return blob.Observe(b, nil) },
	} {
		var discarded int64
		d := decorate(present{plain, &discarded})
		if blob.Discard(d, 10, 20); discarded != 20 {
			t.Errorf("%s does not pass Discard down", name)
		}
		if !blob.Present(d, 0, 50) || blob.Present(d, 0, 51) {
			t.Errorf("%s does not pass Present down", name)
		}
		if blob.Present(decorate(plain), 0, 1) {
			t.Errorf("%s of a blob that holds nothing says present", name)
		}
	}
}
