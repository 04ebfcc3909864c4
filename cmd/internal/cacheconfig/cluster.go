package cacheconfig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/verdict"
)

// Cluster is what the replicas of a registry cache share.
type Cluster struct {
	SecretPath string     `yaml:"secretPath" comment:"File with the secret of the cluster, at least 32 bytes, the same for all replicas: peers prove that they know it, and what is shared is signed with it. Empty: this cache shares nothing."`
	Address    string     `yaml:"address" comment:"host:port to serve other replicas at, over TLS with keys made of the secret."`
	Advertise  string     `yaml:"advertise" comment:"host:port where other replicas reach this one; its name among them. Empty: address. $NAME is the environment's, where it must be set."`
	Redis      Redis      `yaml:"redis" comment:"Where the replicas keep track of what each has and fetches."`
	LeaseTTL   Duration   `yaml:"leaseTTL" comment:"How long others wait for a replica that fetches something and falls silent: 1s or more."`
	Tier       SharedTier `yaml:"tier" comment:"Where verified blobs are kept for all replicas: a directory or a bucket."`
}

// Redis is where the index of the cluster is.
type Redis struct {
	Addresses    []string `yaml:"addresses" comment:"host:port of a Redis server; several are nodes of one Redis Cluster. Empty: no index, and so no peers."`
	Cluster      bool     `yaml:"cluster" comment:"One address is that of a Redis Cluster, too."`
	Username     string   `yaml:"username" comment:"Of Redis' ACL; empty: the default user."`
	PasswordPath string   `yaml:"passwordPath" comment:"File with the password."`
	Database     int      `yaml:"database" comment:"0 with a Redis Cluster."`
	Prefix       string   `yaml:"prefix" comment:"Of all keys, before 8 digits that are made of the secret: clusters may share a Redis."`
	TLS          bool     `yaml:"tls" comment:"Speak TLS to Redis."`
	CAPath       string   `yaml:"caPath" comment:"PEM file of authorities that Redis' certificates may be of, beside the system's."`
	Remember     Duration `yaml:"remember" comment:"How long Redis knows who has a blob that nobody tells or asks of, at least 1h. Less takes less of its memory, and more is fetched again."`
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

const (
	// A lease is renewed each third of its life, by calls that may take half a second.
	// maxLeaseTTL is the index's.
	minLeaseTTL = Duration(time.Second)
	maxLeaseTTL = Duration(24 * time.Hour)
	// minRemember is longer than a fetch takes.
	minRemember = Duration(time.Hour)
)

// AdvertiseAddress returns host:port where other replicas reach this one, which is its
// name among them: Advertise with variables of the environment put in, else Address. A
// variable that is not set or empty is an error: what is left would be the name of other
// replicas too, or of none.
func (c Cluster) AdvertiseAddress() (string, error) {
	if c.Advertise == "" {
		if err := reachable(c.Address); err != nil {
			return "", fmt.Errorf("cluster.advertise: must be set where cluster.address = %q: %w", c.Address, err)
		}
		return c.Address, nil
	}
	var missing []string
	names := 0
	address := os.Expand(c.Advertise, func(name string) string {
		names++
		value := os.Getenv(name)
		if value == "" && !slices.Contains(missing, "$"+name) {
			missing = append(missing, "$"+name)
		}
		return value
	})
	var err error
	switch {
	case names != strings.Count(c.Advertise, "$"): // os.Expand takes some of them away
		err = errors.New("a $ begins no name of a variable")
	case len(missing) > 0:
		err = fmt.Errorf("the environment has no %s, or it is empty", strings.Join(missing, ", "))
	default:
		err = reachable(address)
	}
	switch {
	case err != nil && address != c.Advertise:
		return "", fmt.Errorf("cluster.advertise = %q, here %q: %w", c.Advertise, address, err)
	case err != nil:
		return "", fmt.Errorf("cluster.advertise = %q: %w", c.Advertise, err)
	}
	return address, nil
}

// reachable says why others can not be told to come to an address.
func reachable(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("must be host:port")
	}
	ip, notIP := netip.ParseAddr(host)
	n, notPort := strconv.ParseUint(port, 10, 16)
	switch {
	case host == "", notIP == nil && ip.Unmap().IsUnspecified():
		return errors.New("it is of all addresses: nobody can be told to come there")
	case notIP != nil && (host[0] == '.' || strings.ContainsFunc(host, notOfHost)):
		return fmt.Errorf("%q is not the name of a host", host)
	case notPort != nil || n == 0:
		return fmt.Errorf("%q is not the number of a port", port)
	}
	return nil
}

// notOfHost reports whether r can not be in the name of a host.
func notOfHost(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	return !letter && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

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
		_, err := c.AdvertiseAddress()
		v.Check(err == nil, "%w", err)
		v.Check(c.Redis.Remember >= minRemember, "cluster.redis.remember: must be at least %s", time.Duration(minRemember))
	}
	for _, a := range c.Redis.Addresses {
		v.Address("cluster.redis.addresses", a)
	}
	clustered := c.Redis.Cluster || len(c.Redis.Addresses) > 1
	v.Check(!clustered || c.Redis.Database == 0, "cluster.redis.database: a Redis Cluster has 0 only")
	v.Check(c.LeaseTTL >= minLeaseTTL && c.LeaseTTL <= maxLeaseTTL, "cluster.leaseTTL: must be from %s to %s",
		time.Duration(minLeaseTTL), time.Duration(maxLeaseTTL))
	v.Check(t.Directory == "" || t.S3.Endpoint == "", "cluster.tier: directory and s3.endpoint are both set, there is one tier")
	v.Check(t.Directory == "" || filepath.IsAbs(t.Directory), "cluster.tier.directory = %q: must be an absolute path", t.Directory)
	v.Check(t.S3.Endpoint == "" || t.S3.Bucket != "", "cluster.tier.s3.bucket: must be set")
	v.Check((t.S3.AccessKeyPath == "") == (t.S3.SecretKeyPath == ""), "cluster.tier.s3: accessKeyPath and secretKeyPath must both be set, or neither")
	v.Check(t.Writers > 0, "cluster.tier.writers: must be positive")
}
