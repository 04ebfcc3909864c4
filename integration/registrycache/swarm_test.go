package registrycache_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
	"github.com/reprise-containers/reprise/integration/registrycache/swarm"
)

const (
	wholeClients = 100
	lazyClients  = 50
	lazyReads    = 20       // of each lazy client
	maxWaste     = 1.01     // upstream bytes to bytes that somebody asked for
	lazyLongest  = 96 << 10 // of a read
)

// crowd is 100 clients of one blob and 50 that read parts of another.
type crowd struct {
	*rig
	whole, lazy        *origin.Content
	wholeWant, lazyAll []byte
	retry              bool

	waiting sync.WaitGroup // whole clients without a first byte
	mu      sync.Mutex
	asked   []bool // bytes of lazy that somebody asked for, by 512
}

const grain = 512

func newCrowd(r *rig) *crowd {
	size := int64(48 << 20)
	if full() {
		size = 200 << 20
	}
	c := &crowd{rig: r, whole: origin.Random(1, size), lazy: origin.Random(2, 64<<20)}
	c.wholeWant, c.lazyAll = c.whole.Bytes(), c.lazy.Bytes()
	c.asked = make([]bool, c.lazy.Size/grain)
	c.waiting.Add(wholeClients)
	r.up.AddBlob("library/whole", c.whole)
	r.up.AddBlob("library/lazy", c.lazy)
	return c
}

// run runs the crowd; it fails the test if any byte anywhere was wrong.
func (c *crowd) run(ctx context.Context) {
	c.t.Helper()
	target := c.target("")
	err := swarm.Run(ctx, wholeClients+lazyClients, func(ctx context.Context, i int) error {
		if i >= wholeClients {
			return c.readParts(ctx, uint64(i))
		}
		var once sync.Once
		_, err := target.Pull(ctx, swarm.Pull{
			Repo: "library/whole", Digest: c.whole.Digest, Want: c.wholeWant, Retry: c.retry,
			First: func() { once.Do(c.waiting.Done) },
		})
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// readParts reads as a lazy client does, over one connection.
func (c *crowd) readParts(ctx context.Context, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 0))
	target := c.target("")
	target.Client = swarm.Lone()
	defer target.Client.CloseIdleConnections()
	for range lazyReads {
		n := (1 + rnd.Int64N(lazyLongest/grain)) * grain
		off := rnd.Int64N((c.lazy.Size-n)/grain) * grain
		c.mu.Lock()
		for i := off / grain; i < (off+n)/grain; i++ {
			c.asked[i] = true
		}
		c.mu.Unlock()
		p := swarm.Pull{Repo: "library/lazy", Digest: c.lazy.Digest, Want: c.lazyAll, Off: off, N: n, Retry: c.retry}
		if _, err := target.Pull(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// waste returns upstream bytes by bytes asked for, of both blobs; lost bytes of the
// lazy one are not counted.
func (c *crowd) waste(lost int64) (whole, lazy float64) {
	s := c.up.Stats()
	unique := 0
	for _, a := range c.asked {
		if a {
			unique += grain
		}
	}
	whole = float64(s.Blobs[c.whole.Digest].Bytes) / float64(c.whole.Size)
	lazy = float64(s.Blobs[c.lazy.Digest].Bytes-lost) / float64(unique)
	c.t.Logf("upstream bytes / unique bytes: %.4f whole, %.4f lazy (%d bytes asked for, in %d requests)",
		whole, lazy, unique, s.Blobs[c.lazy.Digest].Gets)
	return whole, lazy
}

func (c *crowd) checkWaste(lost int64) {
	c.t.Helper()
	whole, lazy := c.waste(lost)
	if whole > maxWaste || lazy > maxWaste {
		c.t.Errorf("upstream bytes / unique bytes: %.4f and %.4f, the limit is %.2f", whole, lazy, maxWaste)
	}
}

// kept returns how much of a blob is on disk in bytes.
func (r *rig) kept(d digest.Digest) int64 { return blobOf(r.ctx, r.cache, d).Bytes }

// keptBlob is what a cache says of a blob.
type keptBlob struct {
	Digest   digest.Digest
	Bytes    int64
	Complete bool
	Verified time.Time
}

// blobOf returns what a cache has of a blob, nothing if it does not answer.
func blobOf(ctx context.Context, i *instance.Instance, d digest.Digest) keptBlob {
	out, err := i.Command(ctx, "stat", "--blobs", "--json")
	var blobs []keptBlob
	if err != nil || json.Unmarshal([]byte(out), &blobs) != nil {
		return keptBlob{}
	}
	for _, b := range blobs {
		if b.Digest == d {
			return b
		}
	}
	return keptBlob{}
}

func isBlob(r *http.Request, c *origin.Content) bool {
	return r.Method == http.MethodGet && len(r.URL.Path) > 64 && r.URL.Path[len(r.URL.Path)-71:] == c.Digest.String()
}

// TestSwarm has all clients begin cold. The upstream keeps the end of the blob
// back until each of them has its first byte: that they all come to an end shows
// that none waits for the end of the fetch.
func TestSwarm(t *testing.T) {
	c := newCrowd(begin(t, nil))
	c.up.SetRule(func(r *http.Request) origin.Fault {
		if isBlob(r, c.whole) {
			return origin.Fault{HoldAt: c.whole.Size - c.whole.Size/8}
		}
		return origin.Fault{}
	})
	go func() {
		c.waiting.Wait()
		c.up.SetRule(nil)
		c.up.Release()
	}()
	c.run(c.ctx)
	c.checkWaste(0)
	if got := c.up.Stats().Blobs[c.whole.Digest].Gets; got != 1 {
		t.Errorf("%d GETs of the blob that all wanted whole, want 1", got)
	}
}

// TestSwarmCut breaks the upstream's connection in the middle, without telling
// the clients to try again.
func TestSwarmCut(t *testing.T) {
	c := newCrowd(begin(t, nil))
	var cuts atomic.Int32
	c.up.SetRule(func(r *http.Request) origin.Fault {
		if isBlob(r, c.whole) && cuts.Add(1) <= 2 {
			return origin.Fault{CutAfter: c.whole.Size / 3}
		}
		return origin.Fault{}
	})
	c.run(c.ctx)
	c.checkWaste(0)
	if cuts.Load() < 3 {
		t.Errorf("the blob was asked for %d times; two answers were to be cut", cuts.Load())
	}
}

// TestSwarmLeaderLeaves has the client that caused the fetch go away in the
// middle of it.
func TestSwarmLeaderLeaves(t *testing.T) {
	c := newCrowd(begin(t, nil))
	c.up.SetRule(func(r *http.Request) origin.Fault {
		if isBlob(r, c.whole) {
			return origin.Fault{HoldAt: c.whole.Size / 4}
		}
		return origin.Fault{}
	})
	leader, leave := context.WithCancel(c.ctx)
	left := make(chan error, 1)
	go func() {
		_, err := c.target("").Pull(leader, swarm.Pull{Repo: "library/whole", Digest: c.whole.Digest, Want: c.wholeWant, First: leave})
		left <- err
	}()
	if err := <-left; err == nil {
		t.Fatal("the leader read all of a blob that is held back")
	}
	go func() {
		c.waiting.Wait()
		c.up.SetRule(nil)
		c.up.Release()
	}()
	c.run(c.ctx)
	c.checkWaste(0)
}

// TestSwarmKilled kills the cache in the middle; the clients try again behind
// what they have, as containerd does.
func TestSwarmKilled(t *testing.T) {
	c := newCrowd(begin(t, nil))
	c.retry = true
	c.up.SetRule(func(r *http.Request) origin.Fault {
		if isBlob(r, c.whole) {
			return origin.Fault{HoldAt: c.whole.Size / 2}
		}
		return origin.Fault{}
	})
	go func() {
		c.waiting.Wait()
		// What is in sockets when a process is killed is lost whatever it does, and
		// on loopback that is megabytes: wait until the half has arrived.
		c.eventually("half of the blob has arrived", func() bool { return c.kept(c.whole.Digest) >= c.whole.Size/2 })
		c.cache.Kill()
		c.up.SetRule(nil)
		c.up.Release()
		if err := c.cache.Start(c.ctx); err != nil {
			t.Error(err)
		}
	}()
	c.run(c.ctx)
	// Of the lazy blob, reads were under way, and a little had just been stored.
	// That is once for each kill and not a share of what is fetched.
	c.checkWaste(10*lazyLongest + 256<<10) // 10 workers, the default
}
