package cacheconfig

import (
	"net"
	"path/filepath"

	"github.com/reprise-containers/reprise/cmd/internal/verdict"
)

// Cluster is what the replicas of a registry cache share.
type Cluster struct {
	SecretPath string     `yaml:"secretPath" comment:"File with the secret of the cluster, at least 32 bytes, the same for all replicas: peers prove that they know it, and what is shared is signed with it. Empty: this cache shares nothing."`
	Address    string     `yaml:"address" comment:"host:port to serve other replicas at, over TLS with keys made of the secret."`
	Advertise  string     `yaml:"advertise" comment:"host:port where other replicas reach this one; its name among them. Empty: address. $NAME is the environment's."`
	Redis      Redis      `yaml:"redis" comment:"Where the replicas keep track of what each has and fetches."`
	LeaseTTL   Duration   `yaml:"leaseTTL" comment:"How long others wait for a replica that fetches something and falls silent."`
	Tier       SharedTier `yaml:"tier" comment:"Where verified blobs are kept for all replicas: a directory or a bucket."`
}

// Redis is where the index of the cluster is.
type Redis struct {
	Addresses    []string `yaml:"addresses" comment:"host:port of a Redis server; several are nodes of one Redis Cluster. Empty: no index, and so no peers."`
	Cluster      bool     `yaml:"cluster" comment:"One address is that of a Redis Cluster, too."`
	Username     string   `yaml:"username" comment:"Of Redis' ACL; empty: the default user."`
	PasswordPath string   `yaml:"passwordPath" comment:"File with the password."`
	Database     int      `yaml:"database" comment:"0 with a Redis Cluster."`
	Prefix       string   `yaml:"prefix" comment:"Of all keys: clusters with different ones share a Redis."`
	TLS          bool     `yaml:"tls" comment:"Speak TLS to Redis."`
	CAPath       string   `yaml:"caPath" comment:"PEM file of authorities that Redis' certificates may be of, beside the system's."`
	Permissions  bool     `yaml:"permissions" comment:"Share permissions for as long as they count anyway (permission.*TTL), for the same credentials, repository and content."`
}

// SharedTier is where verified blobs are kept for all replicas.
type SharedTier struct {
	Directory string `yaml:"directory" comment:"A folder that all replicas have, by NFS for example. Empty: none."`
	S3        S3     `yaml:"s3" comment:"A bucket of S3, or of a server that speaks its protocol."`
	MaxSize   Size   `yaml:"maxSize" comment:"What is older than the newest so many bytes is removed, once an hour. 0B: never, as when the bucket has a rule of its own."`
	Writers   int    `yaml:"writers" comment:"Blobs written to it at a time."`
}

// S3 is a bucket.
type S3 struct {
	Endpoint      string `yaml:"endpoint" comment:"host or host:port. Empty: none."`
	Bucket        string `yaml:"bucket" comment:"It must exist."`
	Prefix        string `yaml:"prefix" comment:"Of the names of all objects."`
	Region        string `yaml:"region" comment:"Empty: it is asked for."`
	AccessKeyPath string `yaml:"accessKeyPath" comment:"File with the access key. Empty: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment, or the machine's role."`
	SecretKeyPath string `yaml:"secretKeyPath" comment:"File with the secret key."`
	Insecure      bool   `yaml:"insecure" comment:"Plain HTTP."`
	CAPath        string `yaml:"caPath" comment:"PEM file of authorities that its certificate may be of, beside the system's."`
}

// Enabled reports whether anything is shared.
func (c Cluster) Enabled() bool { return c.SecretPath != "" }

// HasPeers reports whether replicas speak to each other.
func (c Cluster) HasPeers() bool { return len(c.Redis.Addresses) > 0 }

func (c Cluster) validate(v *verdict.Verdict) {
	t := c.Tier
	shares := c.HasPeers() || t.Directory != "" || t.S3.Endpoint != ""
	v.Check(c.Enabled() || !shares, "cluster.secretPath: must be set where there is a cluster: a file of at least 32 bytes, the same for all replicas (head -c 32 /dev/urandom | base64)")
	if !c.Enabled() {
		return
	}
	v.Check(shares, "cluster: neither redis.addresses nor tier.directory nor tier.s3.endpoint is set, so nothing is shared")
	if c.HasPeers() {
		v.Address("cluster.address", c.Address)
		if c.Advertise != "" {
			v.Address("cluster.advertise", c.Advertise)
		} else {
			host, _, _ := net.SplitHostPort(c.Address)
			ip := net.ParseIP(host)
			v.Check(host != "" && (ip == nil || !ip.IsUnspecified()),
				"cluster.advertise: must be set where cluster.address = %q is of all addresses: nobody can be told to come there", c.Address)
		}
	}
	for _, a := range c.Redis.Addresses {
		v.Address("cluster.redis.addresses", a)
	}
	clustered := c.Redis.Cluster || len(c.Redis.Addresses) > 1
	v.Check(!clustered || c.Redis.Database == 0, "cluster.redis.database: a Redis Cluster has 0 only")
	v.Check(c.LeaseTTL > 0, "cluster.leaseTTL: must be positive")
	v.Check(t.Directory == "" || t.S3.Endpoint == "", "cluster.tier: directory and s3.endpoint are both set, there is one tier")
	v.Check(t.Directory == "" || filepath.IsAbs(t.Directory), "cluster.tier.directory = %q: must be an absolute path", t.Directory)
	v.Check(t.S3.Endpoint == "" || t.S3.Bucket != "", "cluster.tier.s3.bucket: must be set")
	v.Check((t.S3.AccessKeyPath == "") == (t.S3.SecretKeyPath == ""), "cluster.tier.s3: accessKeyPath and secretKeyPath must both be set, or neither")
	v.Check(t.Writers > 0, "cluster.tier.writers: must be positive")
}
