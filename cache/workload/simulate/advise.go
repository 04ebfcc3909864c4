package simulate

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	units "github.com/docker/go-units"

	"github.com/reprise-containers/reprise/cache/policy"
)

// Limits is what advice is for.
type Limits struct {
	// Disk is how many bytes of disk the cache may take.
	Disk int64
	// ByBytes has the policy chosen that has most bytes as hits, not most requests.
	ByBytes bool
	// Policies to choose from, those preferred first; none: all of package policy,
	// s3fifo preferred because it withstands scans.
	Policies []string
	// Workers is how many simulations run at a time. Default the number of processors.
	Workers int
}

// Advice is settings of the registry cache, and what is expected of them.
type Advice struct {
	Policy    string `json:"policy"`    // gc.policy
	MaxSize   int64  `json:"maxSize"`   // gc.disk.maxSize, bytes
	Layers    Ages   `json:"layers"`    // gc.layers
	Manifests Ages   `json:"manifests"` // gc.manifests
	// Expected is what the cache does with these settings, begun empty.
	Expected Cell `json:"expected"`
	// Tried are the other policies, and the chosen one at other sizes and ages.
	Tried   []Cell   `json:"tried"`
	Reasons []string `json:"reasons"`
}

const (
	// alike is the difference of hit ratios below which a preference decides.
	alike = 0.002
	// unnoticed is what maxUnused may cost: other traffic may be slower to come back.
	unnoticed = 0.0005
	// spare is the size that is worth giving up for a difference of alike.
	spare = 0.9
	// least is what the registry cache wants of gc.disk.maxSize, bytes.
	least = 64 << 20
)

// Recommend finds settings of the registry cache for traffic such as in d, by
// simulating its eviction, its accounting of disk space and its collections.
func Recommend(ctx context.Context, d *Decoded, limits Limits) (*Advice, error) {
	if d.Unit {
		return nil, fmt.Errorf("recommending settings: %w", ErrNoSizes)
	}
	if limits.Disk <= 0 {
		return nil, fmt.Errorf("recommending settings: %d bytes of disk are no limit", limits.Disk)
	}
	if len(limits.Policies) == 0 {
		limits.Policies = []string{policy.NameS3FIFO}
		for _, name := range policy.Names() {
			if name != policy.NameS3FIFO {
				limits.Policies = append(limits.Policies, name)
			}
		}
	}
	a := &adviser{d: d, limits: limits, advice: &Advice{MaxSize: limits.Disk}}
	for _, step := range []func(context.Context) error{a.policy, a.size, a.unused} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("recommending settings: %w", err)
		}
	}
	return a.advice, nil
}

// adviser is in the middle of finding advice.
type adviser struct {
	d      *Decoded
	limits Limits
	advice *Advice
}

func (a *adviser) reason(format string, args ...any) {
	a.advice.Reasons = append(a.advice.Reasons, fmt.Sprintf(format, args...))
}

func (a *adviser) score(c Cell) float64 {
	if a.limits.ByBytes {
		return c.All.ByteRatio()
	}
	return c.All.Ratio()
}

// try simulates a cell for each of the settings.
func (a *adviser) try(ctx context.Context, settings []Advice) ([]Cell, error) {
	cells := make([]Cell, len(settings))
	j := newJobs(ctx, Config{Workers: a.limits.Workers})
	for i, s := range settings {
		cells[i] = Cell{Policy: s.Policy, Size: Size{Bytes: s.MaxSize}, Capacity: s.MaxSize, MaxUnused: s.Layers.MaxUnused}
		j.do(func(ctx context.Context) error {
			return single(ctx, a.d, &cells[i], GC{Disk: true, Layers: s.Layers, Manifests: s.Manifests})
		})
	}
	err := j.wait()
	return cells, err
}

// policy chooses one.
func (a *adviser) policy(ctx context.Context) error {
	var settings []Advice
	for _, name := range a.limits.Policies {
		settings = append(settings, Advice{Policy: name, MaxSize: a.limits.Disk})
	}
	cells, err := a.try(ctx, settings)
	if err != nil {
		return err
	}
	best, worst := cells[0], cells[0]
	for _, c := range cells {
		if a.score(c) > a.score(best) {
			best = c
		}
		if a.score(c) < a.score(worst) {
			worst = c
		}
	}
	chosen := best
	for _, c := range cells {
		if a.score(best)-a.score(c) < alike {
			chosen = c
			break
		}
	}
	a.advice.Policy, a.advice.Expected = chosen.Policy, chosen
	for _, c := range cells {
		if c.Policy != chosen.Policy {
			a.advice.Tried = append(a.advice.Tried, c)
		}
	}
	what := "requests"
	if a.limits.ByBytes {
		what = "bytes"
	}
	switch {
	case a.score(best)-a.score(worst) < alike:
		a.reason("policy %s: the policies differ by less than %.1f %% of %s here", chosen.Policy, 100*alike, what)
	case chosen.Policy != best.Policy:
		a.reason("policy %s: %.1f %% of %s are hits; %s has %.1f %%, which is about the same, %s %.1f %%",
			chosen.Policy, 100*a.score(chosen), what, best.Policy, 100*a.score(best), worst.Policy, 100*a.score(worst))
	default:
		a.reason("policy %s: %.1f %% of %s are hits, the most of all; the least has %s with %.1f %%",
			chosen.Policy, 100*a.score(chosen), what, worst.Policy, 100*a.score(worst))
	}
	return nil
}

// size looks whether less space does as well, and says what more would bring.
func (a *adviser) size(ctx context.Context) error {
	base := Advice{Policy: a.advice.Policy}
	var settings []Advice
	for _, share := range []float64{2, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1} {
		base.MaxSize = int64(share * float64(a.limits.Disk))
		settings = append(settings, base)
	}
	cells, err := a.try(ctx, settings)
	if err != nil {
		return err
	}
	a.advice.Tried = append(a.advice.Tried, cells...)
	most := most(a.d)
	a.reason("with room for everything %.1f %% of requests and %.1f %% of bytes would be hits: the rest is asked for the first time", 100*most.Ratio(), 100*most.ByteRatio())
	full := a.advice.Expected
	if full.Evicted == 0 {
		a.reason("size %s: all that is allowed; the trace does not fill it", bytesOf(a.limits.Disk))
		return nil
	}
	chosen := full
	for _, c := range cells[1:] { // the largest first: no smaller one is taken beyond one that loses
		if a.score(full)-a.score(c) >= alike || a.limits.Disk >= least && c.Capacity < least {
			break
		}
		chosen = c
	}
	a.advice.Expected, a.advice.MaxSize = chosen, chosen.Capacity
	if a.advice.MaxSize < a.limits.Disk {
		a.advice.Tried = append(a.advice.Tried, full)
		a.reason("size %s: of the %s allowed it does not need more, which would bring less than %.1f %%", bytesOf(a.advice.MaxSize), bytesOf(a.limits.Disk), 100*alike)
		return nil
	}
	a.reason("size %s: all that is allowed; half of it would have %.1f %%, twice as much %.1f %%", bytesOf(a.limits.Disk), 100*a.score(cells[2]), 100*a.score(cells[0]))
	return nil
}

// unused looks for the shortest maxUnused that costs next to nothing.
func (a *adviser) unused(ctx context.Context) error {
	a.reason("no maxAge: what is addressed by its digest does not change, and tags are checked with their registry anyway")
	if !a.d.Timed {
		a.reason("no maxUnused: the trace has no times to choose it by")
		return nil
	}
	const day = 24 * time.Hour
	var settings []Advice
	span := a.d.Span()
	for _, t := range []time.Duration{time.Hour, 6 * time.Hour, 12 * time.Hour, day, 2 * day, 3 * day, 7 * day, 14 * day, 30 * day, 90 * day} {
		if t < span/2 {
			ages := Ages{MaxUnused: t}
			settings = append(settings, Advice{Policy: a.advice.Policy, MaxSize: a.advice.MaxSize, Layers: ages, Manifests: ages})
		}
	}
	if len(settings) == 0 {
		a.reason("no maxUnused: the trace is of %v only, which is too short to choose it by", span.Round(time.Second))
		return nil
	}
	cells, err := a.try(ctx, settings)
	if err != nil {
		return err
	}
	a.advice.Tried = append(a.advice.Tried, cells...)
	without := a.advice.Expected
	for i, c := range cells {
		if a.score(without)-a.score(c) < unnoticed && float64(c.Mean) < spare*float64(without.Mean) {
			a.advice.Expected = c
			a.advice.Layers, a.advice.Manifests = settings[i].Layers, settings[i].Manifests
			a.reason("maxUnused %v: takes %s on average instead of %s, and costs less than %.2f %% of hits", settings[i].Layers.MaxUnused, bytesOf(c.Mean), bytesOf(without.Mean), 100*unnoticed)
			return nil
		}
	}
	a.reason("no maxUnused: any within the %v of the trace costs hits or saves less than %.0f %% of the space", span.Round(time.Minute), 100*(1-spare))
	return nil
}

func bytesOf(n int64) string { return units.BytesSize(float64(n)) }

// WriteText writes the advice for people.
func (a *Advice) WriteText(w io.Writer) error {
	_, err := fmt.Fprintf(w, "Recommended for the registry cache:\n  gc:\n    policy: %s\n    disk: {maxSize: %dB}\n    layers: {maxAge: %s, maxUnused: %s}\n    manifests: {maxAge: %s, maxUnused: %s}\n",
		a.Policy, a.MaxSize, a.Layers.MaxAge, a.Layers.MaxUnused, a.Manifests.MaxAge, a.Manifests.MaxUnused)
	if err != nil {
		return err
	}
	for _, r := range a.Reasons {
		if _, err := fmt.Fprintf(w, "- %s\n", r); err != nil {
			return err
		}
	}
	e := a.Expected
	if _, err = fmt.Fprintf(w, "Expected, if this traffic comes again to an empty cache: %.4f of requests are hits, %.4f of bytes", e.All.Ratio(), e.All.ByteRatio()); err != nil {
		return err
	}
	for _, kind := range slices.Sorted(maps.Keys(e.Kinds)) {
		if _, err = fmt.Fprintf(w, "; of %ss %.4f and %.4f", kind, e.Kinds[kind].Ratio(), e.Kinds[kind].ByteRatio()); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(w, ".")
	return err
}
