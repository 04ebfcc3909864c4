package wire

import (
	"io"
	"log"
	"maps"
	"net/http"
)

// Stats counts what has crossed a proxy.
type Stats struct {
	// Requests counts all requests, BlobRequests reads of blobs.
	Requests, BlobRequests int
	// Bytes counts body bytes sent to the client, all and of blobs.
	Bytes, BlobBytes int64
	// MaxInFlight is the highest number of requests at one time.
	MaxInFlight int
	// Blobs counts per blob digest.
	Blobs map[string]BlobStats
}

// BlobStats counts the reads of one blob.
type BlobStats struct {
	Requests int
	Bytes    int64
}

// Stats returns the counts since the start or Reset.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Blobs = maps.Clone(s.Blobs)
	return s
}

// Reset sets all counts to zero.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats = Stats{Blobs: map[string]BlobStats{}}
}

// InFlight returns how many requests are being served.
func (p *Proxy) InFlight() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flying
}

func (p *Proxy) begin(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying++
	p.stats.Requests++
	p.stats.MaxInFlight = max(p.stats.MaxInFlight, p.flying)
	if d := Blob(r); d != "" {
		p.stats.BlobRequests++
		b := p.stats.Blobs[d]
		b.Requests++
		p.stats.Blobs[d] = b
	}
}

func (p *Proxy) end(r *http.Request, c *counter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying--
	p.stats.Bytes += c.n
	if d := Blob(r); d != "" {
		p.stats.BlobBytes += c.n
		b := p.stats.Blobs[d]
		b.Bytes += c.n
		p.stats.Blobs[d] = b
	}
}

// counter counts the body and damages it as the fault says.
type counter struct {
	http.ResponseWriter
	fault Fault
	n     int64
}

// Unwrap lets http.ResponseController flush.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *counter) Write(p []byte) (int, error) {
	if cut := c.fault.CutAfter; cut != 0 && c.n+int64(len(p)) > cut {
		n, _ := c.ResponseWriter.Write(p[:cut-c.n])
		c.n += int64(n)
		http.NewResponseController(c.ResponseWriter).Flush() //nolint:errcheck // the connection ends anyway
		panic(http.ErrAbortHandler)
	}
	if at := c.fault.FlipAt - c.n; c.fault.FlipAt != 0 && at >= 0 && at < int64(len(p)) {
		p = append([]byte(nil), p...)
		p[at] ^= 0xff
	}
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

// quiet drops what net/http says about connections that a rule broke.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
