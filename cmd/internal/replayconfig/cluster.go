package replayconfig

import (
	"github.com/reprise-containers/reprise/cache/policy"
	"github.com/reprise-containers/reprise/cache/workload/simulate"
	"github.com/reprise-containers/reprise/cmd/internal/verdict"
)

// SimulatedCluster is replicas of the registry cache that share what they have.
type SimulatedCluster struct {
	Replicas    []int           `yaml:"replicas" comment:"Simulate a cluster of so many registry caches, with sharing and without: [1, 10, 100]. Empty: do not."`
	Spread      string          `yaml:"spread" comment:"Which replica gets a request: \"client\": each client of the trace has one; \"round-robin\"; \"hash-of-blob\": each object has one."`
	Policy      string          `yaml:"policy" comment:"Eviction policy of the replicas' disks."`
	L1          string          `yaml:"l1" comment:"Disk of each replica, as in sizes."`
	Divide      bool            `yaml:"divide" comment:"l1 is that of all replicas together, and each has its part."`
	Tier        string          `yaml:"tier" comment:"Size of the shared tier (L2), as in sizes. Empty: there is none."`
	Peers       bool            `yaml:"peers" comment:"Replicas fetch from each other."`
	Redis       bool            `yaml:"redis" comment:"Replicas have an index in Redis. Without it there are no leases and no peers, and the tier is found by listing it."`
	Rate        float64         `yaml:"rate" comment:"Requests a second in virtual time, evenly, instead of the recorded times. 0: those."`
	Upstream    SimulatedLine   `yaml:"upstream" comment:"What a fetch from the upstream takes: latency, and bytes a second (0B: no limit). Fetches do not slow each other down. With unit, only latency counts."`
	Peer        SimulatedLine   `yaml:"peer" comment:"One from another replica."`
	L2          SimulatedLine   `yaml:"l2" comment:"One from the tier, or a write to it."`
	DropEvicted bool            `yaml:"drop_evicted" comment:"Replicas tell the index what they evicted. Otherwise it hears of it when one is asked in vain."`
	Keep        Duration        `yaml:"keep" comment:"How long the index knows of what nobody told it or asked it. 0s: always."`
	LeaseTTL    Duration        `yaml:"lease_ttl" comment:"Of a fetch from the upstream. It is renewed each third of it."`
	Beat        Duration        `yaml:"beat" comment:"Each replica says so often that it is there."`
	Permissions Duration        `yaml:"permissions" comment:"Share clients' permissions for so long. 0s: do not, and count none."`
	Memory      SimulatedMemory `yaml:"memory" comment:"What Redis takes, for the estimate."`
	CSV         string          `yaml:"csv" comment:"File for the figures of the cluster, as a table; report has them in the other forms."`
}

// SimulatedLine is what fetches come over.
type SimulatedLine struct {
	Latency   Duration `yaml:"latency"`
	Bandwidth Size     `yaml:"bandwidth"`
}

// SimulatedMemory is what is in Redis.
type SimulatedMemory struct {
	Blob   Size `yaml:"blob" comment:"Of a blob with one holder."`
	Holder Size `yaml:"holder" comment:"Of each further holder."`
	Stored Size `yaml:"stored" comment:"More if it is in the tier."`
	Token  Size `yaml:"token" comment:"Of a lease or a claim: the last token of each is kept for an hour."`
	Permit Size `yaml:"permit" comment:"Of a permission."`
}

func defaultCluster() SimulatedCluster {
	m := simulate.MeasuredMemory
	return SimulatedCluster{
		Replicas: []int{}, Spread: string(simulate.ByClient), Policy: policy.NameLRU, L1: "10%", Peers: true, Redis: true,
		Upstream: SimulatedLine{Duration(100e6), 100e6}, Peer: SimulatedLine{Duration(5e6), 1e9}, L2: SimulatedLine{Duration(20e6), 500e6},
		LeaseTTL: Duration(10e9), Keep: Duration(7 * 24 * 3600e9), Beat: Duration(5e9), Memory: SimulatedMemory{Size(m.Blob), Size(m.Holder), Size(m.Stored), Size(m.Token), Size(m.Permit)},
	}
}

func (c SimulatedCluster) validate(v *verdict.Verdict) {
	for i, n := range c.Replicas {
		v.Check(n >= 1 && n <= simulate.MaxReplicas, "simulate.cluster.replicas[%d] = %d: must be from 1 to %d", i, n, simulate.MaxReplicas)
	}
	var spreads []string
	for _, s := range simulate.Spreads {
		spreads = append(spreads, string(s))
	}
	v.OneOf("simulate.cluster.spread", c.Spread, spreads...)
	v.OneOf("simulate.cluster.policy", c.Policy, policy.Names()...)
	v.Check(c.Rate >= 0, "simulate.cluster.rate: must not be negative")
	v.Check(c.LeaseTTL > 0, "simulate.cluster.lease_ttl: must be positive")
	v.Check(c.Beat > 0, "simulate.cluster.beat: must be positive")
	for _, x := range []struct {
		key string
		n   Duration
	}{
		{"keep", c.Keep}, {"permissions", c.Permissions}, {"upstream.latency", c.Upstream.Latency}, {"peer.latency", c.Peer.Latency}, {"l2.latency", c.L2.Latency},
	} {
		v.Check(x.n >= 0, "simulate.cluster.%s: must not be negative", x.key)
	}
}
