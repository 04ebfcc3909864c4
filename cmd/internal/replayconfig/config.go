// Package replayconfig reads the configuration file of trace-replayer: YAML with the
// keys and meanings of the Docker registry trace player of FAST'18, whose files work
// unchanged, and beside them keys of our own. A key that is not known is an error
// that names its line.
package replayconfig

import (
	"github.com/reprise-containers/reprise/cmd/internal/yamlfile"
)

type (
	// Size is a number of bytes, as in all configuration files.
	Size = yamlfile.Size
	// Duration is a span of time, as in all configuration files.
	Duration = yamlfile.Duration
)

// Config is the configuration of trace-replayer. A mode uses the parts it needs and
// asks for no others.
type Config struct {
	ClientInfo ClientInfo `yaml:"client_info"`
	Verbose    bool       `yaml:"verbose" comment:"Of the original. Has no effect."`
	Trace      Trace      `yaml:"trace"`
	Registry   []string   `yaml:"registry" comment:"Registries, as host:port (plain http) or as URLs. warmup pushes to the first."`
	Access     []Access   `yaml:"access" comment:"How to get into registries. Those that are not listed are asked without a name; where they want a token, an anonymous one is fetched. Each has registry, username, password or password_file, token or token_file, ca (a PEM file), insecure (true: any certificate)."`
	Warmup     Warmup     `yaml:"warmup"`
	Run        Run        `yaml:"run"`
	Cluster    Cluster    `yaml:"cluster"`
	Simulate   Simulate   `yaml:"simulate"`
	Generate   Generate   `yaml:"generate"`
	Report     Report     `yaml:"report"`
}

// ClientInfo is who sends the requests of a run, and how.
type ClientInfo struct {
	ClientList []string `yaml:"client_list" comment:"Clients, as host:port. Empty: this process sends the requests itself."`
	Port       int      `yaml:"port" comment:"Of the original's master. Has no effect: results come back on the connection to the client."`
	Threads    int      `yaml:"threads" comment:"Requests under way in a client of a closed loop (wait: false)."`
	Wait       *bool    `yaml:"wait" comment:"true, or not set: each request is sent when it is due, whatever became of those before it (open loop). false: as fast as the registry answers, threads at a time (closed loop)."`
	Route      bool     `yaml:"route" comment:"Requests of one client of the trace are sent by one client here. Otherwise they take turns."`
}

// Trace is what is replayed.
type Trace struct {
	Location string   `yaml:"location" comment:"Folder of the files; empty: where the program was started."`
	Traces   []string `yaml:"traces" comment:"Files: JSON arrays, JSON lines, CSV, or a URI a line; plain, gzip or zstd. They are merged by time. \"-\" is standard input."`
	Limit    *Limit   `yaml:"limit" comment:"Only the beginning: type is seconds or requests, amount how many: {type: seconds, amount: 3600}."`
	MaxSize  Size     `yaml:"max_size" comment:"Take blobs and manifests for no larger than this: recorded ones are 14 MB on average, and a registry has to hold them. 0B: as recorded."`
	Output   string   `yaml:"output" comment:"Results file of run."`
	Compat   bool     `yaml:"compat" comment:"Take and send what the original did: GET and PUT with bytes only, what is not in the interim map is a PUT, all from one repository (test_repo). As --compat-python."`
	SkipBad  bool     `yaml:"skip_bad" comment:"Count records that cannot be read, instead of ending with an error."`
}

// Limit is how much of a trace is used.
type Limit struct {
	Type   string  `yaml:"type"`
	Amount float64 `yaml:"amount"`
}

// Access is how to get into a registry.
type Access struct {
	Registry     string `yaml:"registry" comment:"As in the list of registries."`
	Username     string `yaml:"username"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	Token        string `yaml:"token" comment:"Bearer token that is sent as it is."`
	TokenFile    string `yaml:"token_file"`
	CA           string `yaml:"ca" comment:"PEM file of authorities beside the system's."`
	Insecure     bool   `yaml:"insecure" comment:"Take any certificate."`
}

// Warmup is how the registry is filled before a run.
type Warmup struct {
	Output     string  `yaml:"output" comment:"The interim map: which blob stands for which URI. warmup writes it and goes on where it ended; run reads it."`
	Threads    int     `yaml:"threads" comment:"Uploads at a time."`
	Random     *bool   `yaml:"random" comment:"false: blobs of zeros, as the original's. Blobs of one size are then one blob, and compress to nothing."`
	Seed       uint64  `yaml:"seed" comment:"Decides the content, which is a function of URI, size and seed."`
	Dedupe     float64 `yaml:"dedupe" comment:"Share of the blobs, 0 to 1, that have the content of another."`
	Repository string  `yaml:"repository" comment:"Push everything to this repository. Empty: to those of the trace."`
	Manifests  string  `yaml:"manifests" comment:"\"real\": manifests that list the layers which the trace reads after them. \"blobs\": blobs in their place, as the original."`
	Verify     float64 `yaml:"verify" comment:"Share of what was pushed, 0 to 1, that is read back and compared."`
}

// Run is how a trace is sent.
type Run struct {
	Speed       float64  `yaml:"speed" comment:"Times as fast as recorded."`
	Rate        float64  `yaml:"rate" comment:"Requests a second, instead of the recorded times. 0: those."`
	Poisson     bool     `yaml:"poisson" comment:"With rate: at random intervals, not equal ones."`
	Ramp        Duration `yaml:"ramp" comment:"How long until the full speed or rate is reached."`
	Loop        int      `yaml:"loop" comment:"How often the trace is replayed; 0: until for is over, or the program is stopped."`
	For         Duration `yaml:"for" comment:"Send nothing that is due after that time; in a closed loop, nothing after it. What was due before and is late is still sent. 0s: no limit."`
	MaxInFlight int      `yaml:"max_inflight" comment:"Requests under way in a client of an open loop. More than that wait, and the report says so."`
	Timeout     Duration `yaml:"timeout" comment:"How long a request may make no progress."`
	Pick        string   `yaml:"pick" comment:"Which of several registries gets a request: \"random\", as the original, \"round-robin\", \"host\": by who answered in the trace, \"client\": by who asked."`
	Seed        uint64   `yaml:"seed" comment:"Decides what is random: which registry, and with poisson when."`
	NS          string   `yaml:"ns" comment:"Sent as the ns parameter, as containerd tells a mirror which registry it stands for."`
	Uploads     string   `yaml:"uploads" comment:"\"whole\": a recorded PUT is a complete upload, the POST and PATCH before it are part of it. \"parts\": each is sent by itself."`
	Check       bool     `yaml:"check" comment:"Compare the digest of what comes."`
	OnTime      Duration `yaml:"on_time" comment:"A request that is sent so much later than it was due is not on time."`
}

// Cluster is how master and clients know each other.
type Cluster struct {
	Anyone     bool     `yaml:"anyone" comment:"Do without a secret, although clients are on other machines: whoever can reach them can use them."`
	Lost       string   `yaml:"lost" comment:"What is done when a client is lost: \"proceed\" with the others, and count its requests as lost; \"takeover\": the others send them; \"stop\"."`
	Secret     string   `yaml:"secret" comment:"What master and clients must both have."`
	SecretFile string   `yaml:"secret_file" comment:"File with it."`
	Heartbeat  Duration `yaml:"heartbeat" comment:"A peer that is silent for three of these is gone."`
	StartIn    Duration `yaml:"start_in" comment:"How long after all clients are ready they begin, at one instant."`
	CA         string   `yaml:"ca" comment:"PEM file of authorities that the certificates of clients must be of. Connections are always TLS; without it, only the secret vouches for a client."`
}

// Simulate is what is simulated.
type Simulate struct {
	Name     string           `yaml:"name" comment:"Plugin: a Python file with init(requests) or init(requests, args), a .star file with the same, or one of the built-in: cache, prefetch. Empty: the simulator, as told below."`
	Args     map[string]any   `yaml:"args,omitempty" comment:"Second argument of init."`
	Policies []string         `yaml:"policies" comment:"Eviction policies, and belady, the bound of all."`
	Sizes    []string         `yaml:"sizes" comment:"Of the cache: 10GiB, \"5000 objects\", or a share of all distinct content, 5%."`
	Unit     bool             `yaml:"unit" comment:"Count objects, as if each had the same size."`
	Key      string           `yaml:"key" comment:"What is one object: \"uri\", or \"blob\": what has the same last element, in whatever repository."`
	Kinds    []string         `yaml:"kinds" comment:"What is simulated: blob, manifest."`
	PerNode  []string         `yaml:"per_node" comment:"Sizes of a cache on each client, before the shared one. Empty: none."`
	Levels   []Levels         `yaml:"levels" comment:"Caches of memory and disk: what memory gives up goes to disk, what is read there goes back. Each has memory and disk: [{memory: 1GiB, disk: 10GiB}]."`
	Cluster  SimulatedCluster `yaml:"cluster"`
	GC       SimulatedGC      `yaml:"gc" comment:"Ages at which the registry cache forgets, as in gc of its configuration."`
	Curve    Curve            `yaml:"curve"`
	Advise   Size             `yaml:"advise" comment:"Disk that the registry cache may take: recommend its settings. 0B: do not."`
	Prefetch *Prefetch        `yaml:"prefetch" comment:"Simulate fetching the layers of a manifest before they are asked for: {pushed: 1h, fetched: 1h, identity: layer}; how long a pushed layer is remembered, and a fetched one kept; layers are told by \"layer\", their name, or \"size\", repository and size."`
	Report   Files            `yaml:"report" comment:"Where the figures of a simulation go."`
}

// Levels is a cache of two levels.
type Levels struct {
	Memory string `yaml:"memory"`
	Disk   string `yaml:"disk"`
}

// SimulatedGC is gc of the registry cache's configuration.
type SimulatedGC struct {
	Disk      SimulatedDisk `yaml:"disk"`
	Interval  Duration      `yaml:"interval" comment:"Time between two collections, in the trace's time."`
	Layers    SimulatedAges `yaml:"layers"`
	Manifests SimulatedAges `yaml:"manifests"`
}

// SimulatedDisk bounds what is used of it.
type SimulatedDisk struct {
	MaxSize Size `yaml:"maxSize" comment:"A size beside those above. 0B: none."`
}

// SimulatedAges bound how old something gets; 0 does not.
type SimulatedAges struct {
	MaxAge    Duration `yaml:"maxAge" comment:"Since it was fetched. 0s: no limit."`
	MaxUnused Duration `yaml:"maxUnused" comment:"Since it was last served. 0s: no limit."`
}

// Curve is which miss-ratio curves are made.
type Curve struct {
	Exact  bool    `yaml:"exact" comment:"The miss-ratio curve of LRU, at all sizes, exactly."`
	Shards float64 `yaml:"shards" comment:"The same from a sample of so much of the objects, such as 0.01. 0: not."`
}

// Prefetch is how long what might be asked for is kept.
type Prefetch struct {
	Pushed   Duration `yaml:"pushed" comment:"How long a pushed layer is remembered."`
	Fetched  Duration `yaml:"fetched" comment:"How long a prefetched layer is kept."`
	Identity string   `yaml:"identity" comment:"What tells that a layer is the one that was pushed: \"layer\", its name, or \"size\": repository and size, as the traces leave no other way."`
}

// Generate is a synthetic trace. What is not told here is as it was measured of the
// recorded ones.
type Generate struct {
	Requests int64   `yaml:"requests"`
	Seed     uint64  `yaml:"seed"`
	Rate     float64 `yaml:"rate" comment:"Requests a second, on average."`
	Clients  int     `yaml:"clients"`
	ReadOnly bool    `yaml:"read_only" comment:"No pushes: GETs only."`
	Output   string  `yaml:"output" comment:"File, of JSON lines; .gz and .zst are compressed. \"-\" is standard output."`
}

// Files are where figures go, beside the summary on standard output.
type Files struct {
	HTML string `yaml:"html" comment:"A page with plots, in one file."`
	JSON string `yaml:"json" comment:"All figures; of runs with their histograms, which \"trace-replayer report\" merges."`
	CSV  string `yaml:"csv" comment:"The figures as a table."`
}

// Report is where the figures of a run go.
type Report struct {
	Files   `yaml:",inline"`
	Metrics string `yaml:"metrics" comment:"host:port of /metrics while a run lasts."`
}

// Default returns the configuration that an empty file gives.
func Default() Config {
	return Config{
		ClientInfo: ClientInfo{Port: 8080, Threads: 1, ClientList: []string{}},
		Trace:      Trace{Output: "output.json", Traces: []string{}},
		Registry:   []string{},
		Access:     []Access{},
		Warmup:     Warmup{Threads: 1, Manifests: "real", Verify: 0.01},
		Run: Run{
			Speed: 1, Loop: 1, MaxInFlight: 4096, Timeout: Duration(60e9), Uploads: "whole", Pick: "random", Check: true, OnTime: Duration(10e6),
		},
		Cluster: Cluster{Lost: "proceed", Heartbeat: Duration(2e9), StartIn: Duration(2e9)},
		Simulate: Simulate{
			Policies: []string{"lru", "fifo", "sieve", "s3fifo", "belady"}, Sizes: []string{"1%", "2%", "4%", "10%", "20%"},
			Key: "blob", Kinds: []string{"blob", "manifest"}, PerNode: []string{}, Levels: []Levels{}, Curve: Curve{Exact: true}, GC: SimulatedGC{Interval: Duration(1200e9)}, Cluster: defaultCluster(),
		},
		Generate: Generate{Requests: 100_000, Rate: 50, Clients: 1000, Output: "-"},
	}
}

// Closed reports whether requests are sent as fast as the registry answers.
func (c Config) Closed() bool { return c.ClientInfo.Wait != nil && !*c.ClientInfo.Wait }

// Paced reports whether the configuration asks for waits between requests.
func (c Config) Paced() bool { return c.ClientInfo.Wait != nil && *c.ClientInfo.Wait }

// Load reads the file at path over the defaults and validates the result.
func Load(path string) (Config, error) { return yamlfile.Load(path, Default()) }

// Parse reads text over the defaults. Errors name lines, and keys in full.
func Parse(text []byte) (Config, error) {
	c := Default()
	if err := yamlfile.Parse(text, &c); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Text returns the configuration as a commented YAML file.
func (c Config) Text() (string, error) { return yamlfile.Text(c) }
