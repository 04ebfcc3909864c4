package permit_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy/permit"
)

var secret = bytes.Repeat([]byte("cluster "), 4)

// place is a Shared in memory, that can be told to fail.
type place struct {
	mu     sync.Mutex
	epochs map[[32]byte]uint64
	kept   map[permit.Name]granted
	calls  []string // that were made

	fail    func(call string) error // if it returns one, the call has no effect
	revoked func()                  // runs when one is, before it returns
	mangle  func(n permit.Name, g *permit.Grant)
}

type granted struct {
	value []byte
	epoch uint64
	end   time.Time
}

func newPlace() *place {
	return &place{epochs: make(map[[32]byte]uint64), kept: make(map[permit.Name]granted)}
}

func (p *place) call(ctx context.Context, what string) error {
	p.mu.Lock()
	if len(p.calls) < 1000 {
		p.calls = append(p.calls, what)
	}
	fail := p.fail
	p.mu.Unlock()
	if fail == nil {
		return ctx.Err()
	}
	err := fail(what)
	if errors.Is(err, errSlow) {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

var (
	errAway = errors.New("away")
	errSlow = errors.New("slow") // the call lasts as long as its context
)

// epoch returns the scope's, of which 1 is the first; p.mu is held.
func (p *place) epoch(scope [32]byte) uint64 { return p.epochs[scope] + 1 }

func (p *place) Granted(ctx context.Context, n permit.Name) (permit.Grant, error) {
	if err := p.call(ctx, "granted"); err != nil {
		return permit.Grant{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	g := permit.Grant{Epoch: p.epoch(n.Scope)}
	if k, ok := p.kept[n]; ok && k.epoch == g.Epoch && time.Now().Before(k.end) {
		g.Value, g.Left = slices.Clone(k.value), time.Until(k.end)
	}
	if p.mangle != nil {
		p.mangle(n, &g)
	}
	return g, nil
}

func (p *place) Grant(ctx context.Context, n permit.Name, epoch uint64, value []byte, ttl time.Duration) (bool, error) {
	if err := p.call(ctx, "grant"); err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch != p.epoch(n.Scope) {
		return false, nil
	}
	p.kept[n] = granted{slices.Clone(value), epoch, time.Now().Add(ttl)}
	return true, nil
}

func (p *place) Revoke(ctx context.Context, scope [32]byte) error {
	if err := p.call(ctx, "revoke"); err != nil {
		return err
	}
	p.mu.Lock()
	p.epochs[scope]++
	revoked := p.revoked
	p.mu.Unlock()
	if revoked != nil {
		revoked()
	}
	return nil
}

// made returns the calls since it was last called.
func (p *place) made() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b bytes.Buffer
	for _, c := range p.calls {
		b.WriteString(c + " ")
	}
	p.calls = nil
	return string(bytes.TrimSpace(b.Bytes()))
}

func (p *place) set(fail func(string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = fail
}

// failing fails one kind of call, all with "".
func failing(call string, err error) func(string) error {
	return func(c string) error {
		if call == "" || c == call {
			return err
		}
		return nil
	}
}

// replica returns a Checker that shares.
func replica(t *testing.T, cfg permit.Config, g *registry, p permit.Shared) *permit.Checker {
	t.Helper()
	c := permit.New(cfg, g.head)
	if err := c.Share(p, secret); err != nil {
		t.Fatal(err)
	}
	return c
}
