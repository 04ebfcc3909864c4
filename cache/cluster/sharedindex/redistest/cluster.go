package redistest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	nodes = 3
	slots = 16384
)

// Cluster is a Redis Cluster of three masters.
type Cluster struct{ Nodes []*Server }

// NewCluster returns a cluster that is not started; each node has a folder in cfg.Dir.
func NewCluster(p Program, cfg Config) (*Cluster, error) {
	c := &Cluster{}
	for i := range nodes {
		n := cfg
		n.Cluster, n.Dir = true, filepath.Join(cfg.Dir, "node"+strconv.Itoa(i))
		if err := os.MkdirAll(n.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("making a folder for a node: %w", err)
		}
		s, err := New(p, n)
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, s)
	}
	return c, nil
}

// Addrs are where the nodes listen.
func (c *Cluster) Addrs() []string {
	var out []string
	for _, n := range c.Nodes {
		out = append(out, n.Addr())
	}
	return out
}

// Start starts the nodes, makes a cluster of them and waits until each knows all.
func (c *Cluster) Start(ctx context.Context) error {
	for i, n := range c.Nodes {
		if err := n.Start(ctx); err != nil {
			return err
		}
		client := n.Client()
		defer client.Close()
		if err := client.ClusterAddSlotsRange(ctx, i*slots/nodes, (i+1)*slots/nodes-1).Err(); err != nil {
			return fmt.Errorf("giving a node its slots: %w", err)
		}
		if err := client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			return fmt.Errorf("giving a node its epoch: %w", err)
		}
	}
	first := c.Nodes[0].Client()
	defer first.Close()
	for _, n := range c.Nodes[1:] {
		if err := first.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", n.port, n.bus).Err(); err != nil {
			return fmt.Errorf("introducing a node: %w", err)
		}
	}
	return c.Wait(ctx)
}

// Wait returns when each node says that the cluster is whole.
func (c *Cluster) Wait(ctx context.Context) error {
	for _, n := range c.Nodes {
		client := n.Client()
		defer client.Close()
		for {
			info, err := client.ClusterInfo(ctx).Result()
			if err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", nodes)) &&
				strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", slots)) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("waiting for the cluster: %w (%v):\n%s", ctx.Err(), err, info)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

// Kill ends all nodes at once.
func (c *Cluster) Kill() {
	for _, n := range c.Nodes {
		n.Kill()
	}
}
