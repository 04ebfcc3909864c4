package policy_test

import (
	"strconv"
	"testing"

	"github.com/reprise-containers/reprise/cache/policy"
)

// TestSketch counts more keys than there are counters at the start: no count is too
// low before the counts are halved, few are too high, and widening changes none.
func TestSketch(t *testing.T) {
	const keys, held = 20_000, 10_000 // each once to four times: fewer uses than halve
	s := policy.NewSketch()
	for key := range 100 {
		for range 1 + key%4 {
			s.Add(strconv.Itoa(key), 10)
		}
	}
	before := s.Columns()
	s.Add("other", held)
	if s.Columns() <= before {
		t.Fatalf("%d columns, as before", s.Columns())
	}
	for key := range 100 {
		if got := s.Count(strconv.Itoa(key)); got < 1+key%4 {
			t.Errorf("key %d counts %d after widening, want %d", key, got, 1+key%4)
		}
	}
	for key := 100; key < keys; key++ {
		for range 1 + key%4 {
			s.Add(strconv.Itoa(key), held)
		}
	}
	high := 0
	for key := range keys {
		got, want := s.Count(strconv.Itoa(key)), 1+key%4
		if got < want {
			t.Fatalf("key %d counts %d, want %d or more", key, got, want)
		}
		if got > want {
			high++
		}
	}
	if share := float64(high) / keys; share > 0.15 {
		t.Errorf("%.3f of the counts are too high", share)
	} else {
		t.Logf("%.3f of the counts are too high", share)
	}
}

// TestSketchForgets uses one key often, then others: it counts less in time.
func TestSketchForgets(t *testing.T) {
	s := policy.NewSketch()
	for range 20 {
		s.Add("once", 100)
	}
	if got := s.Count("once"); got != 15 {
		t.Errorf("%d uses of 20 count, want 15", got)
	}
	for i := range 6000 {
		s.Add(strconv.Itoa(i%50), 100)
	}
	if got := s.Count("once"); got > 2 {
		t.Errorf("a key that is no longer used counts %d", got)
	}
}
