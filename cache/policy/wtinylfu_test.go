package policy_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/reprise-containers/reprise/cache/policy"
)

// exactWTinyLFU is W-TinyLFU for entries of one size as its paper has it, with exact
// counts in place of the sketch's.
type exactWTinyLFU struct {
	c                            int
	window, probation, protected []int
	counts                       map[int]int
	added                        int
}

func (w *exactWTinyLFU) count(x int) {
	w.counts[x] = min(15, w.counts[x]+1)
	if w.added++; w.added == 1280 { // ten for each entry, of 128 at least
		w.added /= 2
		for x := range w.counts {
			w.counts[x] /= 2
		}
	}
}

func (w *exactWTinyLFU) access(x int) (hit bool, victim int) {
	w.count(x)
	if without(&w.window, x) {
		w.window = append(w.window, x)
		return true, -1
	}
	if without(&w.probation, x) || without(&w.protected, x) {
		w.protected = append(w.protected, x)
		if n := len(w.protected); n > 1 && 5*n > 4*(w.c-len(w.window)) {
			w.probation = append(w.probation, shift(&w.protected))
		}
		return true, -1
	}
	w.window = append(w.window, x)
	if len(w.window) == 1 {
		return false, -1
	}
	candidate := shift(&w.window)
	if len(w.window)+len(w.probation)+len(w.protected) < w.c {
		w.probation = append(w.probation, candidate)
		return false, -1
	}
	oldest := &w.probation
	if len(*oldest) == 0 {
		oldest = &w.protected
	}
	if len(*oldest) == 0 || w.counts[candidate] <= w.counts[(*oldest)[0]] {
		return false, candidate
	}
	victim = shift(oldest)
	w.probation = append(w.probation, candidate)
	return false, victim
}

// TestWTinyLFUExact compares every decision, with so few keys that the sketch's counts
// are exact.
func TestWTinyLFUExact(t *testing.T) {
	for _, c := range []int{2, 3, 5, 8, 16, 20} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			var accesses []int
			for key := range c {
				accesses = append(accesses, key)
			}
			for _, key := range stream(rand.New(rand.NewPCG(uint64(c), 17)), 50_000, 3*c) {
				accesses = append(accesses, key%(3*c))
			}
			got := &asked{newPolicy(t, policy.NameWTinyLFU), c, 100, map[int]bool{}, true}
			agree(t, got, &exactWTinyLFU{c: c, counts: map[int]int{}}, accesses)
		})
	}
}

// TestCandidates gives up several at once, adds as many, and so again: each of those
// that came is compared, not only the last.
func TestCandidates(t *testing.T) {
	p := newPolicy(t, policy.NameWTinyLFU)
	for key := range 100 {
		p.Add(key, 1)
	}
	for key := range 99 {
		p.Touch(key, 1)
	}
	for round := range 3 {
		for range 4 {
			if key, _, _ := p.Victim(); round > 0 && key < 95 {
				t.Errorf("round %d: %d, which was used, goes before what came just now", round, key)
			}
		}
		for i := range 4 {
			p.Add(1000+10*round+i, 1)
		}
	}
}
