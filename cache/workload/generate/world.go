package generate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

// pull is an image: some blobs in one repository.
type pull struct {
	first uint64 // number of its first blob; the others follow
	repo  uint32
	tag   uint32 // 0: the one that most repositories have
	count uint16
	lists uint16 // blobs that its manifest lists, of which count are read
}

// world is what the requests are about. All names and sizes are functions of numbers.
type world struct {
	seed   uint64
	hot    []pull
	chance []float64 // cumulative popularity of hot
	looks  []float64 // and of how often their manifests are looked at
	again  []pull    // what may be pulled again, the oldest first
	pushed []pushed  // what was pushed and not pulled yet, the oldest first
	read   [classes]float64
	blobs  uint64 // so many were made
	repos  uint32
	users  []uint32 // of repositories
	recent [4096]uint32
	made   int // pulls made
}

// pushed is an image that can be pulled from a time on.
type pushed struct {
	pull
	from time.Duration
}

const (
	hotBlobs   = 600
	perHot     = 20   // blobs of a popular image
	mostBlobs  = 60   // of a pull
	mostAgain  = 20   // of one of something older
	mostPushed = 256  // that were not pulled
	hotSkew    = 1.25 // exponent of their popularity
	lookSkew   = 1.28
	newRepo    = 0.55 // of new images are in a new repository
	newUser    = 0.36
	bigUsers   = 0.3   // of the other new repositories are of who has the popular ones
	lookback   = 3600  // the oldest image that is pulled again, counted in those that may be
	lookedElse = 0.10  // of looks at manifests are at others than the popular
	lookedNew  = 0.047 // of looks at manifests are at one that was never seen
	ofPushed   = 0.75  // of pulls of new images are of one that was pushed
	drift      = 200   // blobs that a class of pulls may be ahead of its share
)

func newWorld(rng *rand.Rand, seed uint64) world {
	w := world{seed: seed}
	n := hotBlobs / perHot
	w.chance, w.looks = zipf(n, hotSkew), zipf(n, lookSkew)
	sum, before := 0.0, 0.0
	for i := range n {
		p := w.fresh(rng)
		w.blobs += perHot - uint64(p.count)
		p.count, p.lists = perHot, perHot
		// The few that everyone looks at decide how often the common tag is asked for.
		p.tag = uint32(w.made)
		if sum <= latest*before {
			p.tag = 0
			sum += w.looks[i] - before
		}
		before = w.looks[i]
		w.hot = append(w.hot, p)
	}
	return w
}

// zipf returns cumulative shares of n ranks.
func zipf(n int, exponent float64) []float64 {
	out := make([]float64, n)
	sum := 0.0
	for i := range out {
		sum += math.Pow(float64(i+1), -exponent)
		out[i] = sum
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

func draw(rng *rand.Rand, cumulative []float64) int {
	return min(len(cumulative)-1, sort.SearchFloat64s(cumulative, rng.Float64()))
}

// Classes of pulls.
const (
	classHot = iota
	classNew
	classAgain
	classes
)

// shares are those of the classes in the reads of blobs.
var shares = [classes]float64{hotShare, newShare, 1 - hotShare - newShare}

// class returns what the next pull is of: by chance, but a class that had more than its
// share by that is not drawn again before it is the others' turn. Chance alone would
// make the hits of a trace of this length differ by hundredths.
func (w *world) class(rng *rand.Rand) int {
	all := w.read[classHot] + w.read[classNew] + w.read[classAgain]
	ahead := func(c int) float64 { return w.read[c] - shares[c]*all }
	c := classAgain
	switch u := rng.Float64(); {
	case u < hotPulls:
		c = classHot
	case u < hotPulls+newPulls:
		c = classNew
	}
	if ahead(c) > drift {
		for i := range classes {
			if ahead(i) < ahead(c) {
				c = i
			}
		}
	}
	if c == classAgain && len(w.again) == 0 {
		c = classNew
	}
	return c
}

// pull returns the image of a pull that begins at a time.
func (w *world) pull(rng *rand.Rand, at time.Duration) pull {
	var p pull
	c := w.class(rng)
	switch c {
	case classHot:
		p = w.hot[draw(rng, w.chance)]
		// Of a popular image clients have a part already.
		if n := w.count(rng); n < p.count {
			p.first += uint64(rng.IntN(int(p.count-n) + 1))
			p.count = n
		}
	case classNew:
		p = w.unseen(rng, at)
		if rng.Float64() < reusable {
			w.remember(p)
		}
	default:
		back := int(math.Pow(lookback, rng.Float64()))
		p = w.again[max(0, len(w.again)-back)]
	}
	w.read[c] += float64(p.count)
	return p
}

// offer lets a pushed image be pulled from a time on.
func (w *world) offer(p pull, from time.Duration) {
	if len(w.pushed) == mostPushed {
		w.pushed = slices.Delete(w.pushed, 0, 1)
	}
	w.pushed = append(w.pushed, pushed{p, from})
}

// unseen returns an image that was never pulled: mostly one that was pushed.
func (w *world) unseen(rng *rand.Rand, at time.Duration) pull {
	if len(w.pushed) > 0 && rng.Float64() < ofPushed {
		i := rng.IntN(len(w.pushed))
		if p := w.pushed[i]; p.from <= at {
			w.pushed = slices.Delete(w.pushed, i, i+1)
			return p.pull
		}
	}
	return w.fresh(rng)
}

// remember lets an image be pulled again. Of a large one clients have a part then; a
// few of them would else decide what a whole trace is like.
func (w *world) remember(p pull) {
	p.count = min(p.count, mostAgain)
	w.again = append(w.again, p)
	if len(w.again) >= 4*lookback {
		w.again = append(w.again[:0], w.again[len(w.again)-lookback:]...)
	}
}

// count returns the number of blobs of a pull.
func (w *world) count(rng *rand.Rand) uint16 {
	return uint16(min(mostBlobs, max(1, math.Round(blobsMedian*math.Exp(blobsSigma*rng.NormFloat64())))))
}

// fresh returns an image that was never seen.
func (w *world) fresh(rng *rand.Rand) pull {
	p := pull{first: w.blobs, count: w.count(rng)}
	p.lists = p.count
	w.blobs += uint64(p.count)
	if rng.Float64() >= latest {
		p.tag = uint32(w.made) + 1
	}
	if w.made < hotBlobs/perHot || rng.Float64() < newRepo {
		p.repo = w.repos
		w.repos++
		user := uint32(len(w.users))
		if len(w.users) > 0 && rng.Float64() >= newUser {
			n := len(w.users)
			if rng.Float64() < bigUsers {
				n = min(n, hotBlobs/perHot)
			}
			user = w.users[rng.IntN(n)]
		}
		w.users = append(w.users, user)
	} else { // where there is much there comes more
		p.repo = w.recent[rng.IntN(min(w.made, len(w.recent)))]
	}
	w.recent[w.made%len(w.recent)] = p.repo
	w.made++
	return p
}

// looked returns the image whose manifest a client looks at.
func (w *world) looked(rng *rand.Rand) pull {
	switch u := rng.Float64(); {
	case u < lookedNew:
		return w.fresh(rng)
	case u < lookedNew+lookedElse && len(w.again) > 0:
		back := int(math.Pow(float64(len(w.again)), rng.Float64()))
		return w.again[len(w.again)-back]
	}
	return w.hot[draw(rng, w.looks)]
}

// Kinds of names.
const (
	kindClient = iota + 1
	kindHost
	kindUser
	kindRepo
	kindBlob
	kindTag
	kindUpload
)

// name returns 8 hexadecimal digits: another for each number below 2^32, and the same
// each time.
func (w *world) name(kind int, number uint64) string {
	x := uint32(number) ^ uint32(w.seed)
	key := uint32(kind)*uint32(0x9e3779b9) + uint32(w.seed>>32)
	// Steps of which each can be undone, so that no two numbers meet.
	for range 3 {
		x ^= key
		x *= 0x85ebca6b
		x ^= x >> 16
		x *= 0xc2b2ae35
		x ^= x >> 13
	}
	return fmt.Sprintf("%08x", x)
}

func (w *world) repository(repo uint32) string {
	return "v2/" + w.name(kindUser, uint64(w.users[repo])) + "/" + w.name(kindRepo, uint64(repo))
}

// latest is the share of images whose tag is the one that most repositories have, 0.
const latest = 0.48

func (w *world) manifest(p pull) string {
	return w.repository(p.repo) + "/manifests/" + w.name(kindTag, uint64(p.tag))
}

// blob returns the URI of a blob. Some have the name, and the size, of one in another
// repository.
func (w *world) blob(p pull, number uint64) string {
	return w.repository(p.repo) + "/blobs/" + w.name(kindBlob, w.content(number))
}

// content returns the number of the blob whose content a blob has: its own, or that
// of an earlier one.
func (w *world) content(number uint64) uint64 {
	if number < hotBlobs || w.unit(kindBlob, number) >= otherRepo {
		return number
	}
	// Mostly of the popular ones, which are in many repositories.
	if u := w.unit(kindRepo, number); u < 0.4 {
		return uint64(u / 0.4 * hotBlobs)
	}
	return w.content(uint64(w.unit(kindTag, number) * float64(number)))
}

// unit returns a number from 0 to 1 that is as good as random, and always the same
// for a number.
func (w *world) unit(kind int, number uint64) float64 {
	h := (number+1)*0x9e3779b97f4a7c15 + w.seed + uint64(kind)<<56
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return float64((h^h>>31)>>11) / (1 << 53)
}
