package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/reprise-containers/reprise/integration/registrycache/instance"
	"github.com/reprise-containers/reprise/integration/registrycache/origin"
)

const (
	memoryBlobs       = 10_000
	memoryBlobSize    = 80 << 10 // above what is kept in memory
	memoryConnections = 1_000
)

// cacheMemory shows the resident memory of the registry cache as blobs and
// connections grow.
func (b bench) cacheMemory(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "reprise-memory-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := instance.Build(ctx, b.tools.Module, dir, "-trimpath", "-ldflags", "-s -w")
	if err != nil {
		return err
	}
	up, err := origin.Listen()
	if err != nil {
		return err
	}
	defer up.Close()
	p, i, err := b.cached(ctx, "registry-cache", program, filepath.Join(dir, "cache"), up.Address,
		instance.Values{"permission": instance.Values{"policy": "trusted"}})
	if err != nil {
		return err
	}
	defer p.stop()
	fmt.Printf("\nResident memory of the registry cache\n%-44s %12s %12s\n", "", "resident MB", "of it heap")
	show := func(what string) error {
		time.Sleep(time.Second)
		resident, err := i.Resident()
		if err != nil {
			return err
		}
		heap, err := i.Anonymous()
		fmt.Printf("%-44s %12.1f %12.1f\n", what, float64(resident)/1e6, float64(heap)/1e6)
		return err
	}
	if err := show("started"); err != nil {
		return err
	}
	for n := range memoryBlobs {
		c := origin.Random(uint64(n)+1, memoryBlobSize)
		up.AddBlob("bench/blobs", c)
		if err := readBlob(ctx, p.address, c, c.Digest); err != nil {
			return err
		}
		switch n + 1 {
		case memoryBlobs / 10, memoryBlobs / 2, memoryBlobs:
			if err := show(fmt.Sprintf("%d blobs of %d KiB", n+1, memoryBlobSize>>10)); err != nil {
				return err
			}
		}
	}
	return b.connections(ctx, p, up, show)
}

// connections opens connections: first ones that do nothing, then ones with an
// answer that is not read.
func (b bench) connections(ctx context.Context, p peer, up *origin.Origin, show func(string) error) error {
	large := origin.Random(1<<40, 64<<20)
	up.AddBlob("bench/blobs", large)
	if err := readBlob(ctx, p.address, large, large.Digest); err != nil {
		return err
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range memoryConnections {
		c, err := net.Dial("tcp", p.address)
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	if err := show(fmt.Sprintf("%d connections without a request", memoryConnections)); err != nil {
		return err
	}
	for _, c := range conns {
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", blobPath(large)); err != nil {
			return err
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return err
		}
	}
	if err := show(fmt.Sprintf("%d connections in the middle of 64 MiB", memoryConnections)); err != nil {
		return err
	}
	for _, c := range conns {
		c.Close()
	}
	conns = nil
	return show("none any more")
}
