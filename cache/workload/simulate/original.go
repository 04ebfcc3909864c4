package simulate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/reprise-containers/reprise/cache/workload/trace"
)

// The simulations that come with the original replayer as Python files, under the
// same rules and with the same output. Where those rules cannot have been meant they
// are mended, as the comments say.

// unanswered hides the status of requests, which the original's plugins do not know.
type unanswered struct{ trace.Reader }

func (u unanswered) Next() (trace.Request, error) {
	x, err := u.Reader.Next()
	x.Status = 0
	return x, err
}

// OriginalCache is the original's cache simulation: caches of memory and disk, LRU
// both, of args["cache_size"] GiB of memory and 10, 15 and 20 times as much disk.
// What has 100 MiB or as much as memory goes to disk at once. Manifests do not count,
// PUTs do; nothing counts in a level before it had to evict. r should be what the
// original keeps of a trace, see trace.IsOriginal.
//
// In the original, an object that left the disk for memory and came back is evicted
// by its place from before; here by the new one. An object has one size here, the
// largest that was seen.
func OriginalCache(ctx context.Context, r trace.Reader, args map[string]any, out io.Writer) error {
	gib, err := number(args, "cache_size")
	if err != nil {
		return err
	}
	memory := int64(gib * (1 << 30))
	if memory <= 0 {
		return fmt.Errorf("simulating caches: cache_size is %g, and has to be above 0 GiB", gib)
	}
	if _, err := fmt.Fprintln(out, "running cache simulation"); err != nil {
		return err
	}
	d, err := Decode(ctx, unanswered{r}, Scope{Kinds: []trace.Kind{trace.Blob}, Writes: true})
	if err != nil && !errors.Is(err, errNothing) {
		return err
	}
	if err != nil {
		d = new(Decoded)
	}
	var caches []*levelsRunning
	for _, factor := range originalFactors {
		c, err := beginLevels(d, Levels{
			Memory: Size{Bytes: memory}, Disk: Size{Bytes: memory * factor}, Direct: 100 << 20, Warm: true,
		})
		if err != nil {
			return err
		}
		caches = append(caches, c)
	}
	return runOriginal(ctx, d, caches, out)
}

// originalFactors are how many times as much disk as memory there is.
var originalFactors = []int64{10, 15, 20}

// runOriginal runs the caches and writes how far it is, and what they did.
func runOriginal(ctx context.Context, d *Decoded, caches []*levelsRunning, out io.Writer) error {
	part := max(1, d.Accesses.Len()/10)
	for i, a := range d.Accesses.during(ctx) {
		if i > 0 && i%part == 0 && i/part < 10 {
			if _, err := fmt.Fprintf(out, "%d%% done\n", 10*(i/part)); err != nil {
				return err
			}
		}
		for _, c := range caches {
			c.access(a)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for i, c := range caches {
		// The first figure has always been 0: the three have the same memory.
		m, both := c.cell.MemoryHits, c.cell.All
		_, err := fmt.Fprintf(out, "0 %[1]d lmu hits: %[2]d\n0 %[1]d lmu misses: %[3]d\n0 %[1]d h hits: %[4]d\n0 %[1]d h misses: %[5]d\n",
			originalFactors[i], m.Hits, m.Requests-m.Hits, both.Hits, both.Requests-both.Hits)
		if err != nil {
			return err
		}
	}
	return nil
}

// OriginalPrefetch is the original's simulation of prefetching: layers pushed to a
// repository are fetched when another client asks for a manifest there, and are hits
// when something within 1000 bytes of their size is asked for. It does so for each
// pair of 10 minutes, an hour, half a day and a day for which pushed layers are
// remembered and fetched ones kept, and writes a line for each to the file
// args["outfile"]: hits for each fetch, and the bytes kept at most.
//
// The original never lets go of anything, so that its 16 lines are equal; it counts a
// request as several hits when several layers are of its size, pushed manifests as
// layers, and divides by zero when there were no fetches, of which the ratio is 0
// here. args["identity"] may be "layer" for traces that name what was pushed.
func OriginalPrefetch(ctx context.Context, r trace.Reader, args map[string]any, out io.Writer) (err error) {
	path, ok := args["outfile"].(string)
	if !ok || path == "" {
		return errors.New("simulating prefetching: outfile is not set")
	}
	identity := BySize
	if s, ok := args["identity"].(string); ok {
		identity = LayerIdentity(s)
	}
	var settings []Prefetch
	times := []time.Duration{10 * time.Minute, time.Hour, 12 * time.Hour, 24 * time.Hour}
	for _, pushed := range times {
		for _, fetched := range times {
			settings = append(settings, Prefetch{Pushed: pushed, Fetched: fetched, Identity: identity})
		}
	}
	p, err := NewPrefetcher(settings...)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, "running simulation"); err != nil {
		return err
	}
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		x, err := (unanswered{r}).Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		p.Add(x)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("simulating prefetching: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, c := range p.Cells() {
		if _, err := fmt.Fprintf(f, "%g,%d\n", c.Ratio(), c.Peak); err != nil {
			return fmt.Errorf("simulating prefetching: %w", err)
		}
	}
	return nil
}

// number returns an argument that is a number of any type.
func number(args map[string]any, name string) (float64, error) {
	switch v := args[name].(type) {
	case float64:
		return v, nil
	case int:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case uint64:
		return float64(v), nil
	case nil:
		return 0, fmt.Errorf("simulating caches: %s is not set", name)
	default:
		return 0, fmt.Errorf("simulating caches: %s is %v, not a number", name, v)
	}
}
