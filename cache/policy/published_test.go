package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/reprise-containers/reprise/cache/policy"
)

// published is a cache of so many entries, all of one size, after the pseudocode of a
// paper: access reports a hit and what was given up, -1 for nothing. Lists are slices,
// the oldest first.
type published interface {
	access(key int) (hit bool, victim int)
}

// without removes key from l and reports whether it was there.
func without(l *[]int, key int) bool {
	i := slices.Index(*l, key)
	if i < 0 {
		return false
	}
	*l = slices.Delete(*l, i, i+1)
	return true
}

// shift takes the oldest of l.
func shift(l *[]int) int {
	key := (*l)[0]
	*l = slices.Delete(*l, 0, 1)
	return key
}

// publishedARC is figure 4 of Megiddo and Modha 2003.
type publishedARC struct {
	c              int
	p              float64
	t1, t2, b1, b2 []int
}

func (a *publishedARC) replace(inB2 bool) int {
	if n := len(a.t1); n >= 1 && (float64(n) > a.p || inB2 && float64(n) == a.p) {
		key := shift(&a.t1)
		a.b1 = append(a.b1, key)
		return key
	}
	key := shift(&a.t2)
	a.b2 = append(a.b2, key)
	return key
}

func (a *publishedARC) access(x int) (hit bool, victim int) {
	if without(&a.t1, x) || without(&a.t2, x) { // case I
		a.t2 = append(a.t2, x)
		return true, -1
	}
	n1, n2 := float64(len(a.b1)), float64(len(a.b2))
	switch {
	case slices.Contains(a.b1, x): // case II
		a.p = min(a.p+max(1, n2/n1), float64(a.c))
		victim = a.replace(false)
		without(&a.b1, x)
		a.t2 = append(a.t2, x)
		return false, victim
	case slices.Contains(a.b2, x): // case III
		a.p = max(a.p-max(1, n1/n2), 0)
		victim = a.replace(true)
		without(&a.b2, x)
		a.t2 = append(a.t2, x)
		return false, victim
	}
	victim = -1 // case IV
	all := len(a.t1) + len(a.t2) + len(a.b1) + len(a.b2)
	if len(a.t1)+len(a.b1) == a.c {
		if len(a.t1) < a.c {
			shift(&a.b1)
			victim = a.replace(false)
		} else {
			victim = shift(&a.t1)
		}
	} else if all >= a.c {
		if all == 2*a.c {
			shift(&a.b2)
		}
		victim = a.replace(false)
	}
	a.t1 = append(a.t1, x)
	return false, victim
}

// publishedTwoQ is the full version of Johnson and Shasha 1994. A page that is in
// A1out leaves it before room is made for it: the paper does not say when it does.
type publishedTwoQ struct {
	c             int
	in, out, main []int
}

func (q *publishedTwoQ) reclaim() int {
	if len(q.in)+len(q.main) < q.c {
		return -1
	}
	if len(q.in) > q.c/4 {
		y := shift(&q.in)
		q.out = append(q.out, y)
		if len(q.out) > q.c/2 {
			shift(&q.out)
		}
		return y
	}
	return shift(&q.main)
}

func (q *publishedTwoQ) access(x int) (hit bool, victim int) {
	switch {
	case without(&q.main, x):
		q.main = append(q.main, x)
		return true, -1
	case without(&q.out, x):
		victim = q.reclaim()
		q.main = append(q.main, x)
		return false, victim
	case slices.Contains(q.in, x):
		return true, -1
	}
	victim = q.reclaim()
	q.in = append(q.in, x)
	return false, victim
}

// asked is a policy with a cache of so many entries around it.
type asked struct {
	policy.Policy[int]
	c        int
	unit     int64
	held     map[int]bool
	addFirst bool // makes room after adding, as the caches do
}

func (a *asked) access(key int) (hit bool, victim int) {
	if a.held[key] {
		a.Touch(key, a.unit)
		return true, -1
	}
	a.held[key] = true
	if a.addFirst {
		a.Add(key, a.unit)
	} else if x, ok := a.Policy.(policy.Expectant[int]); ok {
		x.Expect(key)
	}
	victim = -1
	if len(a.held) > a.c {
		victim, _, _ = a.Victim()
		delete(a.held, victim)
		a.Remove(victim) // as a cache does that settles what it gave up
	}
	if !a.addFirst {
		a.Add(key, a.unit)
	}
	return false, victim
}

// streams are accesses in which recency, frequency, scans and loops take turns.
func stream(rng *rand.Rand, n, keys int) []int {
	out := make([]int, 0, n)
	zipf := rand.NewZipf(rng, 1.1, 2, uint64(keys-1))
	for fresh := keys; len(out) < n; {
		switch turn := rng.IntN(5); turn {
		case 0: // a scan
			for range rng.IntN(keys) {
				out = append(out, fresh)
				fresh++
			}
		case 1: // a loop
			start, length := rng.IntN(keys), 1+rng.IntN(keys/3+1)
			for i := range 3 * length {
				out = append(out, (start+i%length)%keys)
			}
		case 2: // no locality
			for range rng.IntN(keys) {
				out = append(out, rng.IntN(keys))
			}
		default:
			for range rng.IntN(3 * keys) {
				out = append(out, int(zipf.Uint64()))
			}
		}
	}
	return out[:n]
}

// TestPublished compares every decision of ARC and 2Q with the published algorithms,
// whether room is made before or after.
func TestPublished(t *testing.T) {
	for name, model := range map[string]func(c int) published{
		policy.NameARC:  func(c int) published { return &publishedARC{c: c} },
		policy.NameTwoQ: func(c int) published { return &publishedTwoQ{c: c} },
	} {
		for _, c := range []int{1, 2, 3, 4, 5, 7, 8, 16, 61, 256} {
			for _, addFirst := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/%t", name, c, addFirst), func(t *testing.T) {
					rng := rand.New(rand.NewPCG(uint64(c), 7))
					got := &asked{newPolicy(t, name), c, int64(1 + 4095*(c%2)), map[int]bool{}, addFirst}
					agree(t, got, model(c), stream(rng, 30_000, 3*c+1))
				})
			}
		}
	}
}

func agree(t *testing.T, got, want published, accesses []int) {
	t.Helper()
	hits := 0
	for i, key := range accesses {
		hit, victim := got.access(key)
		wantHit, wantVictim := want.access(key)
		if hit != wantHit || victim != wantVictim {
			t.Fatalf("access %d, key %d: hit %t, gave up %d; want %t, %d", i, key, hit, victim, wantHit, wantVictim)
		}
		if hit {
			hits++
		}
	}
	if hits == 0 || hits == len(accesses) {
		t.Errorf("%d hits of %d: the stream shows nothing", hits, len(accesses))
	}
}
