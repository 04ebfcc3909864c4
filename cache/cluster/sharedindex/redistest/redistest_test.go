package redistest_test

import (
	"testing"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
)

// TestServer: a server keeps what it wrote over a stop if it is told to, and is the same
// one after its process stood still.
func TestServer(t *testing.T) {
	s := redistest.Start(t, "--appendonly", "yes")
	c := s.Client()
	defer c.Close()
	if err := c.Set(t.Context(), "a", "b", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if err := c.Get(t.Context(), "a").Err(); err == nil {
		t.Fatal("the server answers after Stop")
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, err := c.Get(t.Context(), "a").Result(); err != nil || v != "b" {
		t.Fatalf("after a restart the value is %q, %v", v, err)
	}
}

// TestCluster: the slots are spread over three nodes, and a node that was killed comes
// back as a part of the cluster.
func TestCluster(t *testing.T) {
	c := redistest.StartCluster(t)
	if len(c.Addrs()) != 3 {
		t.Fatalf("nodes: %q", c.Addrs())
	}
	c.Nodes[1].Kill()
	if err := c.Nodes[1].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}
