package cacheconfig_test

import (
	"strings"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
)

// sharing is a configuration that shares.
const sharing = `
cluster:
  secretPath: /secret
  advertise: a.example:7001
  redis: {addresses: [redis.example:6379]}
  tier: {directory: /mnt/shared}
`

func TestClusterErrors(t *testing.T) {
	if _, err := parse(t, sharing); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, now, want string }{
		{"secretPath: /secret", "secretPath: \"\"", "cluster.secretPath"},
		{"advertise: a.example:7001", "advertise: $NOBODY.example:7001", "$NOBODY"},
		{"advertise: a.example:7001", "address: 0.0.0.0:7001", "cluster.advertise"},
		{"advertise: a.example:7001", "address: 127.0.0.1", "cluster.address"},
		{"advertise: a.example:7001", "leaseTTL: 999ms", "cluster.leaseTTL"},
		{"advertise: a.example:7001", "leaseTTL: 25h", "cluster.leaseTTL"},
		{"6379]", "6379], remember: 59m", "cluster.redis.remember"},
		{"redis.example:6379", "redis.example", "cluster.redis.addresses"},
		{"6379]", "6379], cluster: true, database: 1", "cluster.redis.database"},
		{"directory: /mnt/shared", "directory: shared", "cluster.tier.directory"},
		{"directory: /mnt/shared", "directory: /mnt/shared, s3: {endpoint: e, bucket: b}", "there is one tier"},
		{"directory: /mnt/shared", "s3: {endpoint: e}", "cluster.tier.s3.bucket"},
		{"directory: /mnt/shared", "s3: {endpoint: e, bucket: b, accessKeyPath: /k}", "cluster.tier.s3"},
		{"directory: /mnt/shared", "writers: 0", "cluster.tier.writers"},
	} {
		if !strings.Contains(sharing, c.old) {
			t.Fatalf("there is no %q", c.old)
		}
		if _, err := parse(t, strings.Replace(sharing, c.old, c.now, 1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.now, err, c.want)
		}
	}
}

func TestRemember(t *testing.T) {
	for text, want := range map[string]time.Duration{
		sharing: 168 * time.Hour, strings.Replace(sharing, "6379]", "6379], remember: 1h", 1): time.Hour,
	} {
		c, err := parse(t, text)
		if err != nil || time.Duration(c.Cluster.Redis.Remember) != want {
			t.Errorf("%s remembers for %v, %v, want %s", text, c.Cluster.Redis.Remember, err, want)
		}
	}
}

// Where others reach a replica is known before it starts, or it does not.
func TestAdvertiseAddress(t *testing.T) {
	t.Setenv("POD_NAME", "cache-0")
	t.Setenv("SPACE", "a b")
	t.Setenv("DOLLAR", "$POD_NAME")
	t.Setenv("EMPTY", "")
	for _, c := range []struct{ advertise, address, want, wrong string }{
		{"$POD_NAME.peers.ns.svc:7001", "", "cache-0.peers.ns.svc:7001", ""},
		{"${POD_NAME}.peers:7001", "", "cache-0.peers:7001", ""},
		{"10.0.0.1:7001", "", "10.0.0.1:7001", ""},
		{"[2001:db8::1]:7001", "", "[2001:db8::1]:7001", ""},
		{"", "10.0.0.1:7001", "10.0.0.1:7001", ""},
		{"", "0.0.0.0:7001", "", "all addresses"},
		{"", ":7001", "", "all addresses"},
		{"", "[::]:7001", "", "must be set"},
		{"", "$POD_NAME:7001", "", "not the name of a host"},
		{"$NOT_SET.peers:7001", "", "", "no $NOT_SET"},
		{"$EMPTY.peers:$NOT_SET", "", "", "no $EMPTY, $NOT_SET"},
		{"$EMPTY:7001", "", "", "no $EMPTY"},
		{"${POD_NAME.peers:7001", "", "", "a $ begins no name"},
		{"a${}.peers:7001", "", "", "a $ begins no name"},
		{"$.peers:7001", "", "", "a $ begins no name"},
		{"$$:7001", "", "", "a $ begins no name"},
		{"$DOLLAR.peers:7001", "", "", "not the name of a host"},
		{"$SPACE:7001", "", "", `here "a b:7001"`},
		{".peers:7001", "", "", "not the name of a host"},
		{"[::ffff:0.0.0.0]:7001", "", "", "all addresses"},
		{"0.0.0.0:7001", "", "", "all addresses"},
		{"peers", "", "", "host:port"},
		{"peers:0", "", "", "port"},
		{"peers:http", "", "", "port"},
		{"peers:65536", "", "", "port"},
	} {
		got, err := cacheconfig.Cluster{Advertise: c.advertise, Address: c.address}.AdvertiseAddress()
		said := ""
		if err != nil {
			said = err.Error()
		}
		if got != c.want || (err != nil) != (c.wrong != "") || !strings.Contains(said, c.wrong) {
			t.Errorf("%q, %q: %q, %v, want %q, %q", c.advertise, c.address, got, err, c.want, c.wrong)
		}
	}
}
