package cluster_test

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

func three(w *world) []*replica {
	return []*replica{w.replica(false), w.replica(false), w.replica(false)}
}

// An upstream sends each byte once, whatever the number of replicas and of those who
// read, and what was fetched is written to the tier once.
func TestOnce(t *testing.T) {
	w, _ := newWorld(t)
	all := three(w)
	b := newBlob(24<<20, 1)
	up := &upstream{b: b, hook: func(context.Context, int64) error { time.Sleep(50 * time.Microsecond); return nil }}
	var g errgroup.Group
	for i := range 30 {
		g.Go(func() error { return all[i%3].whole(t.Context(), b, up) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if sent := up.bytes(); float64(sent) > 1.01*float64(b.desc.Size) {
		t.Errorf("the upstream sent %d bytes of %d", sent, b.desc.Size)
	}
	eventually(t, "the tier has it", func() bool { return all[0].known(b) })
	for _, r := range all {
		if n := r.Stats(); n.Leases > 0 {
			t.Errorf("%s still has %d leases", r.name, n.Leases)
		}
	}
	if n := w.objects(); n != 1 {
		t.Errorf("it is in the tier %d times", n)
	}
	// One that comes later gets it from the others, and from the tier when they are gone.
	late := w.replica(false)
	if err := late.whole(t.Context(), b, up); err != nil {
		t.Fatal(err)
	}
	if n := late.Stats(); n.Peers.Bytes != b.desc.Size {
		t.Errorf("from peers: %+v", n.Peers)
	}
	for _, r := range append(all, late) {
		r.peers.CloseClientConnections()
		r.peers.Close()
	}
	last := w.replica(false)
	if err := last.whole(t.Context(), b, up); err != nil {
		t.Fatal(err)
	}
	if n := last.Stats(); n.Tier.Bytes != b.desc.Size || n.Upstream.Bytes != 0 {
		t.Errorf("from the tier %+v, from the upstream %+v", n.Tier, n.Upstream)
	}
	if sent := up.bytes(); float64(sent) > 1.01*float64(b.desc.Size) {
		t.Errorf("in the end the upstream sent %d bytes of %d", sent, b.desc.Size)
	}
}

// Many blobs that all replicas are asked for at the same moment come once each: a lease
// that was granted just now is not taken for one that nobody uses.
func TestManyAtOnce(t *testing.T) {
	w, _ := newWorld(t)
	w.store = nil
	all := three(w)
	var sent, size int64
	for i := range 60 {
		b := newBlob(256<<10, 100+uint64(i))
		up := &upstream{b: b}
		var g errgroup.Group
		for j := range 6 {
			g.Go(func() error { return all[j%3].whole(t.Context(), b, up) })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		sent += up.bytes()
		size += b.desc.Size
	}
	if float64(sent) > 1.01*float64(size) {
		t.Errorf("the upstream sent %d bytes of %d", sent, size)
	}
}

// Parts that are read here and there are right, and most are fetched once.
func TestParts(t *testing.T) {
	w, _ := newWorld(t)
	all := three(w)
	b := newBlob(8<<20, 2)
	up := &upstream{b: b}
	var g errgroup.Group
	for i := range 12 {
		g.Go(func() error {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range 60 {
				off := r.Int64N(b.desc.Size)
				n := 1 + r.Int64N(min(300_000, b.desc.Size-off))
				if err := all[i%3].read(t.Context(), b, up, off, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	// Small pieces that another has are not worth a request of their own.
	if sent := up.bytes(); float64(sent) > 1.3*float64(b.desc.Size) {
		t.Errorf("the upstream sent %d bytes of %d", sent, b.desc.Size)
	}
}

// A replica that dies while it fetches costs the others nothing but what it had not
// passed on.
func TestHolderDies(t *testing.T) {
	w, _ := newWorld(t)
	all := three(w)
	b := newBlob(16<<20, 3)
	dead, die := context.WithCancel(t.Context())
	var once sync.Once
	// What the first fetches ends in the middle, and it with that.
	first := &upstream{b: b, hook: func(ctx context.Context, pos int64) error {
		if pos >= 8<<20 {
			once.Do(func() {
				for all[1].Stats().Peers.Bytes < 7<<20 || all[2].Stats().Peers.Bytes < 7<<20 {
					if !pause.For(ctx, time.Millisecond) {
						return
					}
				}
				all[0].peers.Listener.Close()
				all[0].peers.CloseClientConnections()
				die()
			})
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	others := &upstream{b: b}
	var g errgroup.Group
	begun := make(chan struct{})
	g.Go(func() error {
		close(begun)
		if err := all[0].whole(dead, b, first); err == nil {
			return errors.New("the one that died has read all")
		}
		return nil
	})
	<-begun
	eventually(t, "the first fetches", func() bool { return all[0].Stats().Leases > 0 || all[0].Stats().Upstream.Segments > 0 })
	for i := range 10 {
		g.Go(func() error { return all[1+i%2].whole(t.Context(), b, others) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if sent := first.bytes() + others.bytes(); float64(sent) > 1.15*float64(b.desc.Size) {
		t.Errorf("the upstream sent %d bytes of %d", sent, b.desc.Size)
	}
}

// What an upstream refuses one replica's client is that client's error only.
func TestOneIsRefused(t *testing.T) {
	w, _ := newWorld(t)
	all := three(w)
	b := newBlob(4<<20, 4)
	no := blob.Permanent(errors.New("401"))
	refused := &upstream{b: b, fail: func(int64) error { return no }}
	fine := &upstream{b: b}
	var g errgroup.Group
	for i := range 9 {
		g.Go(func() error {
			if i%3 == 0 {
				// It may get what others fetch: its permission was checked before.
				if err := all[0].whole(t.Context(), b, refused); err != nil && !errors.Is(err, no) {
					return err
				}
				return nil
			}
			return all[i%3].whole(t.Context(), b, fine)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// Without Redis each works alone, with the tier, and with Redis again together.
func TestRedisAway(t *testing.T) {
	w, redis := newWorld(t)
	all := three(w)
	redis.Kill()
	b := newBlob(4<<20, 5)
	up := &upstream{b: b}
	if err := all[0].whole(t.Context(), b, up); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tier has it", func() bool { _, ok := all[0].stored(b); return ok })
	for _, r := range all[1:] {
		if err := r.whole(t.Context(), b, up); err != nil {
			t.Fatal(err)
		}
		if n := r.Stats(); n.Tier.Bytes != b.desc.Size {
			t.Errorf("from the tier: %+v", n.Tier)
		}
	}
	if err := redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are there again", func() bool {
		there, err := all[0].Replicas(t.Context())
		return err == nil && len(there) == 3
	})
	next := newBlob(4<<20, 6)
	up = &upstream{b: next}
	var g errgroup.Group
	for _, r := range all {
		g.Go(func() error { return r.whole(t.Context(), next, up) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if sent := up.bytes(); float64(sent) > 1.01*float64(next.desc.Size) {
		t.Errorf("the upstream sent %d bytes of %d", sent, next.desc.Size)
	}
}

// Without an index there is the tier.
func TestTierOnly(t *testing.T) {
	w, _ := newWorld(t)
	w.redis = nil
	a, b := w.replica(false), w.replica(false)
	x := newBlob(3<<20, 7)
	up := &upstream{b: x}
	if err := a.whole(t.Context(), x, up); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tier has it", func() bool { _, ok := a.stored(x); return ok })
	if err := b.whole(t.Context(), x, up); err != nil {
		t.Fatal(err)
	}
	if up.bytes() != x.desc.Size {
		t.Errorf("the upstream sent %d bytes", up.bytes())
	}
	got, ok := b.Fetch(t.Context(), x.desc.Digest, 4<<20)
	if !ok || !slices.Equal(got, x.data) {
		t.Error("it is not to be had whole")
	}
	if _, ok := b.Fetch(t.Context(), x.desc.Digest, 1<<20); ok {
		t.Error("it is larger than what was wanted at most")
	}
}

// What is small is got whole from a peer, or from the tier when there is none, and from
// nowhere if it is not there.
func TestFetch(t *testing.T) {
	w, _ := newWorld(t)
	a, b := w.replica(false), w.replica(false)
	x := newBlob(3000, 13)
	if _, ok := b.Fetch(t.Context(), x.desc.Digest, 4<<20); ok {
		t.Error("it is nowhere")
	}
	if err := a.whole(t.Context(), x, &upstream{b: x}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tier has it", func() bool { return b.known(x) })
	got, ok := b.Fetch(t.Context(), x.desc.Digest, 4<<20)
	if n := b.Stats(); !ok || !slices.Equal(got, x.data) || n.Peers.Bytes != 3000 {
		t.Errorf("from a peer: %d bytes, %v, %+v", len(got), ok, n.Peers)
	}
	a.peers.CloseClientConnections()
	a.peers.Close()
	got, ok = b.Fetch(t.Context(), x.desc.Digest, 4<<20)
	if n := b.Stats(); !ok || !slices.Equal(got, x.data) || n.Tier.Bytes != 3000 {
		t.Errorf("from the tier: %d bytes, %v, %+v", len(got), ok, n.Tier)
	}
	if _, ok := b.Fetch(t.Context(), x.desc.Digest, 2999); ok {
		t.Error("it is larger than what was wanted at most")
	}
}

// A holder that was stopped for longer than its lease goes on with what its successor
// fetches, and releases nothing of it.
func TestStoppedHolder(t *testing.T) {
	w, _ := newWorld(t)
	w.lease = 500 * time.Millisecond
	stopped, next := w.replica(true), w.replica(false) // the first renews nothing
	b := newBlob(8<<20, 8)
	half, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := &upstream{b: b, hook: func(ctx context.Context, pos int64) error {
		if pos >= 4<<20 {
			once.Do(func() { close(half) })
			select {
			case <-proceed:
			case <-ctx.Done():
			}
		}
		return ctx.Err()
	}}
	fast := &upstream{b: b}
	read := make(chan error, 1)
	go func() { read <- stopped.whole(t.Context(), b, slow) }()
	<-half
	time.Sleep(2 * w.lease)
	if err := next.whole(t.Context(), b, fast); err != nil {
		t.Fatal(err)
	}
	close(proceed)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if n := stopped.Stats(); n.Fenced != 1 || n.Peers.Bytes == 0 {
		t.Errorf("the one that was stopped: %+v", n)
	}
	if sent := slow.bytes(); sent > 5<<20 {
		t.Errorf("it went on to fetch: %d bytes", sent)
	}
}

// What a replica would write to the tier after it lost the right to is not there in the
// end.
func TestStoppedWriter(t *testing.T) {
	w, _ := newWorld(t)
	w.lease = 500 * time.Millisecond
	gate := newGate(w.store)
	free := w.store
	w.store = gate
	stopped := w.replica(true)
	w.store = free
	next := w.replica(true)
	b := newBlob(1<<20, 9)
	for _, r := range []*replica{stopped, next} {
		if err := r.whole(t.Context(), b, &upstream{b: b}); err != nil {
			t.Fatal(err)
		}
	}
	shared := make(chan error, 1)
	go func() { shared <- stopped.Share(t.Context(), b.desc.Digest) }()
	<-gate.reached
	time.Sleep(2 * w.lease)
	if err := next.Share(t.Context(), b.desc.Digest); err != nil {
		t.Fatal(err)
	}
	first, ok := next.stored(b)
	if !ok || !next.known(b) {
		t.Fatal("the successor has written nothing")
	}
	close(gate.open)
	if err := <-shared; err != nil {
		t.Fatal(err)
	}
	if now, _ := next.stored(b); now != first {
		t.Errorf("generation %d was published, and in the end there is %d", first.Generation, now.Generation)
	}
	// Nothing is left of the other, older one.
	if err := next.tier.Remove(t.Context(), b.desc.Digest, first.Generation); err != nil {
		t.Fatal(err)
	}
	if left, ok := next.stored(b); ok {
		t.Errorf("generation %d is left", left.Generation)
	}
}

// Announcements reach the others, also one that was away, and not who made them.
func TestAnnouncements(t *testing.T) {
	w, _ := newWorld(t)
	a, b := w.replica(false), w.replica(false)
	eventually(t, "both are there, and know from where on to follow", func() bool {
		there, err := a.Replicas(t.Context())
		_, none := os.Stat(b.position)
		return err == nil && len(there) == 2 && strings.Contains(string(there[0].Status), there[0].Name) && none == nil
	})
	told := func(r *replica) []string {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.Clone(r.told)
	}
	b.stopSharing()
	if err := a.Announce(t.Context(), []byte("while it is away")); err != nil {
		t.Fatal(err)
	}
	b.run("sharing again", b.Run)
	eventually(t, "it was told what it missed", func() bool { return slices.Equal(told(b), []string{"while it is away"}) })
	if err := a.Announce(t.Context(), []byte("forget it")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was told the next", func() bool { return slices.Equal(told(b), []string{"while it is away", "forget it"}) })
	if got := told(a); len(got) > 0 {
		t.Errorf("who announced it was told %q", got)
	}
}

// A peer whose disk has become wrong costs one pull, which fails; the next one gets the
// blob from elsewhere.
func TestPeerIsWrong(t *testing.T) {
	w, _ := newWorld(t)
	w.store = nil
	a, b := w.replica(false), w.replica(false)
	x := newBlob(2<<20, 10)
	if err := a.whole(t.Context(), x, &upstream{b: x}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is known", func() bool {
		place, err := b.index.Look(t.Context(), sharedindex.Key{Digest: x.desc.Digest})
		return err == nil && len(place.Holders) == 1
	})
	damage(t, a.dir, x)
	up := &upstream{b: x}
	err := b.whole(t.Context(), x, up)
	if err == nil || b.Stats().Peers.Bytes == 0 {
		t.Fatalf("what is wrong was read: %v, from peers %+v", err, b.Stats().Peers)
	}
	if err := b.whole(t.Context(), x, up); err != nil {
		t.Error(err)
	}
}

// damage changes a byte in the file of a blob.
func damage(t *testing.T, dir string, x content) {
	t.Helper()
	changed := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".data") {
			return err
		}
		f, err := os.OpenFile(p, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		changed++
		_, err = f.WriteAt([]byte{^x.data[1<<20]}, 1<<20)
		return err
	})
	if err != nil || changed != 1 {
		t.Fatalf("%d files changed, %v", changed, err)
	}
}

// What is said in the name of a replica by who does not know the secret is not passed on.
func TestForgedAnnouncement(t *testing.T) {
	w, _ := newWorld(t)
	a, b := w.replica(false), w.replica(false)
	eventually(t, "both are there", func() bool {
		there, err := a.Replicas(t.Context())
		return err == nil && len(there) == 2
	})
	for _, text := range []string{"forged", strings.Repeat("forged", 20)} {
		if err := a.index.Announce(t.Context(), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Announce(t.Context(), []byte("true")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the true one was told", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.told) > 0
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.told, []string{"true"}) {
		t.Errorf("it was told %q", b.told)
	}
}

// Redis that has lost its memory is told again what replicas have.
func TestRedisForgets(t *testing.T) {
	w, redis := newWorld(t)
	w.store = nil
	a, b := w.replica(false), w.replica(false)
	x := newBlob(100<<10, 11)
	up := &upstream{b: x}
	if err := a.whole(t.Context(), x, up); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was told that a is there", func() bool {
		there, err := b.Replicas(t.Context())
		return err == nil && len(there) == 2
	})
	redis.Kill() // it keeps nothing on disk
	if err := redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is known again", func() bool {
		place, err := b.index.Look(t.Context(), sharedindex.Key{Digest: x.desc.Digest})
		return err == nil && len(place.Holders) == 1
	})
	if err := b.whole(t.Context(), x, up); err != nil {
		t.Fatal(err)
	}
	if up.bytes() != x.desc.Size {
		t.Errorf("the upstream sent %d bytes", up.bytes())
	}
}

// A lease that is left of an earlier life of a replica keeps it from nothing.
func TestOwnOldLease(t *testing.T) {
	w, _ := newWorld(t)
	a := w.replica(false)
	x := newBlob(1<<20, 12)
	key := sharedindex.Key{Origin: origin, Digest: x.desc.Digest}
	old, err := a.index.Locate(t.Context(), sharedindex.Wanted{Key: key, Extent: sharedindex.Extent{End: x.desc.Size}})
	if err != nil || old.Lease == nil {
		t.Fatalf("%+v, %v", old, err)
	}
	if err := a.whole(t.Context(), x, &upstream{b: x}); err != nil {
		t.Fatal(err)
	}
	if err := a.index.Renew(t.Context(), key, old.Lease.Token); !errors.Is(err, sharedindex.ErrFenced) {
		t.Errorf("the old lease: %v", err)
	}
}
