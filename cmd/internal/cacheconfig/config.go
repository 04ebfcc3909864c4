// Package cacheconfig reads the configuration file of registry-cache: YAML, with
// the keys and, as defaults, the values of the original registry cache's example,
// and beside them keys of our own. A key that is not known is an error that names
// its line, so that a misspelt limit is not silently without effect.
//
// What the original's example names of a site (registries, certificates) has no
// default: an empty file serves nobody's registry.
package cacheconfig

import (
	"github.com/reprise-containers/reprise/cmd/internal/yamlfile"
)

type (
	// Size is a number of bytes, as in all configuration files.
	Size = yamlfile.Size
	// Duration is a span of time, as in all configuration files.
	Duration = yamlfile.Duration
)

// Cache is the configuration of registry-cache.
type Cache struct {
	DataPath   string     `yaml:"dataPath" comment:"All that is kept: content, index, the admin socket. An empty folder, or one of an earlier run."`
	Server     Server     `yaml:"server"`
	Permission Permission `yaml:"permission"`
	Fill       Fill       `yaml:"fill"`
	Warm       Warm       `yaml:"warm"`
	Cluster    Cluster    `yaml:"cluster" comment:"What several caches share."`
	Metrics    Metrics    `yaml:"metrics"`
	GC         GC         `yaml:"gc"`
	AccessLog  AccessLog  `yaml:"accessLog"`
	Log        Log        `yaml:"log"`
}

// Server is how clients are served and upstream registries reached.
type Server struct {
	Workers         int      `yaml:"workers" comment:"Blobs downloaded from upstream registries at a time; other requests to them have as many again of their own, and more."`
	Streamers       int      `yaml:"streamers" comment:"Bodies sent to clients at a time. Who comes on top waits a few seconds, and is then told to come again (429)."`
	UpstreamTimeout Duration `yaml:"upstreamTimeout" comment:"Longest wait for an upstream: to connect, for the head of its answer, for each further part. Not for the whole."`
	Timeout         Duration `yaml:"timeout" comment:"Longest wait for a client: for the head of its request, and to take a further part of the answer. Not for the whole."`
	Address         string   `yaml:"address" comment:"host:port to serve at."`

	DefaultBackend Backend  `yaml:"defaultBackend" comment:"The registry for requests that no rule and no ns parameter leads elsewhere. Without host there is none: they get 404."`
	UpstreamRules  []Rule   `yaml:"upstreamRules" comment:"The first whose regex matches the whole of a request's Host, with its port, wins. $group1 in host is what the first group matched. Write dots of names as \\. in a regex."`
	TLS            TLS      `yaml:"tls" comment:"Certificate and key to serve TLS with; without them plain HTTP is served. Changed files are read again."`
	Memory         Size     `yaml:"memory" comment:"Memory for manifests and blobs up to 64KiB."`
	AllowAddresses []string `yaml:"allowAddresses" comment:"Networks that may be dialled although they are not public, as \"10.0.0.0/8\". Upstreams given as an IP address, or as localhost, may be dialled without being listed here, at their port."`
	AuthRealms     []string `yaml:"authRealms" comment:"Hosts that an upstream may send clients to for a token, beside those of its own domain."`

	Registries map[string]Backend `yaml:"registries" comment:"Registries for containerd's ns parameter, and clients that send their name as Host: by the name in references. Empty values are that name itself over https (docker.io: registry-1.docker.io)."`
}

// Backend is an upstream registry.
type Backend struct {
	Host   string `yaml:"host" comment:"host or host:port."`
	Scheme string `yaml:"scheme" comment:"https or http."`
}

// Rule leads hosts to an upstream.
type Rule struct {
	Regex  string `yaml:"regex"`
	Host   string `yaml:"host"`
	Scheme string `yaml:"scheme"`
}

// TLS names files.
type TLS struct {
	CertPath     string `yaml:"certPath" comment:"PEM file: certificate, then those between it and its root."`
	KeyPath      string `yaml:"keyPath" comment:"PEM file."`
	CAPath       string `yaml:"caPath" comment:"PEM file of authorities that upstreams' certificates may be of, beside the system's."`
	ClientCAPath string `yaml:"clientCAPath" comment:"PEM file of authorities; clients without a certificate of one of these are refused."`
}

// Permission is for how long an upstream's answer to the HEAD that is sent to it
// with the caller's credentials counts.
type Permission struct {
	Policy      string   `yaml:"policy" comment:"What counts when the upstream does not answer: \"fail-closed\": nobody gets anything; \"stale-if-error\": who was allowed within staleFor; \"trusted\": upstreams are not asked, everybody may have everything (a closed network)."`
	TTL         Duration `yaml:"ttl" comment:"How long a permission counts, for whole blobs. 0s: each request is asked for."`
	RangeTTL    Duration `yaml:"rangeTTL" comment:"The same for parts of blobs, which a lazy start reads by the thousands."`
	ManifestTTL Duration `yaml:"manifestTTL" comment:"The same for manifests. With it, a tag may lead to what it was so long ago."`
	StaleFor    Duration `yaml:"staleFor" comment:"See policy."`
	NegativeTTL Duration `yaml:"negativeTTL" comment:"How long a refusal counts, for the same credentials only."`
}

// Fill is how content is fetched.
type Fill struct {
	Rounding  Size `yaml:"rounding" comment:"Parts of blobs that are not there are fetched in multiples of this. 0B: what was asked for, to the byte."`
	JoinAhead Size `yaml:"joinAhead" comment:"How far before a running download a reader waits for it to come by, instead of starting one."`
	Complete  bool `yaml:"complete" comment:"Fetch the rest of blobs of which parts were read, when there is nothing else to do."`
}

// Warm is what is fetched before somebody asks.
type Warm struct {
	Enabled   bool     `yaml:"enabled" comment:"When a manifest with a recorded start (trace layer) is asked for, fetch what that start reads."`
	Bandwidth Size     `yaml:"bandwidth" comment:"Bytes a second, for all of that together. 0B: no limit."`
	Images    int      `yaml:"images" comment:"Images at a time."`
	Again     Duration `yaml:"again" comment:"How long an image that was looked at is not looked at again."`
}

// Metrics is where the service is watched.
type Metrics struct {
	Address string `yaml:"address" comment:"host:port of /metrics, /healthz, /readyz and a page for people at /; empty serves none of them."`
	Images  bool   `yaml:"images" comment:"Show on the page which images are asked for most: whoever reaches the address reads their names."`
}

// GC is what is forgotten.
type GC struct {
	Disk      Disk     `yaml:"disk"`
	Interval  Duration `yaml:"interval" comment:"Time between two collections; up to a tenth more or less, at random."`
	Layers    Layers   `yaml:"layers" comment:"Blobs: layers, configurations."`
	Manifests Ages     `yaml:"manifests" comment:"Manifests, and what tags led to."`
	Policy    string   `yaml:"policy" comment:"What makes room: lru, fifo, clock, sieve, s3fifo, lfu, gdsf, 2q, arc or wtinylfu; docs/registry-cache.md says which is for what."`
	ScrubRate Size     `yaml:"scrubRate" comment:"Bytes a second that are read and hashed again for layers.checkSHA."`
	Grace     Duration `yaml:"grace" comment:"How old a file that does not belong here must be to be removed."`
}

// Disk bounds what is used of it.
type Disk struct {
	MaxSize Size `yaml:"maxSize" comment:"Disk space for content; never exceeded. k, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024."`
	MinFree Size `yaml:"minFree" comment:"Space left free on the file system, whoever fills it."`
}

// Ages bound how old something gets; 0 does not.
type Ages struct {
	MaxAge    Duration `yaml:"maxAge" comment:"Since it was fetched. 0s: no limit."`
	MaxUnused Duration `yaml:"maxUnused" comment:"Since it was last served. 0s: no limit."`
}

// Layers is Ages, and whether what is kept is checked.
type Layers struct {
	CheckSHA bool `yaml:"checkSHA" comment:"Hash what is kept again and again, and give up what is not what its digest says."`
	Ages     `yaml:",inline"`
}

// AccessLog is where requests are logged.
type AccessLog struct {
	Path      string `yaml:"path" comment:"File, opened again on SIGHUP; \"-\" is standard output; empty: none."`
	Format    string `yaml:"format" comment:"\"json\": a line for each request; \"trace\": in the schema of the IBM registry traces (FAST'18), for replays and simulations."`
	Anonymize bool   `yaml:"anonymize" comment:"Replace hosts, addresses, names and references with tokens of 8 hexadecimal digits, the same each time."`
}

// Log is what is logged to standard error.
type Log struct {
	Level  string `yaml:"level" comment:"debug, info, warn or error."`
	Format string `yaml:"format" comment:"text or json."`
}

// Default returns the configuration that an empty file gives.
func Default() Cache {
	return Cache{
		DataPath: "/cache/",
		Server: Server{
			Workers: 10, Streamers: 100,
			UpstreamTimeout: Duration(60e9), Timeout: Duration(60e9),
			Address:        "127.0.0.1:7000",
			DefaultBackend: Backend{Scheme: "https"},
			UpstreamRules:  []Rule{},
			Memory:         64 << 20,
			AllowAddresses: []string{}, AuthRealms: []string{},
			Registries: map[string]Backend{},
		},
		Permission: Permission{
			Policy: "fail-closed", RangeTTL: Duration(60e9), StaleFor: Duration(600e9), NegativeTTL: Duration(5e9),
		},
		Fill: Fill{JoinAhead: 4 << 20},
		Warm: Warm{Enabled: true, Bandwidth: 32 << 20, Images: 4, Again: Duration(600e9)},
		Cluster: Cluster{
			Address: "0.0.0.0:7001", LeaseTTL: Duration(10e9),
			Redis: Redis{Addresses: []string{}, Prefix: "reprise", Remember: Duration(7 * 24 * 3600e9)}, Tier: SharedTier{Writers: 2},
		},
		Metrics: Metrics{Address: "0.0.0.0:3000"},
		GC: GC{
			Disk:      Disk{MaxSize: 1e12, MinFree: 1 << 30},
			Interval:  Duration(1200e9),
			Layers:    Layers{CheckSHA: true, Ages: Ages{MaxAge: Duration(3600e9), MaxUnused: Duration(1800e9)}},
			Manifests: Ages{MaxAge: Duration(600e9), MaxUnused: Duration(300e9)},
			Policy:    "s3fifo",
			ScrubRate: 20 << 20,
			Grace:     Duration(600e9),
		},
		AccessLog: AccessLog{Format: "json"},
		Log:       Log{Level: "info", Format: "text"},
	}
}

// Load reads the file at path over the defaults and validates the result.
func Load(path string) (Cache, error) { return yamlfile.Load(path, Default()) }

// Parse reads text over the defaults. Errors name lines, and keys in full.
func Parse(text []byte) (Cache, error) {
	c := Default()
	if err := yamlfile.Parse(text, &c); err != nil {
		return Cache{}, err
	}
	return c, nil
}

// Text returns the configuration as a commented YAML file.
func (c Cache) Text() (string, error) { return yamlfile.Text(c) }
