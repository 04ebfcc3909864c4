package permit_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

// TestSharedTampered: of a value that was changed or moved nothing is believed.
func TestSharedTampered(t *testing.T) {
	p, g := newPlace(), &registry{status: 200}
	names := make(map[string]permit.Name)
	values := make(map[string][]byte)
	c := replica(t, minute, g, p)
	type caller struct {
		r    permit.Resource
		auth permit.Secret
	}
	manifest := blobOf("a")
	manifest.Kind = "manifests"
	callers := map[string]caller{
		"manifest": {manifest, "x"},
		"mine":     {blobOf("a"), "x"}, "another caller's": {blobOf("a"), "y"}, "another repository's": {blobOf("b"), "x"},
		"another tag's": {tagOf("a", "v1"), "x"},
	}
	for what, w := range callers {
		expect(t, c, w.r, w.auth, permit.Range, "200")
		names[what] = permit.NameOf(c, w.r, w.auth)
		values[what] = p.kept[names[what]].value
	}
	mine := names["mine"]
	g.set(0)
	try := func(what string, value []byte, epoch uint64) {
		t.Helper()
		p.mangle = func(n permit.Name, g *permit.Grant) {
			if n == mine {
				*g = permit.Grant{Value: value, Left: time.Hour, Epoch: epoch}
			}
		}
		c := replica(t, minute, g, p)
		expect(t, c, blobOf("a"), "x", permit.Range, "error")
		if s := c.Stats(); s.SharedInvalid != 1 && len(value) > 0 || s.SharedHits != 0 {
			t.Errorf("%s: %+v", what, s)
		}
	}
	v := values["mine"]
	for i := range v {
		changed := bytes.Clone(v)
		changed[i] ^= 1
		try("bit", changed, 1)
		try("cut", v[:i], 1)
	}
	try("longer", append(bytes.Clone(v), 0), 1)
	try("twice", append(bytes.Clone(v), v...), 1)
	for _, epoch := range []uint64{0, 2, 1 << 63} {
		try("epoch", v, epoch)
	}
	for what := range callers {
		if what != "mine" {
			try(what, values[what], 1)
		}
	}
	// One of a replica with another secret.
	other := permit.New(minute, (&registry{status: 200}).head)
	if err := other.Share(p, bytes.Repeat([]byte("x"), 32)); err != nil {
		t.Fatal(err)
	}
	p.mangle = nil
	expect(t, other, blobOf("a"), "x", permit.Range, "200")
	try("another secret's", p.kept[permit.NameOf(other, blobOf("a"), "x")].value, 1)
	try("another digest", permit.Sealed(c, blobOf("a"), "x", digest.Digest(sha[:70]+"0")), 1)
	// As it was: it would have counted.
	p.mangle = nil
	expect(t, replica(t, minute, g, p), blobOf("a"), "x", permit.Range, "200 cached")
}

// TestSharedReplayed: what was there once is worth nothing after its time, whatever the
// place says of how long it lasts and which epoch it is.
func TestSharedReplayed(t *testing.T) {
	for _, left := range []time.Duration{time.Hour, 1 << 62, seconds(60), 0, -1, -time.Hour} {
		for _, later := range []int{0, 30, 59, 60, 61, 3600} {
			synctest.Test(t, func(t *testing.T) {
				p, g := newPlace(), &registry{status: 200}
				expect(t, replica(t, minute, g, p), blobOf("a"), "", permit.Range, "200")
				kept := maps.Clone(p.kept)
				time.Sleep(seconds(later))
				p.mangle = func(n permit.Name, g *permit.Grant) { // also after a refusal
					*g = permit.Grant{Value: slices.Clone(kept[n].value), Left: left, Epoch: kept[n].epoch}
				}
				g.set(0)
				want := "error"
				if later < 60 && left > 0 {
					want = "200 cached"
				}
				c := replica(t, minute, g, p)
				expect(t, c, blobOf("a"), "", permit.Range, want)
				if s := c.Stats(); s.SharedInvalid != 0 {
					t.Errorf("%+v", s)
				}
				time.Sleep(seconds(60 - min(later, 60)))
				expect(t, c, blobOf("a"), "", permit.Range, "error")
			})
		}
	}
}

// plain is a value without its MAC.
func plain(life, expires, size int64, texts ...string) []byte {
	b := []byte{1}
	for _, n := range []int64{life, expires, size} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	for _, s := range texts {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

// values are what is and is not one.
var plainValues = []struct {
	b  []byte
	ok bool
}{
	{plain(1, 1, 1234, sha, "a/b"), true},
	{plain(int64(30*24*time.Hour), 1<<62, -1, "", ""), true},
	{plain(1, -5, 0, "", "a/b"), true},
	{plain(0, 1, 1, "", ""), false},
	{plain(-1, 1, 1, "", ""), false},
	{plain(int64(30*24*time.Hour)+1, 1, 1, "", ""), false},
	{plain(1, 1, -2, "", ""), false},
	{plain(1, 1, 1, "sha256:short", ""), false},
	{plain(1, 1, 1, "../../etc/passwd", ""), false},
	{plain(1, 1, 1, sha, "A/B"), false},
	{plain(1, 1, 1, sha, "a/b; c=d"), false},
	{plain(1, 1, 1, sha, "a/b\r\nX: y"), false},
	{plain(1, 1, 1, sha, " a/b"), false},
	{plain(1, 1, 1, sha, "a/b", ""), false},
	{plain(1, 1, 1, sha), false},
	{plain(1, 1, 1), false},
	{append([]byte{2}, plain(1, 1, 1, "", "")[1:]...), false},
	{nil, false},
}

func TestSharedValue(t *testing.T) {
	for i, v := range plainValues {
		again, err := permit.Reread(v.b)
		if (err == nil) != v.ok || v.ok && !bytes.Equal(again, v.b) {
			t.Errorf("value %d: %v", i, err)
		}
	}
}

// FuzzSharedValue: what is read is written the same way, so that there is one way to
// say a thing.
func FuzzSharedValue(f *testing.F) {
	for _, v := range plainValues {
		f.Add(v.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if again, err := permit.Reread(b); err == nil && !bytes.Equal(again, b) {
			t.Fatalf("%q is written as %q", b, again)
		}
	})
}

// FuzzSharedGranted: whatever the place says, nobody is allowed by it.
func FuzzSharedGranted(f *testing.F) {
	f.Add([]byte("x"), int64(time.Hour), uint64(1))
	for _, v := range plainValues {
		f.Add(append(make([]byte, permit.MACSize), v.b...), int64(time.Minute), uint64(1))
	}
	p, g := newPlace(), &registry{}
	f.Fuzz(func(t *testing.T, value []byte, left int64, epoch uint64) {
		p.mangle = func(_ permit.Name, g *permit.Grant) {
			*g = permit.Grant{Value: value, Left: time.Duration(left), Epoch: epoch}
		}
		expect(t, replica(t, minute, g, p), blobOf("a"), "", permit.Range, "error")
	})
}
