package index_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/index"
	"github.com/reprise-containers/reprise/cache/internal/disk/disktest"
)

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(7, seed)) }

// TestCrashHistory stops the disk at every write step, kills or cuts the power, and
// starts again twice. Each link is then what it was when it was last flushed or
// became later, and the second start finds nothing that the first left undone.
func TestCrashHistory(t *testing.T) {
	for n := 1; ; n++ {
		files, count := stopping(n)
		i := openOn(t, files, index.Config{})
		r := rng(uint64(n))
		may := make(map[int][]int) // versions by number, -1 is none
		for k := range 6 {
			may[k] = []int{-1}
		}
		for round := range 6 {
			now := make(map[int]int)
			for range 4 {
				k := r.IntN(6)
				if now[k] = round; r.IntN(4) == 0 {
					now[k] = -1
					i.Remove(tag(k))
				} else {
					put(t, i, linkOf(k, round))
				}
				may[k] = append(may[k], now[k])
			}
			if i.Flush() == nil {
				for k, list := range may {
					may[k] = list[len(list)-1:]
				}
			}
		}
		for name, left := range map[string]*disktest.FS{"kill": files.Kill(), "power cut": files.Crash(r)} {
			restart(t, left, func(k int, version int) {
				if !slices.Contains(may[k], version) {
					t.Fatalf("after a %s at step %d, link %d is of version %d, may be %v", name, n, k, version, may[k])
				}
			})
		}
		if int(count.Load()) < n {
			return
		}
	}
}

// restart opens an index twice and reports what is in there.
func restart(t *testing.T, files *disktest.FS, tell func(k, version int)) {
	t.Helper()
	versions := func(i *index.Index) (list [6]int) {
		for k := range list {
			list[k] = -1
			if l, ok := i.Lookup(tag(k)); ok {
				list[k] = int(l.FetchedAt.Unix() - 1_700_000_000)
				if !same(l, linkOf(k, list[k])) {
					t.Fatalf("link %d is mixed: %+v", k, l)
				}
			}
		}
		return list
	}
	i := openOn(t, files, index.Config{})
	before := versions(i)
	scan(t, i)
	if after := versions(i); before != after {
		t.Fatalf("versions %v before the scan, %v after it", before, after)
	}
	for k, version := range before {
		tell(k, version)
	}
	if _, err := i.Sweep(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	j := openOn(t, files, index.Config{})
	scan(t, j)
	if again := versions(j); again != before {
		t.Fatalf("versions %v at the first start, %v at the second", before, again)
	}
	if s, err := j.Sweep(t.Context(), 0); err != nil || s != (index.Swept{}) {
		t.Fatalf("left over at the second start: %+v, %v", s, err)
	}
}

// FuzzLink reads files as somebody may have made them. What is taken for a link has
// the ID that was asked for and is the same after it was written again.
func FuzzLink(f *testing.F) {
	good, err := index.Encode(linkOf(1, 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(strings.Replace(string(good), "sha256:", "sha256:../", 1)))
	f.Add([]byte(strings.Replace(string(good), `"version":1`, `"version":2`, 1)))
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := index.Parse(data, tag(1).ID())
		if err != nil {
			return
		}
		if l.Key != tag(1) || l.Descriptor.Size < 0 || l.Descriptor.Digest != "" && l.Descriptor.Digest.Validate() != nil {
			t.Fatalf("%+v is taken for the link of %v", l, tag(1))
		}
		again, err := index.Encode(l)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := index.Parse(again, tag(1).ID()); err != nil || m.Key != l.Key || m.Descriptor.Digest != l.Descriptor.Digest {
			t.Fatalf("%+v is read again as %+v, %v", l, m, err)
		}
	})
}
