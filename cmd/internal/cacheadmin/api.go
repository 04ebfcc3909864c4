// Package cacheadmin is how an operator talks to a running registry cache: HTTP
// with JSON over a unix socket in its data path, which only its user can open.
package cacheadmin

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// SocketName is the name of the socket in the data path.
const SocketName = "admin.sock"

// Stat is what a cache is and did since it was started.
type Stat struct {
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	DataPath string    `json:"dataPath"`
	Address  string    `json:"address"`
	Scanned  bool      `json:"scanned"` // what was there before the start is known

	Bytes    int64 `json:"bytes"` // of the disk
	MaxBytes int64 `json:"maxBytes"`
	Blobs    int   `json:"blobs"`
	Links    int   `json:"links"` // what requests lead to which content
	Memory   int64 `json:"memory"`
	// DiskError is what the disk said last, empty if it never failed.
	DiskError string `json:"diskError,omitempty"`

	Requests  uint64            `json:"requests"`
	InFlight  int64             `json:"inFlight"`
	Outcomes  map[string]uint64 `json:"outcomes"`
	BytesSent uint64            `json:"bytesSent"`
	Streaming int               `json:"streaming"`
	Streamers int               `json:"streamers"`

	UpstreamRequests int64 `json:"upstreamRequests"`
	UpstreamBytes    int64 `json:"upstreamBytes"`
	UpstreamErrors   int64 `json:"upstreamErrors"`
	UpstreamLimited  int64 `json:"upstreamLimited"`
	WorkersBusy      int   `json:"workersBusy"`
	Workers          int   `json:"workers"`

	PermissionHeads int64 `json:"permissionHeads"`
	PermissionHits  int64 `json:"permissionHits"`
	Waiting         int64 `json:"waiting"` // clients, for what another one has fetched
	Mismatches      int64 `json:"mismatches"`

	Warmed      int64 `json:"warmed"`
	WarmedBytes int64 `json:"warmedBytes"`

	// Collected is what garbage collection gave up, by reason.
	Collected Report `json:"collected"`

	// Cluster is what is shared with other replicas; nil: nothing.
	Cluster *ClusterStat `json:"cluster,omitempty"`
}

// ClusterStat is a replica's part in a cluster.
type ClusterStat struct {
	Self string `json:"self,omitempty"` // its name among replicas; empty without an index

	// Index and Tier say how those are that are configured.
	Index *Reached `json:"index,omitempty"`
	Tier  *Reached `json:"tier,omitempty"`

	// Bytes of blobs that came from other replicas, the tier, and upstreams.
	FromPeers     int64 `json:"fromPeers"`
	FromTier      int64 `json:"fromTier"`
	FromUpstreams int64 `json:"fromUpstreams"`
	Given         int64 `json:"given"` // bytes, to other replicas

	Leases    int   `json:"leases"` // under which something is being fetched
	Alone     int64 `json:"alone"`  // parts of blobs for which the index was not reached
	Written   int64 `json:"written"`
	Unwritten int64 `json:"unwritten"` // blobs that could not be written to the tier
	Queue     int   `json:"queue"`     // blobs that wait for that
	Damaged   int64 `json:"damaged"`   // objects of the tier
}

// Reached is whether something that replicas share can be used.
type Reached struct {
	Up    bool      `json:"up"`
	Since time.Time `json:"since,omitzero"`  // of Up; not known if it never changed
	Error string    `json:"error,omitempty"` // the last one
}

// Blob is what is kept of one.
type Blob struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType,omitempty"`
	Origin    string        `json:"origin,omitempty"` // whose it is until it is verified
	Size      int64         `json:"size"`
	Bytes     int64         `json:"bytes"` // on disk
	Complete  bool          `json:"complete"`
	Verified  time.Time     `json:"verified,omitzero"`
	Fetched   time.Time     `json:"fetched"`
	Used      time.Time     `json:"used"`
	Holders   int64         `json:"holders,omitempty"`
}

// Report is how often each of the duties of garbage collection had something to do:
// size, age, unused, corrupt, empty, undesired, orphans; scrubbed and scrubBytes are
// what was compared with its digest, bytes is the disk space given back.
type Report map[string]int64

// Progress is a line of the answer to POST /verify; the last one is Done.
type Progress struct {
	Blobs  int    `json:"blobs"` // that were compared
	All    int    `json:"all"`
	Done   bool   `json:"done,omitempty"`
	Report Report `json:"report,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Purge says what is to be forgotten: All, or Digests and Images, which are
// HOST/REPOSITORY, with :TAG or @DIGEST for one image of it; HOST is the upstream's.
type Purge struct {
	All     bool     `json:"all,omitempty"`
	Digests []string `json:"digests,omitempty"`
	Images  []string `json:"images,omitempty"`
}

// Purged is what was forgotten.
type Purged struct {
	Blobs       int   `json:"blobs"`
	Bytes       int64 `json:"bytes"`
	Links       int   `json:"links"`
	Permissions int   `json:"permissions"`
}
