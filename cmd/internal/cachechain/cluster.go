package cachechain

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/reprise-containers/reprise/cache/cluster"
	"github.com/reprise-containers/reprise/cache/cluster/peer"
	"github.com/reprise-containers/reprise/cache/cluster/sharedindex"
	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cmd/internal/cacheadmin"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
	"github.com/reprise-containers/reprise/cmd/internal/certs"
)

// Cluster is what a cache shares with other replicas.
type Cluster struct {
	*cluster.Cluster
	// Self is the name of this replica, where peers reach it; empty without peers.
	Self string
	// TLS is how peers are served.
	TLS *tls.Config

	chain *Chain
	log   *slog.Logger
	about func() ReplicaStatus // nil: nothing is told
	index *sharedindex.Index   // nil: none
	peers *peer.Client         // nil: none
	purge atomic.Pointer[cacheadmin.Server]
}

// positionName is the file, in the data path, up to where announcements were followed.
const positionName = "cluster.position"

// minSecret is the least length of the secret of a cluster, in bytes.
const minSecret = 32

// openCluster opens what is configured of a cluster. Nothing of it need be there.
func openCluster(cfg cacheconfig.Cluster, chain *Chain, data *DataPath, watch Watch) (c *Cluster, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("configuring the cluster: %w", err)
		}
	}()
	text, err := secretFile(cfg.SecretPath)
	if err == nil && len(text) < minSecret {
		err = fmt.Errorf("%s has %d bytes, at least %d are needed, the same for all replicas: head -c 32 /dev/urandom | base64 >%s",
			cfg.SecretPath, len(text), minSecret, cfg.SecretPath)
	}
	if err != nil {
		return nil, fmt.Errorf("secretPath: %w", err)
	}
	secret := []byte(text)
	c = &Cluster{chain: chain, log: watch.Log, about: watch.Status}
	shared := cluster.Config{
		LeaseTTL: time.Duration(cfg.LeaseTTL), Remember: time.Duration(cfg.Redis.Remember), Writers: cfg.Tier.Writers, Sweep: tier.SweepConfig{MaxBytes: int64(cfg.Tier.MaxSize)},
		Position: filepath.Join(data.Dir, positionName), Status: c.status,
		OnAnnouncement: c.announced,
		OnError:        func(err error) { watch.Log.Warn("sharing with other replicas", "error", err) },
	}
	if cfg.HasPeers() {
		if err := c.openPeers(cfg, secret); err != nil {
			return nil, err
		}
		shared.Self, shared.Index, shared.Peers = c.Self, c.index, c.peers
		if cfg.Redis.Permissions {
			if err := chain.Permit.Share(c.index, secret); err != nil {
				return nil, fmt.Errorf("redis.permissions: %w", err)
			}
		}
	}
	if shared.Tier, err = openTier(cfg.Tier, secret); err != nil {
		return nil, err
	}
	shared.Secret = secret
	c.Cluster, err = cluster.New(shared, chain.Cache)
	return c, err
}

// openPeers opens the index, and the way to and from those whom it names.
func (c *Cluster) openPeers(cfg cacheconfig.Cluster, secret []byte) error {
	var err error
	if c.Self, err = cfg.AdvertiseAddress(); err != nil {
		return err
	}
	password, err := secretFile(cfg.Redis.PasswordPath)
	if err != nil {
		return fmt.Errorf("redis.passwordPath: %w", err)
	}
	// Who has another secret is in another cluster, also by mistake.
	id, err := hkdf.Key(sha256.New, secret, nil, "reprise index name v1", 4)
	if err != nil {
		return fmt.Errorf("deriving the name of the index: %w", err)
	}
	prefix := cfg.Redis.Prefix + "-" + hex.EncodeToString(id)
	redis := sharedindex.Config{
		Addrs: cfg.Redis.Addresses, Cluster: cfg.Redis.Cluster, Username: cfg.Redis.Username, Password: password,
		Database: cfg.Redis.Database, Prefix: prefix, Replica: c.Self,
		LeaseTTL: time.Duration(cfg.LeaseTTL), Remember: time.Duration(cfg.Redis.Remember),
	}
	if cfg.Redis.TLS {
		roots, err := certs.Authorities(cfg.Redis.CAPath)
		if err != nil {
			return fmt.Errorf("redis.caPath: %w", err)
		}
		redis.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	if c.index, err = sharedindex.New(redis); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	who, err := peer.NewIdentity(secret)
	if err != nil {
		return err
	}
	c.peers, c.TLS = peer.NewClient(who, time.Duration(cfg.LeaseTTL)), who.Server()
	return nil
}

// openTier returns the shared tier, nil if none is configured.
func openTier(cfg cacheconfig.SharedTier, secret []byte) (*tier.Tier, error) {
	var store tier.Store
	var err error
	switch s := cfg.S3; {
	case cfg.Directory != "":
		if store, err = tier.NewDir(cfg.Directory); err != nil {
			return nil, fmt.Errorf("tier.directory: %w", err)
		}
	case s.Endpoint != "":
		if store, err = openS3(s); err != nil {
			return nil, fmt.Errorf("tier.s3: %w", err)
		}
	default:
		return nil, nil
	}
	return tier.New(store, tier.Config{Secret: secret})
}

func openS3(s cacheconfig.S3) (tier.Store, error) {
	access, err := secretFile(s.AccessKeyPath)
	if err != nil {
		return nil, fmt.Errorf("accessKeyPath: %w", err)
	}
	secret, err := secretFile(s.SecretKeyPath)
	if err != nil {
		return nil, fmt.Errorf("secretKeyPath: %w", err)
	}
	roots, err := certs.Authorities(s.CAPath)
	if err != nil {
		return nil, fmt.Errorf("caPath: %w", err)
	}
	return tier.NewS3(tier.S3Config{
		Endpoint: s.Endpoint, Bucket: s.Bucket, Prefix: s.Prefix, Region: s.Region, AccessKey: access, SecretKey: secret,
		Insecure: s.Insecure, CA: roots,
	})
}

// secretFile returns what a file says, without one line's end after it; "" if none is
// named. Other space is part of the secret.
func secretFile(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if line, ok := bytes.CutSuffix(text, []byte("\n")); ok {
		text = bytes.TrimSuffix(line, []byte("\r"))
	}
	return string(text), err
}

// Handler serves peers.
func (c *Cluster) Handler() http.Handler { return peer.Handler(c) }

// ReplicaStatus is what a replica tells the others of itself.
type ReplicaStatus struct {
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Requests uint64    `json:"requests"`
	Hits     uint64    `json:"hits"`
	Bytes    int64     `json:"bytes"` // of the disk
	MaxBytes int64     `json:"maxBytes"`
	Blobs    int       `json:"blobs"`
	FromPeer int64     `json:"fromPeer"` // bytes
	FromTier int64     `json:"fromTier"`
	Upstream int64     `json:"upstream"`
}

// Status is what this replica tells the others of itself.
func (c *Cluster) Status() ReplicaStatus {
	var s ReplicaStatus
	if c.about != nil {
		s = c.about()
	}
	shared := c.Stats()
	s.FromPeer, s.FromTier, s.Upstream = shared.Peers.Bytes, shared.Tier.Bytes, c.chain.Upstream.Stats().Bytes
	return s
}

func (c *Cluster) status() []byte {
	text, err := json.Marshal(c.Status())
	if err != nil {
		return nil
	}
	return text
}

// atOnce is how many digests fit into an announcement.
const atOnce = 32

// purged has the other replicas, and the tier, forget what this one has forgotten.
func (c *Cluster) purged(ctx context.Context, p cacheadmin.Purge, named []digest.Digest) error {
	var errs []error
	tell := func(p cacheadmin.Purge) {
		text, err := json.Marshal(p)
		if err == nil {
			err = c.Announce(ctx, text)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("telling other replicas, have it purged there too: %w", err))
		}
	}
	if p.All {
		tell(cacheadmin.Purge{All: true})
		return errors.Join(errs...)
	}
	if len(p.Images) > 0 {
		tell(cacheadmin.Purge{Images: p.Images})
	}
	for rest := named; len(rest) > 0 && len(errs) == 0; {
		some := rest[:min(atOnce, len(rest))]
		rest = rest[len(some):]
		var of cacheadmin.Purge
		for _, d := range some {
			of.Digests = append(of.Digests, string(d))
		}
		tell(of)
	}
	return errors.Join(append(errs, c.Forget(ctx, named))...)
}

// announced forgets what another replica was made to forget.
func (c *Cluster) announced(ctx context.Context, payload []byte, missed bool) {
	if missed {
		c.log.Warn("what other replicas were made to forget while this one was away is not known: if something was purged since, purge it again")
	}
	admin := c.purge.Load()
	if len(payload) == 0 || admin == nil {
		return
	}
	var p cacheadmin.Purge
	err := json.Unmarshal(payload, &p)
	if err == nil {
		var done cacheadmin.Purged
		var named []digest.Digest
		done, named, err = admin.Purge(ctx, p)
		if !p.All {
			// It may know more of an image than the one that announced it.
			err = errors.Join(err, c.Forget(ctx, named))
		}
		c.log.Info("purged for another replica", "blobs", done.Blobs, "links", done.Links)
	}
	if err != nil {
		c.log.Warn("purging for another replica", "error", err)
	}
}

func (c *Cluster) close() error {
	if c.peers != nil {
		c.peers.Close()
	}
	if c.index == nil {
		return nil
	}
	return c.index.Close()
}
