package tier_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
)

// eachStore runs a test with an empty store of each kind.
func eachStore(t *testing.T, test func(t *testing.T, s tier.Store)) {
	t.Run("dir", func(t *testing.T) {
		s, _ := newDir(t)
		test(t, s)
	})
	t.Run("s3", func(t *testing.T) {
		test(t, newS3(t, s3test.Start(t).Endpoint))
	})
}

const someName = "v1/sha256/ab/abcdef/0000000000000001"

func create(t *testing.T, s tier.Store, name string, data []byte) {
	t.Helper()
	if err := s.Create(t.Context(), name, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func fetch(s tier.Store, name string, off, n int64) ([]byte, int64, error) {
	r, size, err := s.Open(context.Background(), name, off, n)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return data, size, err
}

func names(t *testing.T, s tier.Store, folder string) (all []string) {
	t.Helper()
	err := s.List(t.Context(), folder, func(e tier.Entry) error {
		if age := time.Since(e.ModTime); age < -time.Minute || age > time.Hour {
			t.Errorf("%s was modified at %v", e.Name, e.ModTime)
		}
		all = append(all, fmt.Sprintf("%s %d", e.Name, e.Size))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func TestStoreKeepsObjects(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		if got := names(t, s, "v1/"); len(got) != 0 {
			t.Fatalf("an empty store has %q", got)
		}
		if _, _, err := fetch(s, someName, 0, 10); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("opening nothing: %v", err)
		}
		small, large := newBlob(1000, 1).data, newBlob(40<<20+7, 2).data // the large one is more than one part in S3
		create(t, s, someName, small)
		create(t, s, "v1/sha256/ab/abcdef/0000000000000002", large)
		create(t, s, "v1/sha256/cd/cdef/0000000000000001", small)
		want := []string{someName + " 1000", fmt.Sprintf("v1/sha256/ab/abcdef/0000000000000002 %d", len(large))}
		if got := names(t, s, "v1/sha256/ab/abcdef/"); !slices.Equal(got, want) {
			t.Fatalf("the folder has %q", got)
		}
		if got := names(t, s, "v1/"); len(got) != 3 {
			t.Fatalf("the store has %q", got)
		}
		for _, c := range []struct{ off, n int64 }{{0, 1000}, {0, 1}, {999, 1}, {17, 500}, {900, 1000}, {1000, 5}, {5000, 5}} {
			got, size, err := fetch(s, someName, c.off, c.n)
			from, to := min(c.off, 1000), min(c.off+c.n, 1000)
			if err != nil || size != 1000 || !bytes.Equal(got, small[from:to]) {
				t.Errorf("[%d,%d): %d bytes of %d: %v", c.off, c.off+c.n, len(got), size, err)
			}
		}
		got, _, err := fetch(s, "v1/sha256/ab/abcdef/0000000000000002", 0, int64(len(large)))
		if err != nil || !bytes.Equal(got, large) {
			t.Errorf("the large object has %d bytes, or wrong ones: %v", len(got), err)
		}
		create(t, s, "v1/empty", nil)
		if got, size, err := fetch(s, "v1/empty", 0, 10); len(got) != 0 || size != 0 || err != nil {
			t.Errorf("an empty object: %d bytes of %d: %v", len(got), size, err)
		}
		stop := errors.New("stop")
		if err := s.List(t.Context(), "v1/", func(tier.Entry) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("List goes on after an error: %v", err)
		}
		for range 2 {
			if err := s.Remove(t.Context(), someName); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := fetch(s, someName, 0, 10); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("opening what was removed: %v", err)
		}
		create(t, s, someName, small) // in a folder that may have gone
	})
}

func TestStoreReplacesNothing(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		for _, size := range []int{100, 20 << 20} {
			name := fmt.Sprintf("v1/sha256/ab/abcdef/%016x", size)
			first, second := newBlob(size, 1).data, newBlob(size, 2).data
			create(t, s, name, first)
			err := s.Create(t.Context(), name, bytes.NewReader(second), int64(size))
			if !errors.Is(err, fs.ErrExist) {
				t.Errorf("creating what is there: %v", err)
			}
			if got, _, err := fetch(s, name, 0, int64(size)); err != nil || !bytes.Equal(got, first) {
				t.Errorf("the object is not the first one any more: %v", err)
			}
		}
	})
}

// Of many who create an object at once one does, and nobody sees a part of it.
func TestStoreCreatesOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		data := newBlob(3<<20, 1).data
		var group sync.WaitGroup
		var created, ended atomic.Int64
		for range 4 {
			group.Go(func() {
				defer ended.Add(1)
				err := s.Create(t.Context(), someName, bytes.NewReader(data), int64(len(data)))
				if err == nil {
					created.Add(1)
				} else if !errors.Is(err, fs.ErrExist) {
					t.Error(err)
				}
			})
		}
		for ended.Load() < 4 {
			got, size, err := fetch(s, someName, 0, int64(len(data)))
			if !errors.Is(err, fs.ErrNotExist) && (err != nil || size != int64(len(data)) || !bytes.Equal(got, data)) {
				t.Errorf("a part was seen: %d bytes of %d: %v", len(got), size, err)
			}
		}
		group.Wait()
		if created.Load() != 1 {
			t.Errorf("%d created it", created.Load())
		}
	})
}

// An object whose reader fails, is short or is left does not appear, and leaves nothing.
func TestStoreCreatesWhole(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		broken := errors.New("broken source")
		for _, size := range []int64{1000, 40 << 20} {
			data := newBlob(int(size)-1, 1).data
			err := s.Create(t.Context(), someName, io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)), size)
			if !errors.Is(err, broken) {
				t.Errorf("a source of %d bytes breaks: %v", size, err)
			}
			if err := s.Create(t.Context(), someName, bytes.NewReader(data), size); err == nil {
				t.Errorf("a source that is short: no error")
			}
			ctx, cancel := context.WithCancel(t.Context())
			left := io.MultiReader(bytes.NewReader(data), readerFunc(func([]byte) (int, error) { cancel(); return 0, ctx.Err() }))
			if err := s.Create(ctx, someName, left, size); !errors.Is(err, context.Canceled) {
				t.Errorf("a writer that leaves: %v", err)
			}
			cancel()
		}
		if got := names(t, s, "v1/"); len(got) != 0 {
			t.Errorf("the store has %q", got)
		}
		removed, err := s.(tier.Tidier).Tidy(t.Context(), "v1/", time.Now().Add(time.Hour), func() {})
		if removed.Count != 0 || err != nil {
			t.Errorf("%+v was left: %v", removed, err)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
