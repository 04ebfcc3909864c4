package generate

import (
	"math"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// A push, by the archive's counts of methods and statuses: it looks for blobs that are
// there (the archive has no 404), mounts some from another repository, sends some in a
// POST, mostly a PATCH and a PUT; then the manifest.
const (
	pushLooks   = 3.4
	pushMounts  = 0.24
	pushUploads = 0.64
	patched     = 0.91 // of uploads have a PATCH of their own
	perPush     = pushLooks + pushMounts + pushUploads*(2+patched) + 1
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
		p := g.world.pull(g.rng, at)
		g.blobs(who, g.get(who, at, g.world.manifest(p), g.world.manifestSize(p)), p)
	case u < 1+resumed:
		g.blobs(who, at, g.world.pull(g.rng, at))
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

// duration is what the recorded registry took: not quite a second, and the time that
// the bytes take at about two megabytes a second.
func (g *Generator) duration(size int64) time.Duration {
	seconds := 0.88*math.Exp(0.13*g.rng.NormFloat64()) + float64(size)/2.2e6*math.Exp(0.4*g.rng.NormFloat64())
	return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
}

// about returns one of the two whole numbers next to a number, which it is on average.
func (g *Generator) about(mean float64) int { return int(mean + g.rng.Float64()) }

// pings adds what a client asks first, and returns when that is done.
func (g *Generator) pings(who client, at time.Duration) time.Duration {
	n := g.about(pings)
	for range n {
		g.request(who, at, "GET", "v2", 200, 2)
		at += time.Duration(g.rng.ExpFloat64() * 0.1 * float64(time.Second))
	}
	return at
}

// blobs adds the reads of an image's blobs, three at a time as clients do.
func (g *Generator) blobs(who client, at time.Duration, p pull) {
	lanes := [3]time.Duration{}
	for i := range lanes {
		lanes[i] = at + time.Duration(g.rng.ExpFloat64()*0.2*float64(time.Second))
	}
	for i := range p.count {
		lane := &lanes[0]
		for j := range lanes {
			if lanes[j] < *lane {
				lane = &lanes[j]
			}
		}
		number := p.first + uint64(i)
		*lane = g.get(who, *lane, g.world.blob(p, number), g.world.size(number))
	}
}

// push adds the upload of an image, which is pulled later: most of it is there already,
// some blobs are sent.
func (g *Generator) push(who client, at time.Duration) {
	p := g.world.fresh(g.rng)
	repo := g.world.repository(p.repo)
	for i := range g.about(pushLooks) {
		number := p.first + uint64(i)%uint64(p.count)
		at = g.request(who, at, "HEAD", g.world.blob(p, number), 200, 0)
	}
	for range g.about(pushMounts) {
		at = g.request(who, at, "POST", repo+"/blobs/uploads", 201, 0)
	}
	for i := range g.about(pushUploads) {
		number := p.first + uint64(int(p.count)-1-i%int(p.count))
		size := g.world.size(number)
		at = g.request(who, at, "POST", repo+"/blobs/uploads", 202, 0)
		upload := repo + "/blobs/" + g.world.name(kindUpload, number) // the traces name uploads so
		if g.rng.Float64() < patched {
			at = g.request(who, at, "PATCH", upload, 202, size)
		}
		at = g.request(who, at, "PUT", upload, 201, size)
	}
	at = g.request(who, at, "PUT", g.world.manifest(p), 201, g.world.manifestSize(p))
	g.world.offer(p, at)
}
