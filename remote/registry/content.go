package registry

import (
	"errors"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/remote/blob"
)

// content is what an upload sends, from where its reader stood at the begin.
type content struct {
	r      io.Reader
	at     io.ReaderAt // nil: pieces are read with r
	seeker io.Seeker   // nil: r is read once
	start  int64
	read   int64 // bytes of r, if it is read once
	spent  bool  // r was to be read a second time, and can not be
}

func newContent(r io.Reader) *content {
	c := &content{r: r}
	seeker, ok := r.(io.Seeker)
	if !ok {
		return c
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return c
	}
	c.seeker, c.start = seeker, start
	c.at, _ = r.(io.ReaderAt)
	return c
}

// piece returns a function that returns [off, off+n) of the content for each
// attempt. If the content is not an io.ReaderAt, the readers are one.
func (c *content) piece(off, n int64) func() (io.Reader, error) {
	return func() (io.Reader, error) {
		switch {
		case c.at != nil:
			// A transport may go on reading for an attempt that failed.
			return io.NewSectionReader(c.at, c.start+off, n), nil
		case c.seeker != nil:
			if _, err := c.seeker.Seek(c.start+off, io.SeekStart); err != nil {
				return nil, blob.Permanent(fmt.Errorf("rewinding the source of the upload: %w", err))
			}
			return io.LimitReader(c.r, n), nil
		case c.read != off:
			c.spent = true
			return nil, blob.Permanent(errors.New("the upload broke, and its source can not be read again"))
		}
		c.read += n
		return io.LimitReader(c.r, n), nil
	}
}
