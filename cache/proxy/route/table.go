package route

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

var (
	// ErrUnknown is in the chain of the error for a registry that is not
	// configured: HTTP status 404.
	ErrUnknown = errors.New("registry is not configured")
	// ErrBadHost is in the chain of the error for what is no name of a host, or
	// would lead to none: HTTP status 400.
	ErrBadHost = errors.New("not a host name")
)

// Table finds the upstream of a request. It does not change, and its methods may be
// called concurrently.
type Table struct {
	rules      []rule
	registries map[string]Target // by name
	fallback   *Target
	fixed      []Target
	warnings   []string
	memo       memo
}

// New returns a Table, or says what is wrong with the configuration.
func New(cfg Config) (*Table, error) {
	t := &Table{registries: make(map[string]Target)}
	for _, name := range slices.Sorted(maps.Keys(cfg.Registries)) {
		if err := t.addRegistry(name, cfg.Registries[name]); err != nil {
			return nil, fmt.Errorf("registry %q: %w", name, err)
		}
	}
	if cfg.Default != nil {
		d, err := newTarget(cfg.Default.Host, *cfg.Default)
		if err != nil {
			return nil, fmt.Errorf("default upstream: %w", err)
		}
		t.fallback = &d
		t.fixed = append(t.fixed, d)
	}
	for i, r := range cfg.Rules {
		parsed, warnings, err := newRule(r)
		if err != nil {
			return nil, fmt.Errorf("upstream rule %d: %w", i+1, err)
		}
		if parsed.host.open && len(t.registries) == 0 {
			return nil, fmt.Errorf("upstream rule %d: host %q lets clients name any host: "+
				"end it with a domain of yours, or list the registries it may lead to", i+1, r.Host)
		}
		t.rules = append(t.rules, parsed)
		if to, ok := parsed.fixed(); ok {
			t.fixed = append(t.fixed, to)
		}
		for _, w := range warnings {
			t.warnings = append(t.warnings, fmt.Sprintf("upstream rule %d: %s", i+1, w))
		}
	}
	return t, nil
}

func (t *Table) addRegistry(name string, to Target) error {
	h, err := parseHost(name)
	if err != nil {
		return err
	}
	target, err := newTarget(name, to)
	if err != nil {
		return err
	}
	if old, ok := t.registries[h.String()]; ok && old != target {
		return errors.New("listed twice")
	}
	t.registries[h.String()] = target
	t.fixed = append(t.fixed, target)
	return nil
}

// newTarget returns what a configured Target for the registry name is.
func newTarget(name string, to Target) (Target, error) {
	scheme, err := parseScheme(to.Scheme)
	if err != nil {
		return Target{}, err
	}
	if to.Host == "" {
		to.Host = name
	}
	h, err := parseHost(to.Host)
	if err != nil {
		return Target{}, err
	}
	if isHub(h.String()) {
		h.name = hub
	}
	return h.target(scheme), nil
}

const hub = "registry-1.docker.io"

// isHub reports whether a name is one of those of Docker Hub, whose registry has
// another one.
func isHub(name string) bool { return name == "docker.io" || name == "index.docker.io" }

// Resolve returns the upstream for a request's Host and ns parameter. ns, if not
// empty, decides: it is the name of one of the registries, or of the very upstream
// that Host leads to anyway.
func (t *Table) Resolve(host, ns string) (Target, error) {
	q := question{host, ns}
	if to, ok := t.memo.find(q); ok {
		return to, nil
	}
	to, err := t.resolve(host, ns)
	if err == nil {
		t.memo.add(q, to)
	}
	return to, err
}

func (t *Table) resolve(host, ns string) (Target, error) {
	h, err := parseHost(host)
	if err != nil {
		return Target{}, err
	}
	if ns == "" {
		return t.byHost(h.String())
	}
	n, err := parseHost(ns)
	if err != nil {
		return Target{}, err
	}
	return t.byName(n, h.String())
}

// byHost returns the upstream for a request that names no registry.
func (t *Table) byHost(name string) (Target, error) {
	for i := range t.rules {
		r := &t.rules[i]
		to, ok, err := r.expand(name)
		if err != nil {
			return Target{}, fmt.Errorf("finding the upstream for %q: %w", name, err)
		}
		if ok {
			return t.ruled(r, to)
		}
	}
	if to, ok := t.registries[name]; ok {
		return to, nil
	}
	if t.fallback == nil {
		return Target{}, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	return *t.fallback, nil
}

// byName returns the upstream of a registry. A client that was told to come here
// for a registry names it even where its Host says enough.
func (t *Table) byName(ns host, name string) (Target, error) {
	if to, ok := t.registries[ns.String()]; ok {
		return to, nil
	}
	if t.fallback != nil && t.fallback.is(ns) {
		return *t.fallback, nil
	}
	if to, err := t.byHost(name); err == nil && to.is(ns) {
		return to, nil
	}
	return Target{}, fmt.Errorf("%w: %q", ErrUnknown, ns.String())
}

// is reports whether a registry's name is that of the upstream.
func (t Target) is(ns host) bool {
	if isHub(ns.String()) {
		ns.name = hub
	}
	return ns.target(t.Scheme) == t
}

// ruled returns the upstream that a rule leads to.
func (t *Table) ruled(r *rule, to host) (Target, error) {
	if !r.host.open {
		return to.target(r.scheme), nil
	}
	if target, ok := t.registries[to.String()]; ok {
		return target, nil
	}
	target := to.target(r.scheme)
	for _, known := range t.registries {
		if known == target {
			return target, nil
		}
	}
	return Target{}, fmt.Errorf("%w: %q", ErrUnknown, to.String())
}

// Targets returns the upstreams that the configuration names as they are, without
// what rules make of a client's Host. Some may be in it twice.
func (t *Table) Targets() []Target { return slices.Clone(t.fixed) }

// Warnings says what in the configuration is likely to be a mistake.
func (t *Table) Warnings() []string { return slices.Clone(t.warnings) }
