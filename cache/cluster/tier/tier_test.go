package tier_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
)

// folder is that of secret.
const folder = "v1-f5c19d67/"

func objectName(b blob, generation uint64) string {
	hex := b.digest.Encoded()
	return fmt.Sprintf(folder+"%s/%s/%s/%016x", b.digest.Algorithm(), hex[:2], hex, generation)
}

func TestTierFindsTheNewest(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		l, b := newTier(t, s), newBlob(100_000, 1)
		if _, found, err := l.Find(t.Context(), b.digest); found || err != nil {
			t.Fatalf("found %v in an empty store: %v", found, err)
		}
		for _, generation := range []uint64{7, 1 << 40, 12} {
			put(t, l, b, generation)
		}
		put(t, l, newBlob(1000, 2), 1<<50)
		create(t, s, strings.TrimSuffix(objectName(b, 0), "0000000000000000")+"ffffffffffffffff.old", []byte("foreign"))
		create(t, s, objectName(b, 1<<60), []byte("no frame"))
		o, found, err := l.Find(t.Context(), b.digest)
		if want := b.object(1 << 40); o != want || !found || err != nil {
			t.Fatalf("found %+v, want %+v: %v", o, want, err)
		}
		for _, generation := range []uint64{1 << 40, 1 << 40} {
			if err := l.Remove(t.Context(), b.digest, generation); err != nil {
				t.Fatal(err)
			}
		}
		if o, _, _ := l.Find(t.Context(), b.digest); o != b.object(12) {
			t.Fatalf("found %+v after the newest was removed", o)
		}
		if _, err := read(t, l, b, 1<<40, 0, 10); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("reading what was removed: %v", err)
		}
		if s := l.Stats(); s.Puts != 4 || s.Finds != 3 || s.Reading.Away || s.Damaged != 0 || s.ReadErrors != 0 {
			t.Errorf("stats are %+v", s)
		}
	})
}

// Ranges are those of the blob, in whichever way they are read.
func TestTierReadsRanges(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		l, random := newTier(t, s), rand.New(rand.NewPCG(1, 2))
		for i, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 5*chunk + 4711} {
			b := newBlob(size, uint64(i))
			put(t, l, b, 1)
			edges := []int64{0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, int64(size) - 1, int64(size), random.Int64N(int64(size) + 1)}
			for _, off := range edges {
				for _, end := range edges {
					if off < 0 || end < off || end > int64(size) {
						continue
					}
					got, err := read(t, l, b, 1, off, end-off)
					if err != nil || !bytes.Equal(got, b.data[off:end]) {
						t.Fatalf("[%d,%d) of %d: %d bytes: %v", off, end, size, len(got), err)
					}
				}
			}
			if _, err := read(t, l, b, 1, 1, int64(size)); err == nil {
				t.Errorf("a range beyond the end: no error")
			}
		}
		b := newBlob(5*chunk+4711, 6)
		r, err := l.Open(t.Context(), b.digest, b.object(1), 100, int64(len(b.data))-200)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := iotest.TestReader(r, b.data[100:len(b.data)-100]); err != nil {
			t.Error(err)
		}
	})
}

// Reads of all sizes and WriteTo may follow each other.
func TestTierReadsInPieces(t *testing.T) {
	l, b, random := newTier(t, newMemory()), newBlob(9*chunk+5, 1), rand.New(rand.NewPCG(3, 4))
	put(t, l, b, 1)
	for range 200 {
		off := random.Int64N(int64(len(b.data)))
		n := random.Int64N(int64(len(b.data)) - off + 1)
		r, err := l.Open(t.Context(), b.digest, b.object(1), off, n)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for range random.IntN(8) {
			m, err := r.Read(make([]byte, 0))
			if m != 0 || err != nil {
				t.Fatalf("reading nothing: %d, %v", m, err)
			}
			p := make([]byte, 1+random.IntN(3*chunk))
			m, err = r.Read(p)
			got.Write(p[:m])
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		if _, err := io.Copy(&got, r); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), b.data[off:off+n]) {
			t.Fatalf("[%d,%d) is wrong", off, off+n)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("closing again: %v", err)
		}
		if _, err := r.Read(make([]byte, 1)); err == nil {
			t.Error("reading after closing")
		}
	}
}

func TestPutWantsTheDigest(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		l := newTier(t, s)
		for _, size := range []int{0, 1000, chunk, 40 << 20} {
			b := newBlob(size, 1)
			other := blob{b.data, digest.FromString("other")}
			err := l.Put(t.Context(), other.digest, other.object(1), bytes.NewReader(other.data))
			if !errors.Is(err, tier.ErrContent) {
				t.Errorf("%d bytes of another digest: %v", size, err)
			}
			err = l.Put(t.Context(), b.digest, tier.Object{Generation: 1, Size: int64(size) + 1}, bytes.NewReader(b.data))
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d bytes are said to be one more: %v", size, err)
			}
		}
		if got := names(t, s, folder); len(got) != 0 {
			t.Errorf("stored all the same: %q", got)
		}
		if s := l.Stats(); s.Writing.Away || s.PutErrors != 8 {
			t.Errorf("the source's errors count as the store's: %+v", s)
		}
	})
}

func TestPutTwiceAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		l, b := newTier(t, s), newBlob(20<<20, 1)
		var group sync.WaitGroup
		for i := range 4 {
			generation := uint64(1 + i/2) // two of each
			group.Go(func() {
				err := l.Put(t.Context(), b.digest, b.object(generation), bytes.NewReader(b.data))
				if err != nil && !errors.Is(err, fs.ErrExist) {
					t.Error(err)
				}
			})
		}
		group.Wait()
		for _, generation := range []uint64{1, 2} {
			if got, err := read(t, l, b, generation, 0, int64(len(b.data))); err != nil || !bytes.Equal(got, b.data) {
				t.Errorf("generation %d: %d bytes: %v", generation, len(got), err)
			}
		}
		if got := names(t, s, ""); len(got) != 2 {
			t.Errorf("the store has %q", got)
		}
	})
}

func TestNew(t *testing.T) {
	if _, err := tier.New(newMemory(), tier.Config{Secret: secret[:31]}); err == nil {
		t.Error("a short secret is taken")
	}
	if _, err := tier.NewDir(""); err == nil {
		t.Error("no directory is taken")
	}
	for _, c := range []tier.S3Config{{Endpoint: "host"}, {Endpoint: "http://host/path", Bucket: "b"}} {
		if _, err := tier.NewS3(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	l := newTier(t, newMemory())
	for _, d := range []digest.Digest{"", "sha256:ab", "md5:" + digest.Digest(strings.Repeat("a", 32)), "sha256:../../" + digest.Digest(strings.Repeat("a", 58))} {
		_, _, err := l.Find(t.Context(), d)
		_, openErr := l.Open(t.Context(), d, tier.Object{Size: 1}, 0, 1)
		putErr := l.Put(t.Context(), d, tier.Object{Size: 1}, strings.NewReader("1"))
		if err == nil || openErr == nil || putErr == nil || l.Remove(t.Context(), d, 1) == nil {
			t.Errorf("%q is taken", d)
		}
	}
}

// A prefix is a folder, with a slash at its end or without.
func TestPrefix(t *testing.T) {
	cfg := s3Config(s3test.Start(t).Endpoint)
	b := newBlob(1000, 1)
	for i, prefix := range []string{"", "some/where", "some/where/"} {
		cfg.Prefix = prefix
		s, err := tier.NewS3(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			put(t, newTier(t, s), b, 1)
		}
		if got, err := read(t, newTier(t, s), b, 1, 0, 1000); err != nil || !bytes.Equal(got, b.data) {
			t.Errorf("%q: %v", prefix, err)
		}
		if got := names(t, s, folder); len(got) != 1 {
			t.Errorf("%q has %q", prefix, got)
		}
	}
}

// The server may be away when a replica starts, and be there later.
func TestS3MayComeLater(t *testing.T) {
	server := s3test.Start(t)
	server.Stop()
	l, err := tier.New(newS3(t, server.Endpoint), tier.Config{Secret: secret, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	b := newBlob(1000, 1)
	if _, _, err := l.Find(t.Context(), b.digest); err == nil {
		t.Fatal("found in a server that is away")
	}
	server.Start()
	l = newTier(t, newS3(t, server.Endpoint))
	put(t, l, b, 1)
	server.Kill()
	server.Start()
	if got, err := read(t, l, b, 1, 0, 1000); err != nil || !bytes.Equal(got, b.data) {
		t.Fatalf("after a kill of the server: %v", err)
	}
}
