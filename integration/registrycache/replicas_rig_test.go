package registrycache_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cachetest/testbed"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

// replicas are three caches that share: an index in Redis, a bucket, and what they have.
type replicas struct {
	trial
	all   []*instance.Instance
	redis []*redistest.Server
	s3    *s3test.Server
	proxy *s3test.Proxy // between the replicas and s3
}

// sharing is what trials of replicas vary.
type sharing struct {
	nodes bool // three nodes of a Redis Cluster and not one server
	over  values
}

// leaseTTL is long for the machine and short for the test.
const leaseTTL = 3 * time.Second

func beginReplicas(t *testing.T, s sharing) *replicas {
	t.Helper()
	r := &replicas{trial: newTrial(t, 2*patience)}
	var addrs []string
	if s.nodes {
		c := redistest.StartCluster(t)
		r.redis, addrs = c.Nodes, c.Addrs()
	} else {
		one := redistest.Start(t)
		r.redis, addrs = []*redistest.Server{one}, []string{one.Addr()}
	}
	r.s3 = s3test.Start(t)
	r.proxy = s3test.NewProxy(t, r.s3)
	dir := t.TempDir()
	secret := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cluster := values{
		"secretPath": secret("secret", strings.Repeat("the secret of a cluster ", 2)),
		"leaseTTL":   leaseTTL.String(),
		"redis":      values{"addresses": addrs, "permissions": true},
		"tier": values{"s3": values{
			"endpoint": r.proxy.Endpoint, "bucket": s3test.Bucket, "region": s3test.Region, "insecure": true,
			"accessKeyPath": secret("access", s3test.AccessKey), "secretKeyPath": secret("key", s3test.SecretKey),
		}},
	}
	for range 3 {
		address, err := testbed.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		own := values{"cluster": with(cluster, "address", address)}
		for k, v := range s.over {
			own[k] = v
		}
		r.all = append(r.all, startCache(r.ctx, t, instance.Config{Values: own, Upstream: r.up.Address}))
	}
	t.Cleanup(func() {
		for _, i := range r.all {
			nothingSecret(t, i, append(r.up.Secrets(), "the secret of a cluster", s3test.SecretKey))
		}
	})
	return r
}

// with returns v with a key more.
func with(v values, key string, value any) values {
	out := values{key: value}
	for k, x := range v {
		out[k] = x
	}
	return out
}

func (r *replicas) target(i int, authorization string) swarm.Target {
	return swarm.Target{Base: "http://" + r.all[i].Address, Authorization: authorization}
}

// stat returns a number of a replica's metrics, 0 if it is not there.
func (r *replicas) stat(i int, name string) float64 {
	m, err := r.all[i].Scrape(r.ctx)
	if err != nil {
		return 0
	}
	return m.Sum(name)
}

// pullAnywhere pulls a blob as a client that tries the next replica when one fails.
func (r *replicas) pullAnywhere(ctx context.Context, first int, repo string, b *origin.Content) error {
	var err error
	for i := range 20 {
		_, err = r.target((first+i)%len(r.all), "").Pull(ctx, swarm.Pull{Repo: repo, Digest: b.Digest, Blob: b})
		if err == nil || errors.Is(err, swarm.ErrWrong) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return err
}

// objects returns the generations of a blob in the bucket, the newest last.
func (r *replicas) objects(d digest.Digest) []string {
	var out []string
	for _, path := range r.object(d, "*") {
		out = append(out, filepath.Base(path))
	}
	slices.Sort(out)
	return out
}

// object returns the files of a generation of a blob, of all if it is "*".
func (r *replicas) object(d digest.Digest, generation string) []string {
	hex := d.Encoded()
	paths, err := filepath.Glob(filepath.Join(r.s3.Data, "v1-*", d.Algorithm().String(), hex[:2], hex, generation))
	if err != nil {
		r.t.Error(err)
	}
	return paths
}

// freeze stops the process of a replica, and thaw has it go on.
func (r *replicas) freeze(i int) { r.signal(i, syscall.SIGSTOP) }
func (r *replicas) thaw(i int)   { r.signal(i, syscall.SIGCONT) }

func (r *replicas) signal(i int, s syscall.Signal) {
	r.t.Helper()
	if err := r.all[i].Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// complete reports whether a replica has all of a blob, verified.
func (r *replicas) complete(i int, d digest.Digest) bool {
	b := blobOf(r.ctx, r.all[i], d)
	return b.Complete && !b.Verified.IsZero()
}

// ratio is upstream bytes to bytes of a blob.
func (r *replicas) ratio(b *origin.Content) float64 {
	return float64(r.up.Stats().Blobs[b.Digest].Bytes) / float64(b.Size)
}
