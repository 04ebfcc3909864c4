// Package accesslog writes a line for each request that the registry cache
// answered: as JSON of its own, or in the schema of the IBM registry traces of
// FAST'18, so that what a cache has seen can be simulated and replayed.
//
// What is written holds no credentials and no queries of URLs, see proxy.Record.
package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/reprise-containers/reprise/cache/proxy"
)

// Config says what is written where.
type Config struct {
	// Path is a file that is appended to; "-" is standard output.
	Path string
	// Trace writes the trace schema. In a file the records are one JSON array,
	// as in the published traces; to standard output, a line each.
	Trace bool
	// Anonymize replaces what names hosts, clients and content with tokens of 8
	// hexadecimal digits that are made with Salt.
	Anonymize bool
	Salt      []byte
}

const (
	// flushEvery is how long a record may take to get to the file.
	flushEvery = time.Second
	// flushAt is how many bytes are held until then.
	flushAt = 64 << 10
	// holdAtMost is how many bytes are held while the file takes none.
	holdAtMost = 4 << 20
)

// Log is an access log. It is safe for parallel use.
type Log struct {
	cfg     Config
	tokens  *tokens // nil: names as they are
	onError func(error)

	mu   sync.Mutex
	buf  []byte
	full chan struct{} // tells Run that there is much to write
	lost uint64

	// Of Run, Reopen and Close:
	writing sync.Mutex
	out     sink
	failing bool
}

// sink takes records, each a line.
type sink interface {
	write(records []byte) error
	close() error
}

// Open opens the log. onError is told when it can not be written, once until it
// can again.
func Open(cfg Config, onError func(error)) (*Log, error) {
	l := &Log{cfg: cfg, onError: onError, full: make(chan struct{}, 1)}
	if cfg.Anonymize {
		l.tokens = newTokens(cfg.Salt)
	}
	var err error
	l.out, err = l.open()
	return l, err
}

func (l *Log) open() (sink, error) {
	switch {
	case l.cfg.Path == "-":
		return stream{os.Stdout}, nil
	case l.cfg.Trace:
		return openArray(l.cfg.Path)
	}
	f, err := os.OpenFile(l.cfg.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening access log: %w", err)
	}
	return stream{f}, nil
}

// stream takes records as they are.
type stream struct{ *os.File }

func (s stream) write(records []byte) error {
	_, err := s.Write(records)
	return err
}

func (s stream) close() error {
	if s.File == os.Stdout {
		return nil
	}
	return s.Close()
}

// Observe implements proxy.Observer: it never waits for the file.
func (l *Log) Observe(r proxy.Record) {
	if l.tokens != nil {
		r = l.tokens.record(r)
	}
	var line []byte
	if l.cfg.Trace {
		line = traceLine(r)
	} else {
		line = jsonLine(r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf)+len(line) > holdAtMost {
		l.lost++
		return
	}
	l.buf = append(l.buf, line...)
	if len(l.buf) >= flushAt {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

// Lost returns how many records the file did not take in time.
func (l *Log) Lost() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// Run writes what is observed until ctx ends, and then the rest.
func (l *Log) Run(ctx context.Context) error {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush()
			return nil
		case <-t.C:
		case <-l.full:
		}
		l.flush()
	}
}

// flush writes what is held. An error keeps it, for the next time.
func (l *Log) flush() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	records := l.buf
	l.buf = nil
	l.mu.Unlock()
	if len(records) == 0 {
		return
	}
	err := l.out.write(records)
	if err == nil {
		l.failing = false
		return
	}
	if !l.failing && l.onError != nil {
		l.onError(fmt.Errorf("writing access log: %w", err))
	}
	l.failing = true
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(records)+len(l.buf) <= holdAtMost && !errors.Is(err, io.ErrShortWrite) {
		l.buf = append(records, l.buf...)
	}
}

// Reopen goes on in the file that now has the log's name: the one before was moved
// away.
func (l *Log) Reopen() error {
	l.flush()
	l.writing.Lock()
	defer l.writing.Unlock()
	out, err := l.open()
	if err != nil {
		return err
	}
	err = l.out.close()
	l.out = out
	return err
}

// Close writes what is held and closes the file. Run must have ended.
func (l *Log) Close() error {
	l.flush()
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.out.close()
}
