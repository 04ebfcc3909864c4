package tier

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/remote/blob/stall"
)

var (
	// ErrAway is that the store failed a moment ago and is not asked again yet.
	ErrAway = errors.New("shared tier is away")
	// ErrDamaged is an object that is not what a replica wrote.
	ErrDamaged = errors.New("object of the shared tier is damaged")
	// ErrContent is a blob that has not its digest and was not stored.
	ErrContent = errors.New("content has not its digest")
	// ErrUnreadable is an object that is there and can not be read, while others can:
	// archived by a rule of the bucket's, a file that this user may not read, a link.
	// It is not known to be of no use, to other replicas or later.
	ErrUnreadable = errors.New("object of the shared tier can not be read")
	// ErrSilent is a store that said nothing for the Timeout.
	ErrSilent = errors.New("store of the shared tier says nothing")
)

const (
	// secretSize is the shortest secret, in bytes.
	secretSize = 32
	// writeTimeout is the shortest time that a store may take no bytes for: it
	// takes them in large parts.
	writeTimeout = time.Minute
	// completeTimeout is the longest time for completing an object of which the store
	// has all bytes: servers put it together, file systems write it to the disk.
	completeTimeout = 5 * time.Minute
)

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
	store            Store
	names            names
	key              []byte // that keys of objects are derived from
	timeout          time.Duration
	reading, writing breaker
	counts           counts
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
	names, err := namesOf(cfg.Secret)
	if err != nil {
		return nil, err
	}
	t := &Tier{store: store, names: names, key: key, timeout: cfg.Timeout}
	if t.timeout == 0 {
		t.timeout = 10 * time.Second
	}
	return t, nil
}

// Folder returns the folder of all objects of the secret, with a slash at its end.
func (t *Tier) Folder() string { return string(t.names) }

// Find looks for the newest generation of a blob, by listing: it is for those who have
// not been told by others.
func (t *Tier) Find(ctx context.Context, d digest.Digest) (newest Object, found bool, err error) {
	folder, err := t.names.folderOf(d)
	if err != nil {
		return Object{}, false, err
	}
	err = t.ask(ctx, &t.reading, func(ctx context.Context) error {
		t.counts.finds.Add(1)
		return t.store.List(ctx, folder, func(e Entry) error {
			of, generation, ok := t.names.parse(e.Name)
			size, whole := blobSize(e.Size)
			if ok && whole && of == d && (!found || generation > newest.Generation) {
				newest, found = Object{generation, size}, true
			}
			return nil
		})
	})
	if err != nil {
		if !errors.Is(err, ErrAway) {
			t.counts.findErrors.Add(1)
		}
		return Object{}, false, fmt.Errorf("looking for %s in the shared tier: %w", d, err)
	}
	return newest, found, nil
}

// Remove removes a generation, which need not be there.
func (t *Tier) Remove(ctx context.Context, d digest.Digest, generation uint64) error {
	name, err := t.names.nameOf(d, generation)
	if err != nil {
		return err
	}
	err = t.ask(ctx, &t.writing, func(ctx context.Context) error { return t.store.Remove(ctx, name) })
	if err != nil {
		return fmt.Errorf("removing %s from the shared tier: %w", name, err)
	}
	return nil
}

// ask makes one short call of the store, unless that is away.
func (t *Tier) ask(ctx context.Context, b *breaker, call func(context.Context) error) error {
	p, err := b.enter()
	if err != nil {
		return err
	}
	err = watched(ctx, t.timeout, func(w *stall.Watch) error { return call(w.Context()) })
	p.tell(ctx, err)
	return err
}

// watched makes a call of the store, which is ended if it does not get on for the limit.
func watched(ctx context.Context, limit time.Duration, call func(*stall.Watch) error) error {
	w := stall.New(ctx, limit)
	defer w.End()
	w.Start()
	return silence(w.Explain(call(w)))
}

// silence returns err, as ErrSilent if it is of a store that said nothing.
func silence(err error) error {
	if e, ok := errors.AsType[*stall.Error](err); ok {
		return fmt.Errorf("%w for %v", ErrSilent, e.After)
	}
	return err
}

// tell ends a pass by the error of a call in ctx.
func (p *pass) tell(ctx context.Context, err error) {
	switch {
	case err == nil, errors.Is(err, ErrUnreadable):
		p.worked()
	case ctx.Err() != nil:
		p.left()
	default:
		p.failed(err)
	}
}
