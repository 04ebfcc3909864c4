package tier_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

// at is when a test's objects are put, in hours ago.
func (m *memory) at(hours float64, name string, size int) {
	m.objects[name] = make([]byte, size)
	m.times[name] = time.Now().Add(-time.Duration(hours * float64(time.Hour)))
}

func (m *memory) left() (all []string) {
	for name := range m.objects {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func TestSweepTakesWhatIsSuperseded(t *testing.T) {
	m := newMemory()
	l, a, b := newTier(t, m), newBlob(1, 1), newBlob(1, 2)
	m.at(9, objectName(a, 1), 1000)
	m.at(5, objectName(a, 2), 1000)
	m.at(0.5, objectName(a, 3), 1000) // 2 was superseded half an hour ago
	m.at(99, objectName(b, 9), 2000)
	foreign := []string{folder + "readme", folder + "sha256/ab/x/1", objectName(b, 9) + ".bak", folder + strings.ToUpper(strings.TrimPrefix(objectName(b, 9), folder)), "v2/sha256/x", "v1/" + strings.TrimPrefix(objectName(b, 1), folder)}
	for _, name := range foreign {
		m.at(99, name, 500)
	}
	m.at(1, objectName(b, 10), 7) // no object is so small
	report, err := l.Sweep(t.Context(), tier.SweepConfig{})
	want := tier.SweepReport{Objects: 3, Bytes: 4000, Superseded: tier.Removed{Count: 1, Bytes: 1000}, Foreign: 5}
	if report != want || err != nil {
		t.Errorf("%+v, want %+v: %v", report, want, err)
	}
	left := slices.Concat(foreign, []string{objectName(a, 2), objectName(a, 3), objectName(b, 9), objectName(b, 10)})
	slices.Sort(left)
	if got := m.left(); !slices.Equal(got, left) {
		t.Errorf("left are %q", got)
	}
}

func TestSweepTakesTheOldest(t *testing.T) {
	m := newMemory()
	l := newTier(t, m)
	var blobs []blob
	for i := range 10 {
		b := newBlob(1, uint64(i))
		blobs = append(blobs, b)
		m.at(float64(10-i), objectName(b, 1), 1000)
	}
	m.at(0, objectName(blobs[9], 2), 1000) // 1 is superseded, within its grace
	report, err := l.Sweep(t.Context(), tier.SweepConfig{MaxBytes: 8500})
	want := tier.SweepReport{Objects: 8, Bytes: 8000, Evicted: tier.Removed{Count: 3, Bytes: 3000}}
	if report != want || err != nil {
		t.Errorf("%+v, want %+v: %v", report, want, err)
	}
	var left []string
	for _, b := range blobs[2:9] {
		left = append(left, objectName(b, 1))
	}
	left = append(left, objectName(blobs[9], 2))
	slices.Sort(left)
	if got := m.left(); !slices.Equal(got, left) {
		t.Errorf("left are %q", got)
	}
}

// Within MaxBytes no newest generation goes, and with it no more than is needed.
func TestSweepKeepsTheNewest(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		m := newMemory()
		newest, newestBytes := map[string]bool{}, int64(0)
		largest := int64(0)
		for i := range 1 + random.IntN(20) {
			b := newBlob(1, uint64(i))
			generations := 1 + random.IntN(4)
			for g := range generations {
				size := 1000 + random.IntN(100_000)
				m.at(random.Float64()*5, objectName(b, uint64(g)), size)
				if g == generations-1 {
					newest[objectName(b, uint64(g))] = true
					newestBytes += int64(size)
					largest = max(largest, int64(size))
				}
			}
		}
		limit := random.Int64N(2*newestBytes) + 1
		report, err := newTier(t, m).Sweep(t.Context(), tier.SweepConfig{MaxBytes: limit})
		if err != nil || report.Bytes > limit {
			t.Fatalf("%+v of %d: %v", report, limit, err)
		}
		gone, bytes := 0, int64(0)
		for name := range newest {
			if m.objects[name] == nil {
				gone++
			}
		}
		for _, data := range m.objects {
			bytes += int64(len(data))
		}
		if bytes != report.Bytes || len(m.objects) != report.Objects {
			t.Fatalf("%d bytes of %d objects, the report is %+v", bytes, len(m.objects), report)
		}
		if gone > 0 && (newestBytes <= limit || report.Bytes+largest <= limit) {
			t.Fatalf("%d newest are gone with %d of %d bytes: %+v", gone, newestBytes, limit, report)
		}
	}
}

func TestSweepGoesOn(t *testing.T) {
	m := newMemory()
	m.fail(errStore)
	if _, err := newTier(t, m).Sweep(t.Context(), tier.SweepConfig{}); !errors.Is(err, errStore) {
		t.Error(err)
	}
}

// In real stores what is no object stays, whatever its name.
func TestSweepLeavesForeignFiles(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		l, b := newTier(t, s), newBlob(100_000, 1)
		for generation := range uint64(3) {
			put(t, l, b, generation)
		}
		foreign := []string{"readme", "v1/readme", folder + "readme", folder + "sha256/ab/readme", objectName(b, 1) + ".old"}
		for _, name := range foreign {
			create(t, s, name, []byte("mine, and as long as a frame's tail"))
		}
		report, err := l.Sweep(t.Context(), tier.SweepConfig{MaxBytes: 1, Grace: -time.Hour})
		want := tier.SweepReport{Superseded: tier.Removed{Count: 2}, Evicted: tier.Removed{Count: 1}, Foreign: 3}
		report.Superseded.Bytes, report.Evicted.Bytes = 0, 0
		if report != want || err != nil {
			t.Errorf("%+v, want %+v: %v", report, want, err)
		}
		for _, name := range foreign {
			if _, _, err := fetch(s, name, 0, 10); err != nil {
				t.Error(err)
			}
		}
		if got := names(t, s, ""); len(got) != len(foreign) {
			t.Errorf("left are %q", got)
		}
	})
}

// Links are not followed out of the directory, whoever laid them.
func TestDirFollowsNoLinks(t *testing.T) {
	s, dir := newDir(t)
	l, b := newTier(t, s), newBlob(100_000, 1)
	outside := t.TempDir()
	other, err := tier.NewDir(outside)
	if err != nil {
		t.Fatal(err)
	}
	put(t, newTier(t, other), b, 1)
	link := func(to, name string) {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.RemoveAll(name), os.Symlink(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	link(filepath.Join(outside, objectName(b, 1)), objectName(b, 1))
	if got, err := drain(t, l, b, b.object(1)); err == nil || len(got) > 0 {
		t.Error("a link to a file was followed")
	}
	if _, found, _ := l.Find(t.Context(), b.digest); found {
		t.Error("a link to a file was found")
	}
	folder := filepath.Dir(objectName(b, 1))
	link(filepath.Join(outside, folder), folder)
	if got, err := drain(t, newTier(t, s), b, b.object(1)); err == nil || len(got) > 0 {
		t.Error("a link to a folder was followed")
	}
	if err := newTier(t, s).Put(t.Context(), b.digest, b.object(2), bytes.NewReader(b.data)); err == nil {
		t.Error("a link to a folder was written through")
	}
	_, _ = newTier(t, s).Sweep(t.Context(), tier.SweepConfig{MaxBytes: 1, Grace: -time.Hour})
	_ = newTier(t, s).Remove(t.Context(), b.digest, 1)
	link(outside, ".new")
	stray := filepath.Join(outside, strings.Repeat("ab", 16)+".tmp")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = newTier(t, s).Sweep(t.Context(), tier.SweepConfig{Grace: -time.Hour})
	if _, err := os.Stat(stray); err != nil {
		t.Error("a file outside was tidied up")
	}
	if got, err := drain(t, newTier(t, other), b, b.object(1)); err != nil || !bytes.Equal(got, b.data) {
		t.Errorf("the object outside: %v", err)
	}
	if got := names(t, other, folder); fmt.Sprint(got) != fmt.Sprintf("[%s %d]", objectName(b, 1), 100_000+2*tail) {
		t.Errorf("outside are %q", got)
	}
}
