package simulate

import (
	"container/heap"
	"slices"
	"time"
)

// sharedIndex is what Redis knows.
type sharedIndex struct {
	blobs   map[uint32]*indexed
	holders int64
	use     *RedisUse
}

// indexed is what it knows of an object.
type indexed struct {
	holders []holder // the one who said it last at the end
	lease   bool
	fetcher int32 // with lease
	ends    int64 // the fetch, with lease
	claimed bool  // somebody writes it to L2
	stored  bool

	expires int64  // who has it, and that it is stored, is forgotten
	forget  uint64 // seq of the due that looks whether it is time for that; 0: none
}

type holder struct {
	replica int32
	at      int64 // when it said so
}

// What package sharedindex names, and remembers, of the holders of a blob.
const (
	mostNamed = 4
	mostKept  = 8
)

// followed is how often a replica looks at the stream of announcements when there are
// none.
const followed = 2 * time.Second

func newSharedIndex(use *RedisUse) *sharedIndex {
	return &sharedIndex{blobs: make(map[uint32]*indexed), use: use}
}

// of returns what is known of the object, to be changed.
func (x *sharedIndex) of(id uint32) *indexed {
	e := x.blobs[id]
	if e == nil {
		e = &indexed{}
		x.blobs[id] = e
		x.use.Blobs = max(x.use.Blobs, int64(len(x.blobs)))
	}
	return e
}

// tidy forgets the object if nothing is known of it any more.
func (x *sharedIndex) tidy(id uint32) {
	if e := x.blobs[id]; e != nil && len(e.holders) == 0 && !e.lease && !e.claimed && !e.stored {
		delete(x.blobs, id)
	}
}

// hold says that the replica has the object.
func (x *sharedIndex) hold(id uint32, replica int32, now int64) *indexed {
	x.drop(id, replica)
	e := x.of(id)
	if len(e.holders) == mostKept {
		e.holders = slices.Delete(e.holders, 0, 1)
		x.holders--
	}
	e.holders = append(e.holders, holder{replica, now})
	x.holders++
	x.use.Holders = max(x.use.Holders, x.holders)
	return e
}

// drop says that it has not, and reports whether the index thought so.
func (x *sharedIndex) drop(id uint32, replica int32) bool {
	e := x.blobs[id]
	if e == nil {
		return false
	}
	i := slices.IndexFunc(e.holders, func(h holder) bool { return h.replica == replica })
	if i < 0 {
		return false
	}
	e.holders = slices.Delete(e.holders, i, i+1)
	x.holders--
	x.tidy(id)
	return true
}

// newest returns holders beside the replica, who said it last first, and after a time.
func (x *sharedIndex) newest(id uint32, replica int32, after int64) (out []int32) {
	e := x.blobs[id]
	if e == nil {
		return nil
	}
	for _, h := range slices.Backward(e.holders) {
		if h.replica != replica && h.at > after && len(out) < mostNamed {
			out = append(out, h.replica)
		}
	}
	return out
}

// lose forgets who has the object, and that it is in L2.
func (x *sharedIndex) lose(id uint32) {
	e := x.blobs[id]
	x.holders -= int64(len(e.holders))
	e.holders, e.stored = nil, false
	x.tidy(id)
}

// due is a fetch, or a write to L2, that is under way.
type due struct {
	at      int64
	seq     uint64 // of two at a time, which began first
	replica int32
	id      uint32
	what    ending
}

type ending uint8

const (
	leased   ending = iota // fetch from the upstream under a lease
	unleased               // without
	taken                  // fetch from a replica or L2
	written                // write to L2
	again                  // look whether somebody else wrote it to L2
	unheard                // the index forgets what nobody told of or asked for
)

// agenda is what is under way, what ends first at the front.
type agenda []due

func (e agenda) Len() int { return len(e) }
func (e agenda) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e agenda) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

// Push is of heap.Interface.
func (e *agenda) Push(x any) { *e = append(*e, x.(due)) } //nolint:forcetypeassert // nothing else is pushed

// Pop is of heap.Interface.
func (e *agenda) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// next takes out what ends next, if it does until a time.
func (e *agenda) next(until int64) (due, bool) {
	if len(*e) == 0 || (*e)[0].at > until {
		return due{}, false
	}
	return heap.Pop(e).(due), true //nolint:forcetypeassert // nothing else is pushed
}
