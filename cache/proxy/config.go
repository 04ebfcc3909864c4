package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Defaults of Config.
const (
	DefaultStreamers     = 100
	DefaultQueueFor      = 5 * time.Second
	DefaultWriteTimeout  = time.Minute
	DefaultMaxManifest   = 4 << 20
	DefaultMaxList       = 16 << 20
	DefaultMemoryBytes   = 64 << 20
	DefaultFetchTimeout  = time.Minute
	DefaultPingTTL       = time.Minute
	DefaultTrustedTagTTL = 10 * time.Minute
)

// Config configures a Handler. Zero values are the defaults, negative ones turn
// off what they bound where that is said.
type Config struct {
	// Streamers is how many bodies are sent at a time, those from memory
	// apart that are small. Whoever comes on top of it waits for QueueFor
	// and is then told to come again later (429 with Retry-After).
	Streamers int
	QueueFor  time.Duration

	// WriteTimeout ends an answer of which the client takes nothing for so
	// long. It does not bound the whole of an answer. The handler leaves the
	// connection with the write deadline of its last answer.
	WriteTimeout time.Duration

	MaxManifest int64 // bytes; a larger manifest is refused
	MaxList     int64 // bytes of one page of tags or referrers

	// MemoryBytes bounds what is kept in memory: manifests, and verified blobs
	// up to SmallBlob. Negative: nothing is.
	MemoryBytes int64

	// FetchTimeout bounds the whole of one fetch of a manifest or list.
	FetchTimeout time.Duration

	// PingTTL is how long an upstream's answer to a caller without
	// credentials who asks for /v2/ is kept. Negative: it is not.
	PingTTL time.Duration

	// TrustedTagTTL is how long a tag is believed where upstreams are not asked
	// for permission (permit's trusted policy). Then it is looked up upstream,
	// and if that is not to be reached believed on.
	TrustedTagTTL time.Duration

	// Observer is told of every request that was answered; nil: nobody is.
	Observer Observer

	// OnManifest is told of every manifest that is served to a GET, before it
	// is; nil: nobody is. It must return at once. The context ends with the
	// request.
	OnManifest func(ctx context.Context, m Manifest)
}

// SmallBlob is the size in bytes up to which blobs are kept in memory.
const SmallBlob = 64 << 10

// Validate reports values that can not be meant.
func (c Config) Validate() error {
	var errs []error
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"streamers", int64(c.Streamers)}, {"queueFor", int64(c.QueueFor)}, {"writeTimeout", int64(c.WriteTimeout)},
		{"maxManifest", c.MaxManifest}, {"maxList", c.MaxList}, {"fetchTimeout", int64(c.FetchTimeout)},
		{"trustedTagTTL", int64(c.TrustedTagTTL)},
	} {
		if v.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", v.name))
		}
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Streamers = orDefault(c.Streamers, DefaultStreamers)
	c.QueueFor = orDefault(c.QueueFor, DefaultQueueFor)
	c.WriteTimeout = orDefault(c.WriteTimeout, DefaultWriteTimeout)
	c.MaxManifest = orDefault(c.MaxManifest, DefaultMaxManifest)
	c.MaxList = orDefault(c.MaxList, DefaultMaxList)
	c.MemoryBytes = orDefault(c.MemoryBytes, DefaultMemoryBytes)
	c.FetchTimeout = orDefault(c.FetchTimeout, DefaultFetchTimeout)
	c.PingTTL = orDefault(c.PingTTL, DefaultPingTTL)
	c.TrustedTagTTL = orDefault(c.TrustedTagTTL, DefaultTrustedTagTTL)
	return c
}

func orDefault[T int | int64 | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}
