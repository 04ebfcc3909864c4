package generate

import (
	"math"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// perPush is how many requests a push has on average: of 1.26 blobs each is looked
// for 3.8 times and sent in three requests, two of three times with a PATCH between
// its POST and its PUT; then the manifest.
const (
	pushBlobs = 1.26
	pushLooks = 3.8
	perPush   = pushBlobs*(pushLooks+2.66) + 1
)

// client is who a session is by.
type client struct {
	name string
	host string
}

// session begins one at a time.
func (g *Generator) session(at time.Duration) {
	who := client{g.world.name(kindClient, uint64(g.skewed(g.cfg.Clients))), g.world.name(kindHost, uint64(g.rng.IntN(4)))}
	all := 1 + resumed
	if !g.cfg.ReadOnly {
		all += pushes
	}
	switch u := g.rng.Float64() * all; {
	case u < revalidations:
		at = g.pings(who, at)
		p := g.world.looked(g.rng)
		g.get(who, at, g.world.manifest(p), g.world.manifestSize(p))
	case u < 1:
		at = g.pings(who, at)
		p := g.world.pull(g.rng)
		g.get(who, at, g.world.manifest(p), g.world.manifestSize(p))
		g.blobs(who, at, p)
	case u < 1+resumed:
		g.blobs(who, at, g.world.pull(g.rng))
	default:
		g.push(who, at)
	}
}

// skewed returns a number below n, low ones more often: as log-uniform.
func (g *Generator) skewed(n int) int {
	return min(n-1, int(math.Pow(float64(n), g.rng.Float64()))-1)
}

// request adds one, and returns when it ends.
func (g *Generator) request(who client, at time.Duration, method, uri string, status int, size int64) time.Duration {
	took := g.duration(size)
	g.add(trace.Request{Delay: at, Duration: took, Method: method, URI: uri, Host: who.host, Client: who.name, Status: status, Size: size})
	return at + took
}

func (g *Generator) get(who client, at time.Duration, uri string, size int64) time.Duration {
	return g.request(who, at, "GET", uri, 200, size)
}

// duration is what the recorded registry took: about a second, and the time that the
// bytes take at some megabytes a second.
func (g *Generator) duration(size int64) time.Duration {
	seconds := math.Exp(0.5*g.rng.NormFloat64())*0.8 + float64(size)/4e6*math.Exp(0.7*g.rng.NormFloat64())
	return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
}

// pings adds what a client asks first, and returns when that is done.
func (g *Generator) pings(who client, at time.Duration) time.Duration {
	least, more := math.Modf(pings)
	n := int(least)
	if g.rng.Float64() < more {
		n++
	}
	for range n {
		g.request(who, at, "GET", "v2", []int{401, 200}[g.rng.IntN(2)], 2)
		at += time.Duration(g.rng.ExpFloat64() * 0.1 * float64(time.Second))
	}
	return at
}

// blobs adds the reads of an image's blobs, three at a time as clients do. The next
// is asked for when it is, however long the one before took: most are small.
func (g *Generator) blobs(who client, at time.Duration, p pull) {
	lanes := [3]time.Duration{}
	for i := range lanes {
		lanes[i] = at + time.Duration(g.rng.ExpFloat64()*0.2*float64(time.Second))
	}
	for i := range p.count {
		lane := &lanes[i%3]
		number := p.first + uint64(i)
		g.get(who, *lane, g.world.blob(p, number), g.world.size(number))
		*lane += time.Duration(g.rng.ExpFloat64() * 0.4 * float64(time.Second))
	}
}

// push adds the upload of an image. Who pulls it comes later, by itself.
func (g *Generator) push(who client, at time.Duration) {
	p := g.world.fresh(g.rng)
	p.count = 1
	if g.rng.Float64() < pushBlobs-1 {
		p.count = 2
	}
	p.lists = p.count
	repo := g.world.repository(p.repo)
	for i := range p.count {
		number := p.first + uint64(i)
		size := g.world.size(number)
		looks := int(pushLooks + g.rng.Float64())
		for range looks {
			at = g.request(who, at, "HEAD", g.world.blob(p, number), 404, 0)
		}
		at = g.request(who, at, "POST", repo+"/blobs/uploads", 202, 0)
		upload := repo + "/blobs/" + g.world.name(kindUpload, number) // the traces name uploads so
		if g.rng.Float64() < 0.66 {
			at = g.request(who, at, "PATCH", upload, 202, size)
			at = g.request(who, at, "PUT", upload, 201, size)
			continue
		}
		at = g.request(who, at, "PUT", upload, 201, size)
	}
	g.request(who, at, "PUT", g.world.manifest(p), 201, g.world.manifestSize(p))
	if g.rng.Float64() < reusable {
		g.world.remember(p)
	}
}
