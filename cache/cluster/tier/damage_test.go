package tier_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

// drain reads an object and returns what came before the error.
func drain(t testing.TB, l *tier.Tier, b blob, o tier.Object) ([]byte, error) {
	t.Helper()
	r, err := l.Open(t.Context(), b.digest, o, 0, o.Size)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// Whatever is done to an object, each byte that comes is the blob's, and before the
// whole of it there is an error.
func TestDamageShows(t *testing.T) {
	m := newMemory()
	l, b, other := newTier(t, m), newBlob(3*chunk+1000, 1), newBlob(3*chunk+1000, 2)
	put(t, l, b, 1)
	put(t, l, b, 2)
	put(t, l, other, 1)
	name := objectName(b, 1)
	good, later, foreign := m.objects[name], m.objects[objectName(b, 2)], m.objects[objectName(other, 1)]
	cases := map[string][]byte{"empty": {}, "longer": append(slices.Clone(good), 0), "a frame more": slices.Concat(good[:frame], good)}
	for _, i := range []int{1, tail, chunk, frame - 1, frame, frame + tail, 3 * frame, len(good) - 1} {
		cases[fmt.Sprintf("cut to %d", i)] = good[:i]
	}
	for i := range 4 {
		begin, end := i*frame, min((i+1)*frame, len(good))
		for _, bit := range []int{0, 8*(end-begin-tail) - 1, 8 * (end - begin - tail), 8*(end-begin) - 129, 8*(end-begin) - 1} {
			flipped := slices.Clone(good)
			flipped[begin+bit/8] ^= 1 << (bit % 8)
			cases[fmt.Sprintf("bit %d of frame %d", bit, i)] = flipped
		}
		for what, from := range map[string][]byte{"another generation": later, "another blob": foreign} {
			cases[fmt.Sprintf("frame %d is of %s", i, what)] = slices.Concat(good[:begin], from[begin:end], good[end:])
		}
		if i < 3 {
			for j := range i {
				swapped := slices.Clone(good)
				copy(swapped[begin:end], good[j*frame:])
				copy(swapped[j*frame:], good[begin:end])
				cases[fmt.Sprintf("frames %d and %d are swapped", i, j)] = swapped
			}
			cases[fmt.Sprintf("without frame %d", i)] = slices.Concat(good[:begin], good[end:])
		}
	}
	for what, object := range cases {
		m.objects[name] = object
		got, err := drain(t, l, b, b.object(1))
		if !errors.Is(err, tier.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if !bytes.HasPrefix(b.data, got) || len(got) == len(b.data) {
			t.Errorf("%s: %d bytes, or wrong ones", what, len(got))
		}
		var copied bytes.Buffer
		if r, err := l.Open(t.Context(), b.digest, b.object(1), 0, b.object(1).Size); err == nil {
			_, err = r.(io.WriterTo).WriteTo(&copied)
			if !errors.Is(err, tier.ErrDamaged) || !bytes.Equal(copied.Bytes(), got) {
				t.Errorf("%s: WriteTo gives %d bytes, Read %d: %v", what, copied.Len(), len(got), err)
			}
			r.Close()
		}
	}
	if s := l.Stats(); s.Damaged != 2*uint64(len(cases)) || s.Reading.Away {
		t.Errorf("%d cases: %+v", len(cases), s)
	}
	m.objects[name] = good
	if got, err := drain(t, l, b, b.object(1)); err != nil || !bytes.Equal(got, b.data) {
		t.Errorf("the good one: %v", err)
	}
}

// An object is that of its digest, size, generation and secret only.
func TestObjectsAreBound(t *testing.T) {
	m := newMemory()
	l, b, other := newTier(t, m), newBlob(chunk+1000, 1), newBlob(chunk+1000, 2)
	put(t, l, b, 1)
	object := m.objects[objectName(b, 1)]
	if _, err := drain(t, l, b, b.object(2)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another generation: %v", err)
	}
	m.objects[objectName(b, 2)] = object
	m.objects[objectName(other, 1)] = object
	for what, c := range map[string]struct {
		blob blob
		o    tier.Object
	}{
		"renamed to another generation": {b, b.object(2)},
		"renamed to another blob":       {other, other.object(1)},
		"another size":                  {b, tier.Object{Generation: 1, Size: b.object(1).Size - 1}},
	} {
		if got, err := drain(t, l, c.blob, c.o); !errors.Is(err, tier.ErrDamaged) || len(got) > 0 {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
	}
	delete(m.objects, objectName(b, 2))
	// The same bytes cut so that a smaller blob has an object of that size.
	m.objects[objectName(b, 1)] = object[:frame]
	o, found, err := l.Find(t.Context(), b.digest)
	if want := (tier.Object{Generation: 1, Size: chunk}); o != want || !found || err != nil {
		t.Fatalf("found %+v: %v", o, err)
	}
	if got, err := drain(t, l, b, o); !errors.Is(err, tier.ErrDamaged) || len(got) > 0 {
		t.Errorf("cut to a frame: %d bytes, %v", len(got), err)
	}
	m.objects[objectName(b, 1)] = object
	stranger := newStranger(t, m)
	m.objects[stranger.Folder()+strings.TrimPrefix(objectName(b, 1), folder)] = object
	if got, err := drain(t, stranger, b, b.object(1)); !errors.Is(err, tier.ErrDamaged) || len(got) > 0 {
		t.Errorf("another secret: %d bytes, %v", len(got), err)
	}
}

// newStranger returns the tier of another secret.
func newStranger(t testing.TB, s tier.Store) *tier.Tier {
	t.Helper()
	stranger, err := tier.New(s, tier.Config{Secret: bytes.Repeat([]byte("another secret. "), 2)})
	if err != nil {
		t.Fatal(err)
	}
	return stranger
}

// What replicas of another secret have put is not found, is not called damaged, and
// stays when it is swept, as does what they are putting.
func TestStrangersAreLeftAlone(t *testing.T) {
	eachStore(t, func(t *testing.T, s tier.Store) {
		l, stranger, b := newTier(t, s), newStranger(t, s), newBlob(100_000, 1)
		if l.Folder() != folder || stranger.Folder() == folder {
			t.Errorf("the folders are %q and %q", l.Folder(), stranger.Folder())
		}
		put(t, l, b, 1)
		put(t, l, b, 2)
		if got, err := drain(t, stranger, b, b.object(1)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("opening: %d bytes: %v", len(got), err)
		}
		if o, found, err := stranger.Find(t.Context(), b.digest); found || err != nil {
			t.Errorf("found %+v: %v", o, err)
		}
		put(t, stranger, b, 1)
		want := tier.SweepReport{Evicted: tier.Removed{Count: 1, Bytes: 100_000 + 2*tail}}
		report, err := stranger.Sweep(t.Context(), tier.SweepConfig{MaxBytes: 1})
		if report != want || err != nil {
			t.Errorf("the sweep did %+v: %v", report, err)
		}
		if stats := stranger.Stats(); stats.Damaged != 0 || stats.ReadErrors != 0 {
			t.Errorf("stats are %+v", stats)
		}
		for _, generation := range []uint64{1, 2} {
			if got, err := drain(t, l, b, b.object(generation)); err != nil || !bytes.Equal(got, b.data) {
				t.Errorf("generation %d: %d bytes: %v", generation, len(got), err)
			}
		}
	})
}

// Two writings of the same object have not one tag in common.
func TestSaltsAreFresh(t *testing.T) {
	b := newBlob(2*chunk, 1)
	var objects [2][]byte
	for i := range objects {
		m := newMemory()
		put(t, newTier(t, m), b, 1)
		objects[i] = m.objects[objectName(b, 1)]
	}
	for i := range 2 {
		at := i*frame + chunk
		if bytes.Equal(objects[0][at:at+8], objects[1][at:at+8]) || bytes.Equal(objects[0][at+8:at+tail], objects[1][at+8:at+tail]) {
			t.Errorf("frame %d has the same salt or tag", i)
		}
	}
}

// FuzzObject looks for an object that is not the blob's and gives bytes that are not.
func FuzzObject(f *testing.F) {
	m := newMemory()
	l, b := newTier(f, m), newBlob(chunk+100, 1)
	put(f, l, b, 1)
	good := m.objects[objectName(b, 1)]
	for _, at := range []int{0, chunk, chunk + 8, frame, len(good) - 1} {
		f.Add(at, []byte{1}, len(good))
		f.Add(at, good[:tail], len(good))
		f.Add(at, []byte{}, at)
	}
	f.Fuzz(func(t *testing.T, at int, patch []byte, size int) {
		object := slices.Clone(good)
		if size >= 0 && size <= len(object) {
			object = object[:size]
		}
		if at >= 0 && at < len(object) {
			copy(object[at:], patch)
		}
		m := newMemory()
		m.objects[objectName(b, 1)] = object
		got, err := drain(t, newTier(t, m), b, b.object(1))
		if whole := bytes.Equal(object, good); whole != (err == nil) {
			t.Fatalf("whole is %v: %v", whole, err)
		}
		if err == nil && !bytes.Equal(got, b.data) || !bytes.HasPrefix(b.data, got) {
			t.Fatalf("%d wrong bytes", len(got))
		}
		if err != nil && !errors.Is(err, tier.ErrDamaged) {
			t.Fatalf("damage is called %v", err)
		}
	})
}

// FuzzNames looks for a name in a store that is taken for another blob's, or that is
// not what it was made from.
func FuzzNames(f *testing.F) {
	b := newBlob(10, 1)
	for _, suffix := range []string{"0000000000000001", "1", "+000000000000001", "000000000000000A", "0000000000000001/x", "00000000000000001"} {
		f.Add(suffix)
	}
	f.Fuzz(func(t *testing.T, suffix string) {
		m := newMemory()
		name := objectName(b, 0)
		name = name[:len(name)-16] + suffix
		m.objects[name] = make([]byte, 10+tail)
		o, found, err := newTier(t, m).Find(t.Context(), b.digest)
		if err != nil {
			t.Fatal(err)
		}
		if found && objectName(b, o.Generation) != name {
			t.Fatalf("%q is taken for generation %d", name, o.Generation)
		}
	})
}
