package indexcost_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/proxy/permit"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
)

// patience is how long a call may take on a machine that does much else.
const patience = time.Minute

var blobs = flag.Int("blobs", 30_000, "how many blobs memory is measured with")

// origin is the upstream of all blobs.
const origin = "registry.example.com"

// size of the blobs that are told of, in bytes.
const size = 14 << 20

// TestMemory measures what is in Redis for each blob, and compares it with what the
// simulator takes for that.
func TestMemory(t *testing.T) {
	r := newRig(t)
	n := *blobs
	all := r.replicas(5)
	x := all[0]
	last := r.info("memory", "used_memory")
	// grown returns the bytes that were added, for each of so many, and says so.
	grown := func(what string, each int) int64 {
		now := r.info("memory", "used_memory")
		by := (now - last) / float64(each)
		last = now
		t.Logf("%-11s %6.1f bytes, of a million %6.1f MB", what, by, by)
		return int64(math.Round(by))
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var got simulate.RedisMemory
	must(hold(x, "", 0, n))
	got.Blob = grown("blob", n)
	// Who fetched it said so before it was verified, and of which upstream.
	must(hold(x, origin, 0, n))
	got.Blob += grown("by origin", n)
	for _, other := range all[1:] {
		must(hold(other, "", 0, n))
	}
	got.Holder = grown("holder", n*(len(all)-1))
	tokens := make([]uint64, n)
	must(each(n, func(ctx context.Context, i int) (err error) {
		tokens[i], _, err = x.Claim(ctx, blob(i).Digest)
		return err
	}))
	got.Token = grown("claim", n)
	must(each(n, func(ctx context.Context, i int) error {
		return x.Publish(ctx, blob(i).Digest, sharedindex.Stored{Generation: tokens[i], Size: size})
	}))
	got.Stored = grown("stored", n)
	must(each(n, func(ctx context.Context, i int) error { return lease(ctx, x, n+i) }))
	got.Token = max(got.Token, grown("lease", n))
	must(each(n, func(ctx context.Context, i int) error { return allow(ctx, x, i/20, i) }))
	got.Permit = grown("permission", n)
	want := simulate.MeasuredMemory
	for _, m := range []struct {
		name      string
		got, want int64
	}{
		{"blob", got.Blob, want.Blob}, {"holder", got.Holder, want.Holder}, {"stored", got.Stored, want.Stored},
		{"token", got.Token, want.Token}, {"permit", got.Permit, want.Permit},
	} {
		// Tables of Redis double, which is 16 bytes a key more or less.
		if off := math.Abs(float64(m.got - m.want)); off > 32+0.15*float64(m.want) {
			t.Errorf("%s takes %d bytes, the simulator says %d", m.name, m.got, m.want)
		}
	}
}

// lease grants a lease and ends it: its last token stays.
func lease(ctx context.Context, x *sharedindex.Index, i int) error {
	w := wanted(i)
	p, err := x.Locate(ctx, w)
	if err != nil || p.Lease == nil {
		return err
	}
	return x.Release(ctx, w.Key, p.Lease.Token, false)
}

// wanted is the i-th blob of an upstream.
func wanted(i int) sharedindex.Wanted {
	k := blob(i)
	k.Origin = origin
	return sharedindex.Wanted{Key: k, Extent: sharedindex.Extent{Off: 0, End: size}}
}

// permission names one of a scope.
func permission(scope, item int) permit.Name {
	return permit.Name{Scope: [32]byte(sum(-1 - scope)), Item: [32]byte(sum(item))}
}

// allow grants a permission of a scope.
func allow(ctx context.Context, x *sharedindex.Index, scope, item int) error {
	n := permission(scope, item)
	g, err := x.Granted(ctx, n)
	if err != nil {
		return err
	}
	kept, err := x.Grant(ctx, n, g.Epoch, []byte{1}, time.Hour)
	if err == nil && !kept {
		err = fmt.Errorf("permission %d of scope %d is not kept", item, scope)
	}
	return err
}
