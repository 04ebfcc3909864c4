package registrycache_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

// shared returns the blob of a trial, at the upstream.
func (r *replicas) shared(seed uint64) *origin.Content {
	size := int64(48 << 20)
	if full() {
		size = 200 << 20
	}
	b := origin.Random(seed, size)
	r.up.AddBlob("library/shared", b)
	return b
}

// crowd has 100 clients pull a blob cold, spread over the replicas. What fails they try
// at the next replica.
func (r *replicas) crowd(b *origin.Content) {
	r.t.Helper()
	err := swarm.Run(r.ctx, wholeClients, func(ctx context.Context, i int) error {
		return r.pullAnywhere(ctx, i, "library/shared", b)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// paced has the upstream send as fast as lets something happen in the middle.
func (r *replicas) paced(b *origin.Content) {
	r.up.SetRule(func(req *http.Request) origin.Fault {
		if isBlob(req, b) {
			return origin.Fault{Rate: b.Size / 4}
		}
		return origin.Fault{}
	})
}

// midway runs f when the upstream has sent half of a blob.
func (r *replicas) midway(b *origin.Content, f func()) (wait func()) {
	var done sync.WaitGroup
	done.Go(func() {
		for r.up.Stats().Blobs[b.Digest].Bytes < b.Size/2 {
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
		f()
	})
	return done.Wait
}

// holder returns the replica that fetches from the upstream.
func (r *replicas) holder() int {
	for i := range r.all {
		if r.stat(i, "reprise_registry_cache_cluster_leases") > 0 {
			return i
		}
	}
	r.t.Error("no replica has a lease")
	return 0
}

// TestReplicasOnce has 100 clients of three replicas pull one blob cold: the upstream
// sends it once, and afterwards it is in the bucket, once.
func TestReplicasOnce(t *testing.T) {
	for name, nodes := range map[string]bool{"redis": false, "redis cluster": true} {
		t.Run(name, func(t *testing.T) {
			r := beginReplicas(t, sharing{nodes: nodes})
			b := r.shared(21)
			r.crowd(b)
			t.Logf("upstream bytes / unique bytes: %.4f", r.ratio(b))
			if got := r.ratio(b); got > maxWaste {
				t.Errorf("upstream bytes / unique bytes: %.4f, the limit is %.2f", got, maxWaste)
			}
			r.eventually("it is written to the bucket", func() bool {
				return r.written() == 1 && len(r.objects(b.Digest)) == 1
			})
			// From there each replica can give it, when it has nothing and nobody else is.
			for _, i := range r.all {
				if err := i.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.RemoveAll(filepath.Join(r.all[2].Data, "content")); err != nil {
				t.Fatal(err)
			}
			if err := r.all[2].Start(r.ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := r.target(2, "").Pull(r.ctx, swarm.Pull{Repo: "library/shared", Digest: b.Digest, Blob: b}); err != nil {
				t.Fatal(err)
			}
			if got := r.ratio(b); got > maxWaste {
				t.Errorf("after a restart upstream bytes / unique bytes: %.4f, the limit is %.2f", got, maxWaste)
			}
		})
	}
}

// written is how many blobs the replicas have written to the bucket.
func (r *replicas) written() (n float64) {
	for i := range r.all {
		n += r.stat(i, "reprise_registry_cache_cluster_written_total")
	}
	return n
}

// TestReplicaKilled kills the replica that fetches in the middle of that: the others go
// on where it was.
func TestReplicaKilled(t *testing.T) {
	r := beginReplicas(t, sharing{})
	b := r.shared(22)
	r.paced(b)
	wait := r.midway(b, func() { r.all[r.holder()].Kill() })
	r.crowd(b)
	wait()
	t.Logf("upstream bytes / unique bytes: %.4f", r.ratio(b))
	// What it had received and not passed on is fetched again.
	if got := r.ratio(b); got > 1.1 {
		t.Errorf("upstream bytes / unique bytes: %.4f", got)
	}
	for _, i := range r.all { // it ends in peace, or was killed
		select {
		case <-i.Done():
			i.Forget()
		default:
		}
	}
}

// TestRedisKilled kills Redis in the middle of a fetch and brings it back: nobody sees
// anything of that, and afterwards the replicas work together again.
func TestRedisKilled(t *testing.T) {
	r := beginReplicas(t, sharing{})
	b := r.shared(23)
	r.paced(b)
	wait := r.midway(b, r.redis[0].Kill)
	r.crowd(b)
	wait()
	t.Logf("upstream bytes / unique bytes: %.4f", r.ratio(b))
	// Without it each is alone.
	alone := r.shared(24)
	r.crowd(alone)
	if got := r.ratio(alone); got > 3*maxWaste {
		t.Errorf("alone, upstream bytes / unique bytes: %.4f for three replicas", got)
	}
	if err := r.redis[0].Start(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.together()
	b = r.shared(25)
	r.crowd(b)
	if got := r.ratio(b); got > maxWaste {
		t.Errorf("with Redis again, upstream bytes / unique bytes: %.4f, the limit is %.2f", got, maxWaste)
	}
}

// together waits until all replicas reach the index.
func (r *replicas) together() {
	r.t.Helper()
	for i := range r.all {
		r.eventually("a replica reaches Redis", func() bool { return r.stat(i, "reprise_registry_cache_cluster_index_up") == 1 })
	}
}

// TestBucketFails has the bucket fail in all ways while a blob is pulled that it has, and
// one that it has not.
func TestBucketFails(t *testing.T) {
	r := beginReplicas(t, sharing{})
	there := r.shared(26)
	if err := r.pullAnywhere(r.ctx, 0, "library/shared", there); err != nil {
		t.Fatal(err)
	}
	r.eventually("the bucket has it", func() bool { return len(r.objects(there.Digest)) == 1 })
	for i, f := range []s3test.Fault{
		{Status: http.StatusInternalServerError}, {Status: http.StatusServiceUnavailable}, {Reset: true, Bytes: 1 << 20},
		{Truncate: true, Bytes: 3 << 20}, {Flip: true, Bytes: 5 << 20}, {Stall: true, Bytes: 2 << 20},
	} {
		r.proxy.Heal()
		// A replica that has nothing, so that it is asked.
		if _, err := r.all[1].Command(r.ctx, "gc"); err != nil {
			t.Fatal(err)
		}
		r.empty(1)
		r.proxy.Break(f)
		if _, err := r.target(1, "").Pull(r.ctx, swarm.Pull{Repo: "library/shared", Digest: there.Digest, Blob: there}); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
		r.crowd(r.shared(30 + uint64(i)))
	}
	r.proxy.Heal()
}

// empty takes all that a replica has on its disk, and has the index forget that it has.
func (r *replicas) empty(i int) {
	r.t.Helper()
	if err := r.all[i].Stop(); err != nil {
		r.t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(r.all[i].Data, "content")); err != nil {
		r.t.Fatal(err)
	}
	if err := r.all[i].Start(r.ctx); err != nil {
		r.t.Fatal(err)
	}
}

// TestFrozenFetch stops the replica that fetches for longer than its lease: another goes
// on, and when the first wakes it fetches nothing more.
func TestFrozenFetch(t *testing.T) {
	r := beginReplicas(t, sharing{})
	b := r.shared(27)
	r.paced(b)
	frozen := make(chan int, 1)
	wait := r.midway(b, func() {
		i := r.holder()
		r.freeze(i)
		frozen <- i
	})
	var g sync.WaitGroup
	for i := range r.all {
		g.Go(func() {
			// Those of the frozen replica wait; when it wakes they get the rest.
			if _, err := r.target(i, "").Pull(r.ctx, swarm.Pull{Repo: "library/shared", Digest: b.Digest, Blob: b, Retry: true}); err != nil {
				t.Error(err)
			}
		})
	}
	wait()
	i := <-frozen
	for j := range r.all {
		if j != i {
			r.eventually("the others have all", func() bool { return r.complete(j, b.Digest) })
		}
	}
	sent := r.up.Stats().Blobs[b.Digest].Bytes
	r.thaw(i)
	g.Wait()
	r.eventually("it has all", func() bool { return r.complete(i, b.Digest) })
	if n := r.stat(i, "reprise_registry_cache_cluster_fenced_total"); n < 1 {
		t.Errorf("its lease was another's in the end, and it counts %v of these", n)
	}
	// What was on its way to it when it was stopped comes still.
	if after := r.up.Stats().Blobs[b.Digest].Bytes; after-sent > b.Size/4 {
		t.Errorf("it went on to fetch %d bytes", after-sent)
	}
}

// TestFrozenWrite stops a replica while it writes to the bucket, for longer than it has
// the right to. What its successor wrote is what stays.
func TestFrozenWrite(t *testing.T) {
	r := beginReplicas(t, sharing{})
	b := origin.Random(28, 8<<20) // which is one PUT
	r.up.AddBlob("library/shared", b)
	r.proxy.Break(s3test.Fault{Methods: []string{http.MethodPut}, Times: 1, Stall: true})
	// It is alone, so it writes.
	if _, err := r.target(0, "").Pull(r.ctx, swarm.Pull{Repo: "library/shared", Digest: b.Digest, Blob: b}); err != nil {
		t.Fatal(err)
	}
	r.eventually("it writes", func() bool { return len(r.objects(b.Digest)) == 1 })
	first := r.objects(b.Digest)[0]
	if _, err := r.target(1, "").Pull(r.ctx, swarm.Pull{Repo: "library/shared", Digest: b.Digest, Blob: b}); err != nil {
		t.Fatal(err)
	}
	r.freeze(0)
	r.eventually("its successor has written", func() bool { return r.stat(1, "reprise_registry_cache_cluster_written_total") == 1 })
	both := r.objects(b.Digest)
	if len(both) != 2 || both[0] != first {
		t.Fatalf("the bucket has %v, and %s was first", both, first)
	}
	written, err := os.ReadFile(r.object(b, both[1]))
	if err != nil {
		t.Fatal(err)
	}
	r.proxy.Heal()
	r.thaw(0)
	r.eventually("it has taken back what it wrote", func() bool { return len(r.objects(b.Digest)) == 1 })
	if now := r.objects(b.Digest); now[0] != both[1] {
		t.Errorf("the bucket has %v, and its successor wrote %s", now, both[1])
	}
	if now, err := os.ReadFile(r.object(b, both[1])); err != nil || string(now) != string(written) {
		t.Errorf("what its successor wrote was changed: %v", err)
	}
	r.empty(2)
	r.up.Reset()
	if _, err := r.target(2, "").Pull(r.ctx, swarm.Pull{Repo: "library/shared", Digest: b.Digest, Blob: b}); err != nil {
		t.Error(err)
	}
	if got := r.ratio(b); got > 0.01 {
		t.Errorf("it was fetched from the upstream: %.4f of it", got)
	}
}

func (r *replicas) object(b *origin.Content, generation string) string {
	hex := b.Digest.Encoded()
	return filepath.Join(r.s3.Data, "v1", "sha256", hex[:2], hex, generation)
}

// TestPurgeEverywhere has an operator of one replica purge a blob: no replica has it any
// more, and neither has the bucket.
func TestPurgeEverywhere(t *testing.T) {
	r := beginReplicas(t, sharing{})
	r.together()
	b := r.shared(29)
	r.crowd(b)
	r.eventually("the bucket has it", func() bool { return len(r.objects(b.Digest)) == 1 })
	if _, err := r.all[0].Command(r.ctx, "purge", b.Digest.String()); err != nil {
		t.Fatal(err)
	}
	for i := range r.all {
		r.eventually("no replica has it", func() bool { return !r.complete(i, b.Digest) })
	}
	if left := r.objects(b.Digest); len(left) > 0 {
		t.Errorf("the bucket still has %v", left)
	}
}
