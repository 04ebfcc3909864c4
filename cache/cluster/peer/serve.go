package peer

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/scratch"
)

const (
	blobPath   = "/v1/blob/"
	sizeHeader = "Reprise-Blob-Size"
	nextHeader = "Reprise-Next"
	// piece is how much is sent at a time, in bytes.
	piece = 256 << 10
	// writeFor is how long a peer may take nothing.
	writeFor = 30 * time.Second
)

// Provider gives peers what a replica has.
type Provider interface {
	// Provide returns the bytes that are asked for, as far as they are there or on
	// their way, and the size of the blob. Errors wrap ErrNothing, or ErrNotThere,
	// as a NotThereError where more can be said.
	Provide(ctx context.Context, r Request) (bytes io.ReadCloser, size int64, err error)
}

// Handler serves peers. Who is one is for the listener to know, see Identity.Server.
func Handler(p Provider) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+blobPath+"{digest}", func(w http.ResponseWriter, r *http.Request) { serve(p, w, r) })
	return mux
}

func serve(p Provider, w http.ResponseWriter, r *http.Request) {
	want, err := parse(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	bytes, size, err := p.Provide(r.Context(), want)
	switch {
	case errors.Is(err, ErrNothing):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case errors.Is(err, ErrNotThere):
		if e, ok := errors.AsType[*NotThereError](err); ok && e.Next > 0 {
			w.Header().Set(nextHeader, strconv.FormatInt(e.Next, 10))
		}
		http.Error(w, err.Error(), http.StatusRequestedRangeNotSatisfiable)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer bytes.Close()
	w.Header().Set(sizeHeader, strconv.FormatInt(size, 10))
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := send(w, bytes); err != nil {
		panic(http.ErrAbortHandler) // or the answer would pass for one that ends here
	}
}

// send sends what comes, as it comes. The head goes out at once: the peer does not wait
// long for it, and the first byte may be on its way from far.
func send(w http.ResponseWriter, bytes io.Reader) error {
	control := http.NewResponseController(w)
	borrowed := scratch.Borrow(piece)
	defer scratch.Return(borrowed)
	buf := *borrowed
	defer control.SetWriteDeadline(time.Time{}) //nolint:errcheck // it was set before
	for {
		if err := control.Flush(); err != nil {
			return err
		}
		n, err := bytes.Read(buf)
		if n > 0 {
			if err := control.SetWriteDeadline(time.Now().Add(writeFor)); err != nil {
				return err
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// parse parses what a peer asks for.
func parse(r *http.Request) (Request, error) {
	d, err := digest.Parse(r.PathValue("digest"))
	if err != nil {
		return Request{}, err
	}
	q := r.URL.Query()
	out := Request{Origin: q.Get("origin"), Digest: d}
	if out.Off, err = strconv.ParseInt(q.Get("off"), 10, 64); err != nil {
		return Request{}, err
	}
	if out.End, err = strconv.ParseInt(q.Get("end"), 10, 64); err != nil {
		return Request{}, err
	}
	if out.Off < 0 || out.End >= 0 && out.End <= out.Off || out.End < -1 || strings.ContainsAny(out.Origin, "\r\n\x00") {
		return Request{}, errors.New("not a range of bytes")
	}
	return out, nil
}
