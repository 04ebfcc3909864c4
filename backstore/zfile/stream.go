package zfile

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

// Stream writes what produce writes as a ZFile to w and returns its length in
// bytes: what a Writer makes of it. Other than with a Writer, what is produced,
// compressed and written waits for nothing but room: produce runs on the calling
// goroutine, opts.Workers others compress, and one writes, in order. All have
// ended when it returns. An error of produce is returned as it is.
func Stream(w io.Writer, opts Options, produce func(w io.Writer) error) (int64, error) {
	z, err := NewWriter(w, opts)
	if err != nil {
		return 0, err
	}
	if err := z.stream(produce); err != nil {
		return z.Size(), err
	}
	err = z.Close()
	return z.Size(), err
}

// stretch is some blocks on their way.
type stretch struct {
	p    []byte
	out  output
	done chan struct{} // has something when out is complete
}

// stretchesEach is how many stretches a worker has: one that it compresses, one
// that waits for it, and what is filled and written.
const stretchesEach = 3

// stream does all but the end of the ZFile.
func (z *Writer) stream(produce func(io.Writer) error) error {
	n := stretchesEach * len(z.workers)
	g, ctx := errgroup.WithContext(context.Background())
	s := stretches{ended: ctx.Done(), free: make(chan *stretch, n), todo: make(chan *stretch, n), order: make(chan *stretch, n)}
	for range n {
		s.free <- &stretch{p: make([]byte, 0, batchSize), done: make(chan struct{}, 1)}
	}
	for _, w := range z.workers {
		g.Go(func() error {
			for t := range s.todo {
				w.run(t.p, &t.out)
				t.done <- struct{}{}
			}
			return nil
		})
	}
	g.Go(func() error {
		for t := range s.order {
			<-t.done
			if err := z.put(&t.out); err != nil {
				return err
			}
			z.input += int64(len(t.p))
			t.p = t.p[:0]
			s.free <- t
		}
		return nil
	})
	err := produce(&s)
	if err == nil {
		s.send()
	}
	close(s.todo)
	close(s.order)
	if failed := g.Wait(); failed != nil {
		return failed
	}
	return err
}

// stretches hands out what is written to it.
type stretches struct {
	ended             <-chan struct{} // writing has failed
	free, todo, order chan *stretch   // with room for all there are
	t                 *stretch        // that is being filled, or nil
}

// Write implements io.Writer.
func (s *stretches) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if s.t == nil {
			select {
			case s.t = <-s.free:
			case <-s.ended:
				return n - len(p), fmt.Errorf("writing zfile: %w", io.ErrClosedPipe)
			}
		}
		at := len(s.t.p)
		k := copy(s.t.p[at:cap(s.t.p)], p)
		s.t.p, p = s.t.p[:at+k], p[k:]
		if len(s.t.p) == cap(s.t.p) {
			s.send()
		}
	}
	return n, nil
}

// send passes on what was filled.
func (s *stretches) send() {
	if s.t != nil {
		s.todo <- s.t
		s.order <- s.t
		s.t = nil
	}
}
