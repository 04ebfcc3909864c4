package simulate

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// Identity says which requests are for one object.
type Identity string

// Identities.
const (
	// ByURI takes what has the same URI for one object.
	ByURI Identity = "uri"
	// ByBlob takes what has the same last element of its URI for one object, in
	// whatever repository: so does a cache that addresses by content.
	ByBlob Identity = "blob"
)

// Scope says what of a trace is simulated.
type Scope struct {
	// Kinds that count; none: blobs and manifests.
	Kinds []trace.Kind
	Key   Identity // default ByBlob
	// Unit gives every object the size 1. Otherwise a trace without sizes is an error.
	Unit bool
	// Writes counts PUTs as accesses, as the original does.
	Writes bool
}

// Decoded is the accesses of a trace.
type Decoded struct {
	Accesses Accesses
	Sizes    []int64      // of objects, bytes: the largest that was seen
	Kinds    []trace.Kind // of objects
	Nodes    int
	Unit     bool
	Timed    bool // Access.Time counts
	Ranged   int  // accesses that were to a part of an object
}

// Objects returns the number of distinct objects.
func (d *Decoded) Objects() int { return len(d.Sizes) }

// Bytes returns the size of all distinct objects together.
func (d *Decoded) Bytes() (n int64) {
	for _, s := range d.Sizes {
		n += s
	}
	return n
}

// ErrNoSizes says that a trace has no sizes, and that Scope.Unit is for such.
var ErrNoSizes = errors.New("the trace has no sizes: count objects (unit) instead of bytes")

// Decode reads a trace to its end. Requests that were not answered with a success,
// that are no GET, and those of other kinds are left out.
func Decode(ctx context.Context, r trace.Reader, s Scope) (*Decoded, error) {
	dec := newDecoder(s)
	if _, err := dec.fill(ctx, r, math.MaxUint32); err != nil {
		return nil, err
	}
	if dec.d.Accesses.Len() == 0 {
		return nil, errNothing
	}
	dec.d.Nodes = len(dec.nodes)
	return dec.d, nil
}

var errNothing = errors.New("simulating: the trace has no request that counts")

// decoder numbers objects and nodes by a 64-bit hash of their names: of 10 million
// names, two have the same with a probability of three in a million.
type decoder struct {
	scope  Scope
	d      *Decoded
	ids    map[uint64]uint32
	nodes  map[uint64]uint32
	seed   maphash.Seed
	all    Tally    // as if there were room for everything
	stream bool     // keep grown
	grown  []growth // objects, since it was last emptied
}

func newDecoder(s Scope) *decoder {
	if len(s.Kinds) == 0 {
		s.Kinds = []trace.Kind{trace.Blob, trace.Manifest}
	}
	return &decoder{scope: s, d: &Decoded{Unit: s.Unit}, ids: make(map[uint64]uint32), nodes: make(map[uint64]uint32), seed: maphash.MakeSeed()}
}

// succeeded reports whether the answer was a success, as far as the trace tells.
func succeeded(x trace.Request) bool { return x.Status == 0 || x.Status >= 200 && x.Status < 400 }

func (dec *decoder) counts(x trace.Request, kind trace.Kind) bool {
	ok := x.Method == "GET" || dec.scope.Writes && x.Method == "PUT"
	if !succeeded(x) {
		return false
	}
	for _, k := range dec.scope.Kinds {
		if k == kind {
			return ok
		}
	}
	return false
}

func (dec *decoder) add(x trace.Request) error {
	t := trace.Parse(x.URI)
	if t.Kind == trace.Upload && x.Method == "PUT" {
		t.Kind = trace.Blob // that is what was uploaded
	}
	if !dec.counts(x, t.Kind) {
		return nil
	}
	size := x.Size
	if x.Len > 0 {
		size = x.Off + x.Len
		dec.d.Ranged++
	}
	switch {
	case dec.scope.Unit:
		size = 1
	case size < 0:
		return fmt.Errorf("simulating %s: %w", x.URI, ErrNoSizes)
	}
	name := x.URI
	if dec.scope.Key != ByURI {
		name = t.Reference
		if t.Kind == trace.Manifest { // a tag means something in its repository only
			name = x.URI
		}
	}
	id := dec.number(dec.ids, name)
	known := int(id) < len(dec.d.Sizes)
	if !known {
		dec.d.Sizes = append(dec.d.Sizes, size)
		dec.d.Kinds = append(dec.d.Kinds, t.Kind)
	}
	if had := dec.d.Sizes[id]; size > had {
		dec.d.Sizes[id] = size
		if dec.stream {
			dec.grown = append(dec.grown, growth{id, had, size})
		}
	}
	dec.all.add(dec.d.Sizes[id], known)
	dec.d.Timed = dec.d.Timed || x.Delay > 0
	dec.d.Accesses.Add(Access{Time: int64(x.Delay), ID: id, Node: dec.number(dec.nodes, x.Client)})
	return nil
}

func (dec *decoder) number(of map[uint64]uint32, name string) uint32 {
	h := maphash.String(dec.seed, name)
	id, ok := of[h]
	if !ok {
		id = uint32(len(of))
		of[h] = id
	}
	return id
}

// Span returns the time from the first access to the last.
func (d *Decoded) Span() time.Duration {
	return time.Duration(d.Accesses.span())
}

// Of returns the accesses to objects of a kind, with numbers of their own.
func (d *Decoded) Of(kind trace.Kind) *Decoded {
	out := &Decoded{Unit: d.Unit, Timed: d.Timed, Nodes: d.Nodes}
	ids := make([]uint32, len(d.Sizes)) // plus one
	for _, a := range d.Accesses.All() {
		if d.Kinds[a.ID] != kind {
			continue
		}
		if ids[a.ID] == 0 {
			out.Sizes = append(out.Sizes, d.Sizes[a.ID])
			out.Kinds = append(out.Kinds, kind)
			ids[a.ID] = uint32(len(out.Sizes))
		}
		a.ID = ids[a.ID] - 1
		out.Accesses.Add(a)
	}
	return out
}
