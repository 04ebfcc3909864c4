package tier_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
)

// memory is a store whose objects a test changes, and that fails when it is told to.
type memory struct {
	mu      sync.Mutex
	objects map[string][]byte
	times   map[string]time.Time
	err     error // of all calls
	calls   int
}

func newMemory() *memory { return &memory{objects: map[string][]byte{}, times: map[string]time.Time{}} }

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memory) asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

func (m *memory) enter() error {
	m.calls++
	return m.err
}

func (m *memory) Open(_ context.Context, name string, off, n int64) (io.ReadCloser, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(); err != nil {
		return nil, 0, err
	}
	data, ok := m.objects[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return io.NopCloser(io.NewSectionReader(bytes.NewReader(data), off, n)), int64(len(data)), nil
}

func (m *memory) Create(_ context.Context, name string, r io.Reader, size int64) error {
	data := make([]byte, size)
	_, err := io.ReadFull(r, data)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if _, ok := m.objects[name]; ok {
		return fs.ErrExist
	}
	m.objects[name], m.times[name] = data, time.Now()
	return nil
}

func (m *memory) List(_ context.Context, folder string, f func(tier.Entry) error) error {
	m.mu.Lock()
	objects, err := maps.Clone(m.objects), m.enter()
	times := maps.Clone(m.times)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	for name, data := range objects {
		if strings.HasPrefix(name, folder) {
			if err := f(tier.Entry{Name: name, Size: int64(len(data)), ModTime: times[name]}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) Remove(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(); err != nil {
		return err
	}
	delete(m.objects, name)
	return nil
}
