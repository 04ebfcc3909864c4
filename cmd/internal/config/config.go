// Package config reads the snapshotter's configuration file: TOML, with a
// documented default for every key. A key that is not known is an error that
// names its line, so that a misspelt limit is not silently without effect.
package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/pelletier/go-toml/v2"

	"github.com/reprise-containers/reprise/cmd/internal/verdict"
	"github.com/reprise-containers/reprise/tracelayer"
)

// Snapshotter is the configuration of reprise-snapshotter.
type Snapshotter struct {
	// Root holds snapshots, the cache and device state; it survives reboots.
	Root string `toml:"root" comment:"Snapshots, device state and, by default, the cache. Survives reboots."`
	// Address is the unix socket containerd's proxy_plugins entry names.
	Address string `toml:"address" comment:"Unix socket for containerd (proxy_plugins.overlaybd.address)."`
	// RuntimeDir holds what a reboot may take: the holder's socket.
	RuntimeDir string `toml:"runtime_dir" comment:"What a reboot may take: the socket of the descriptor holder."`

	Log      Log      `toml:"log"`
	Metrics  Metrics  `toml:"metrics"`
	Cache    Cache    `toml:"cache"`
	Registry Registry `toml:"registry"`
	Read     Read     `toml:"read"`
	Device   Device   `toml:"device"`
	Download Download `toml:"download"`
	Trace    Trace    `toml:"trace"`
	Writable Writable `toml:"writable"`
	Diff     Diff     `toml:"diff"`
}

// Log says what is logged to standard error.
type Log struct {
	Level  string `toml:"level" comment:"trace, debug, info, warn or error."`
	Format string `toml:"format" comment:"text or json."`
}

// Metrics says where metrics and health are served.
type Metrics struct {
	Address string `toml:"address" comment:"host:port of /metrics and /healthz; empty serves neither."`
}

// Cache bounds the cache of compressed layer data.
type Cache struct {
	Dir     string `toml:"dir" comment:"Directory of the cache; empty: <root>/cache."`
	Max     Size   `toml:"max_size" comment:"Bytes of disk the cache may use."`
	MinFree Size   `toml:"min_free" comment:"Bytes the cache leaves free on its file system, whoever fills it."`
	Policy  string `toml:"policy" comment:"Eviction: \"s3fifo\" withstands scans, \"lru\" does not."`
}

// Registry says how registries are reached.
type Registry struct {
	HostsDir     string   `toml:"hosts_dir" comment:"containerd's hosts.toml directories: mirrors, certificates, plain http."`
	DockerConfig string   `toml:"docker_config" comment:"docker config.json with credentials or credential helpers; empty: $DOCKER_CONFIG or ~/.docker."`
	PlainHTTP    []string `toml:"plain_http" comment:"Hosts (host or host:port) spoken to without TLS. Loopback needs no entry."`
	Requests     int      `toml:"max_requests" comment:"Requests in flight to one registry host."`
	Background   int      `toml:"max_background_requests" comment:"How many of them may be readahead or prefetch."`
	Connect      Duration `toml:"connect_timeout"`
	Response     Duration `toml:"response_timeout" comment:"Wait for the head of a response, and for each further part of its body."`
	Verify       string   `toml:"verify" comment:"\"when-possible\": check what is read of layers that have a chunk table; \"required\": refuse those that have none; \"off\". Another one for one registry: verify below [registry.hosts.'host:port']."`
	Referrers    bool     `toml:"verify_referrers" comment:"For layers without a chunk table, look for one among what refers to the image in its registry (reprise attach-chunks). Who can push there can push such tables."`
	// Hosts is by host as in references, "host" or "host:port"; that of
	// Docker Hub is "docker.io".
	Hosts map[string]Host `toml:"hosts,omitempty"`
}

// Host is what differs for one registry host.
type Host struct {
	Verify string `toml:"verify"`
}

// Read is the failure policy: what a read does that a registry does not answer.
type Read struct {
	Deadline   Duration `toml:"read_deadline" comment:"How long one read is retried, in on_deadline = \"error\"."`
	OnDeadline string   `toml:"on_deadline" comment:"\"hold\": retry for ever, the application waits; \"error\": EIO after read_deadline."`
	RetryBase  Duration `toml:"retry_base" comment:"First pause between tries; it doubles, with jitter."`
	RetryMax   Duration `toml:"retry_max" comment:"Longest pause between tries."`
}

// Device bounds a block device.
type Device struct {
	MaxInFlight     int    `toml:"max_in_flight" comment:"Kernel requests of one device served at a time; the others wait, other devices do not."`
	Readahead       Size   `toml:"readahead" comment:"Farthest readahead of a sequential reader while an image is cold; 0: none of any kind."`
	ReadaheadPolicy string `toml:"readahead_policy" comment:"What the daemon reads ahead while an image is cold, besides what a trace says. \"expand\": what is missing is fetched with its surroundings, as much as takes twice as long as a request; \"sequential\": only ahead of sequential readers, fewer bytes in more requests; \"off\"."`
	ReadaheadBlock  Size   `toml:"readahead_block" comment:"Largest aligned block that \"expand\" fetches at a place."`
	KeepIdle        bool   `toml:"keep_idle" comment:"Leave an image attached when its last container is removed."`
}

// Download says how attached images are made independent of their registry.
type Download struct {
	Enabled   bool     `toml:"enabled" comment:"Download the rest of attached images in the background, check it as a whole and read it from local files. Takes their size on disk, beside the cache."`
	Delay     Duration `toml:"delay" comment:"Time from when an image is attached to when its download begins; up to a tenth is added at random."`
	Idle      Duration `toml:"idle" comment:"How long nobody may have been waiting for a registry before something is downloaded from it."`
	ImageRate Size     `toml:"image_rate" comment:"Bytes a second fetched for one image; 0: no limit."`
	TotalRate Size     `toml:"total_rate" comment:"Bytes a second fetched for all of them; 0: no limit."`
	Images    int      `toml:"images" comment:"Images downloaded at once."`
}

// Default returns the configuration that an empty file gives.
func Default() Snapshotter {
	return Snapshotter{
		Root:       "/var/lib/containerd/io.containerd.snapshotter.v1.overlaybd",
		Address:    "/run/reprise-snapshotter/snapshotter.sock",
		RuntimeDir: "/run/reprise-snapshotter",
		Log:        Log{Level: "info", Format: "text"},
		Metrics:    Metrics{Address: "127.0.0.1:9863"},
		Cache:      Cache{Max: 20 << 30, MinFree: 1 << 30, Policy: "s3fifo"},
		Registry: Registry{
			HostsDir:   "/etc/containerd/certs.d",
			Requests:   32,
			Background: 8,
			Connect:    Duration(10e9),
			Response:   Duration(30e9),
			Verify:     "when-possible",
		},
		Read: Read{
			Deadline:   Duration(300e9),
			OnDeadline: "hold",
			RetryBase:  Duration(100e6),
			RetryMax:   Duration(10e9),
		},
		Device:   Device{MaxInFlight: 64, Readahead: 1 << 20, ReadaheadPolicy: "expand", ReadaheadBlock: 128 << 10},
		Download: Download{Delay: Duration(600e9), Idle: Duration(2e9), Images: 1},
		Trace: Trace{
			Replay: true, Images: 16, Record: []string{},
			RecordLabels: true, RecordPaths: []string{"/tmp/ctr-record-trace"},
			RecordTime: Duration(60e9), RecordLabelTime: Duration(1800e9),
			RecordKeep: 10, MaxRecords: tracelayer.DefaultRecords, MaxRecordings: 4,
		},
		Writable: defaultWritable(),
		Diff:     Diff{Containerd: "/run/containerd/containerd.sock"},
	}
}

// Load reads the file at path over the defaults and validates the result.
func Load(path string) (Snapshotter, error) {
	c := Default()
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("reading configuration: %w", err)
	}
	d := toml.NewDecoder(strings.NewReader(string(text))).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("parsing %s: %w", path, explain(err))
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("checking %s: %w", path, err)
	}
	return c, nil
}

// explain puts the position and the key into the decoder's error.
func explain(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var keys []error
		for _, e := range unknown.Errors {
			row, _ := e.Position()
			keys = append(keys, fmt.Errorf("line %d: unknown key %q", row, strings.Join(e.Key(), ".")))
		}
		return errors.Join(keys...)
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		row, col := wrong.Position()
		return fmt.Errorf("line %d, column %d: %w", row, col, err)
	}
	return err
}

// CacheDir returns the directory of the cache.
func (c Snapshotter) CacheDir() string {
	if c.Cache.Dir != "" {
		return c.Cache.Dir
	}
	return filepath.Join(c.Root, "cache")
}

// Validate reports every value that cannot work, each with its key.
func (c Snapshotter) Validate() error {
	var v verdict.Verdict
	paths := []struct{ key, path string }{{"root", c.Root}, {"address", c.Address}, {"runtime_dir", c.RuntimeDir}, {"cache.dir", c.CacheDir()}}
	for _, p := range paths {
		v.Check(filepath.IsAbs(p.path), "%s = %q: must be an absolute path", p.key, p.path)
	}
	v.OneOf("log.level", c.Log.Level, "trace", "debug", "info", "warn", "error")
	v.OneOf("log.format", c.Log.Format, "text", "json")
	v.OneOf("cache.policy", c.Cache.Policy, "s3fifo", "lru")
	verify := []string{"when-possible", "required", "off"}
	v.OneOf("registry.verify", c.Registry.Verify, verify...)
	for _, host := range slices.Sorted(maps.Keys(c.Registry.Hosts)) {
		if err := checkHost(host); err != nil {
			v.Check(false, "registry.hosts.%q: %w", host, err)
		}
		v.OneOf(fmt.Sprintf("registry.hosts.%q.verify", host), c.Registry.Hosts[host].Verify, verify...)
	}
	v.OneOf("read.on_deadline", c.Read.OnDeadline, "hold", "error")
	v.Check(c.Cache.Max >= 64<<20, "cache.max_size: must be at least 64MiB")
	v.Check(c.Registry.Requests > 0, "registry.max_requests: must be positive")
	v.Check(c.Registry.Background > 0 && c.Registry.Background < c.Registry.Requests,
		"registry.max_background_requests: must be positive and below max_requests, or need would wait behind readahead")
	v.Check(c.Read.OnDeadline != "error" || c.Read.Deadline > 0, "read.read_deadline: must be positive with on_deadline = \"error\"")
	v.Check(c.Read.RetryBase > 0 && c.Read.RetryMax >= c.Read.RetryBase, "read.retry_base, read.retry_max: must be positive and in order")
	v.Check(c.Device.MaxInFlight > 0, "device.max_in_flight: must be positive")
	v.OneOf("device.readahead_policy", c.Device.ReadaheadPolicy, "expand", "sequential", "off")
	v.Check(c.Device.ReadaheadBlock > 0, "device.readahead_block: must be positive")
	v.Check(c.Download.Idle > 0, "download.idle: must be positive")
	v.Check(c.Download.Images > 0, "download.images: must be positive")
	c.Trace.validate(&v)
	c.Writable.validate(&v)
	c.Diff.validate(&v)
	v.Check(filepath.IsAbs(c.RecordDir()), "trace.record_dir = %q: must be an absolute path", c.RecordDir())
	return v.Err()
}

// checkHost returns an error unless host is what stands before the first slash
// of references: a table under another key would never be looked up.
func checkHost(host string) error {
	named, err := reference.ParseNormalizedNamed(host + "/name")
	switch {
	case host == "registry-1.docker.io", host == "index.docker.io":
		return errors.New("references to Docker Hub have another host: write docker.io")
	case err != nil || reference.Domain(named) != host:
		return errors.New("must be a host or host:port, as references begin with")
	}
	return nil
}

// Text returns the configuration as a commented TOML file.
func (c Snapshotter) Text() (string, error) {
	var b strings.Builder
	if err := toml.NewEncoder(&b).SetIndentTables(false).Encode(c); err != nil {
		return "", err
	}
	return b.String(), nil
}
