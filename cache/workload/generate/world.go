package generate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
)

// pull is an image: some blobs in one repository.
type pull struct {
	first uint64 // number of its first blob; the others follow
	repo  uint32
	tag   uint32
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
	blobs  uint64    // so many were made
	repos  uint32
	users  []uint32 // of repositories
	recent [4096]uint32
	made   int // pulls made
}

const (
	hotBlobs   = 600
	perHot     = 20  // blobs of a popular image
	mostBlobs  = 60  // of a pull
	mostAgain  = 20  // of one of something older
	hotSkew    = 1.2 // exponent of their popularity
	lookSkew   = 1.28
	newRepo    = 0.12 // of new images are in a new repository
	newUser    = 0.3
	lookback   = 2800 // the oldest image that is pulled again, counted in those that may be
	lookedElse = 0.12 // of looks at manifests are at others than the popular
)

func newWorld(rng *rand.Rand, seed uint64) world {
	w := world{seed: seed}
	for range hotBlobs / perHot {
		p := w.fresh(rng)
		w.blobs += perHot - uint64(p.count)
		p.count, p.lists = perHot, perHot
		w.hot = append(w.hot, p)
	}
	w.chance = zipf(len(w.hot), hotSkew)
	w.looks = zipf(len(w.hot), lookSkew)
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

// pull returns the image of a pull.
func (w *world) pull(rng *rand.Rand) pull {
	switch u := rng.Float64(); {
	case u < hotPulls || len(w.again) == 0 && u >= hotPulls+newPulls:
		p := w.hot[draw(rng, w.chance)]
		n := w.count(rng)
		// Of a popular image clients have a part already.
		if n < p.count {
			p.first += uint64(rng.IntN(int(p.count-n) + 1))
			p.count = n
		}
		return p
	case u < hotPulls+newPulls:
		p := w.fresh(rng)
		if rng.Float64() < reusable {
			w.remember(p)
		}
		return p
	}
	back := int(math.Pow(lookback, rng.Float64()))
	return w.again[max(0, len(w.again)-back)]
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
	p := pull{first: w.blobs, count: w.count(rng), tag: uint32(w.made)}
	p.lists = p.count
	w.blobs += uint64(p.count)
	if w.repos == 0 || rng.Float64() < newRepo {
		p.repo = w.repos
		w.repos++
		user := uint32(len(w.users))
		if len(w.users) > 0 && rng.Float64() >= newUser {
			user = w.users[rng.IntN(len(w.users))]
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
	if len(w.again) > 0 && rng.Float64() < lookedElse {
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

// latest is the share of images whose tag is the one that most repositories have.
const latest = 0.48

func (w *world) manifest(p pull) string {
	tag := uint64(p.tag) + 1
	if w.unit(kindTag, uint64(p.tag)) < latest {
		tag = 0
	}
	return w.repository(p.repo) + "/manifests/" + w.name(kindTag, tag)
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
	if u := w.unit(kindRepo, number); u < 0.5 {
		return uint64(u * 2 * hotBlobs)
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
