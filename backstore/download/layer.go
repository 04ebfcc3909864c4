package download

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/reprise-containers/reprise/backstore"
	"github.com/reprise-containers/reprise/remote/blob"
	"github.com/reprise-containers/reprise/remote/blob/pause"
)

const (
	// batchSize is how many bytes are read before they are written, and
	// pieceSize how many of them at once. A reader who needs a piece that is
	// on its way waits for it instead of asking again, see blob.Coalesce, and
	// one who needs something else has no more than a batch before it.
	batchSize = 1 << 20
	pieceSize = 256 << 10
	// stallAfter is when a registry that does not answer is left alone. Retries
	// of a reader may go on for ever.
	stallAfter = 2 * time.Minute
)

// errStale says that a blob that was resumed has the wrong digest.
var errStale = errors.New("what was left of an earlier download is wrong")

// job is the download of one layer.
type job struct {
	*Downloader
	ref   string
	layer backstore.Layer
	blob  blob.Blob
	limit *rate.Limiter // of the image
	slot  bool          // it has one
}

// download makes a layer local: for all attached images that have it.
func (d *Downloader) download(ctx context.Context, ref string, l backstore.Layer, limit *rate.Limiter) error {
	if st, err := os.Lstat(filepath.Join(l.Dir, backstore.LayerFile)); err == nil && st.Mode().IsRegular() && st.Size() == l.Size {
		return d.use(l) // an earlier use failed
	}
	b, err := d.registries.Open(ref, l.Descriptor())
	if err != nil {
		return err
	}
	j := &job{Downloader: d, ref: ref, layer: l, blob: b, limit: limit}
	if err := j.enter(ctx); err != nil {
		return err
	}
	defer j.leave()
	if err = j.run(ctx); errors.Is(err, errStale) {
		err = j.run(ctx)
	}
	if err != nil {
		return fmt.Errorf("downloading %s of %s: %w", l.Digest, ref, err)
	}
	return d.use(l)
}

// use makes the attached images read l from its file, also those that keep it
// in another directory: as an image of another namespace does.
func (d *Downloader) use(l backstore.Layer) error {
	file := filepath.Join(l.Dir, backstore.LayerFile)
	for _, img := range d.images.Images() {
		for _, other := range missing(img) {
			if other.Digest != l.Digest || other.Dir == l.Dir {
				continue
			}
			// What cannot be linked is downloaded for itself.
			if os.Link(file, filepath.Join(other.Dir, backstore.LayerFile)) == nil && syncDir(other.Dir) == nil {
				_ = os.Remove(filepath.Join(other.Dir, partialName)) // nobody asks for it any more
				if err := d.images.UseFile(l.Digest, other.Dir); err != nil {
					return err
				}
			}
		}
	}
	return d.images.UseFile(l.Digest, l.Dir)
}

// run fetches, verifies and commits.
func (j *job) run(ctx context.Context) (err error) {
	p, err := openPartial(ctx, j.layer.Dir, j.layer.Digest, j.layer.Size)
	if err != nil {
		return outOfSpace(err)
	}
	defer func() {
		if errors.Is(err, ErrDiskFull) {
			err = errors.Join(err, p.drop())
		}
		p.close()
	}()
	resumed := p.size > 0
	if err := j.fetch(ctx, p); err != nil {
		return err
	}
	if !p.verified() {
		if err := p.drop(); err != nil {
			return err
		}
		if resumed {
			return errStale
		}
		blob.Discard(j.blob, 0, j.blob.Size())
		return fmt.Errorf("%w: the registry, or a mirror of it, is damaged or lies", ErrMismatch)
	}
	return outOfSpace(p.commit())
}

// fetch adds to p what it lacks.
func (j *job) fetch(ctx context.Context, p *partial) error {
	buf := make([]byte, min(batchSize, j.layer.Size))
	for p.size < j.layer.Size {
		part := buf[:min(batchSize, j.layer.Size-p.size)]
		if err := checkSpace(p.dir, j.layer.Size-p.size, j.cfg.MinFree); err != nil {
			return err
		}
		if err := j.read(ctx, part, p.size); err != nil {
			return err
		}
		if err := p.add(part); err != nil {
			return outOfSpace(err)
		}
		j.count.bytes.Add(int64(len(part)))
	}
	return nil
}

// read fills part from off of the blob: at once what is local, the rest when
// the link is idle and no faster than allowed.
func (j *job) read(ctx context.Context, part []byte, off int64) error {
	ctx = blob.WithTransient(blob.WithPriority(ctx, blob.Background))
	if !blob.Present(j.blob, off, int64(len(part))) {
		if err := j.awaitQuiet(ctx); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for at := 0; at < len(part); at += pieceSize {
		piece, from := part[at:min(at+pieceSize, len(part))], off+int64(at)
		g.Go(func() error { return j.readPiece(ctx, piece, from) })
	}
	return g.Wait()
}

func (j *job) readPiece(ctx context.Context, piece []byte, off int64) error {
	if !blob.Present(j.blob, off, int64(len(piece))) {
		for _, limit := range []*rate.Limiter{j.limit, j.total} {
			if limit == nil {
				continue
			}
			if err := limit.WaitN(ctx, len(piece)); err != nil {
				return err
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, stallAfter)
	defer cancel()
	return blob.ReadFull(ctx, j.blob, piece, off)
}

// awaitQuiet waits until nobody has been waiting for the registry for a while.
// Meanwhile another image may use the slot.
func (j *job) awaitQuiet(ctx context.Context) error {
	for {
		rest := j.cfg.Idle - j.registries.Quiet(j.ref)
		if rest <= 0 {
			return j.enter(ctx)
		}
		j.leave()
		if !pause.For(ctx, rest) {
			return context.Cause(ctx)
		}
	}
}

// enter waits for a slot, unless j has one.
func (j *job) enter(ctx context.Context) error {
	if j.slot {
		return nil
	}
	select {
	case j.slots <- struct{}{}:
		j.slot = true
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave gives the slot back, if j has one.
func (j *job) leave() {
	if j.slot {
		<-j.slots
		j.slot = false
	}
}
