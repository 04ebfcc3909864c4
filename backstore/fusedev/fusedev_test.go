package fusedev_test

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/reprise-containers/reprise/backstore/device/devicetest"
	"github.com/reprise-containers/reprise/backstore/fusedev"
)

func TestFSType(t *testing.T) {
	image := func(off int, magic []byte) []byte {
		p := make([]byte, 8192)
		copy(p[off:], magic)
		return p
	}
	tests := []struct {
		name     string
		contents []byte
		want     string
	}{
		{"ext4", image(1080, binary.LittleEndian.AppendUint16(nil, 0xEF53)), "ext4"},
		{"erofs", image(1024, binary.LittleEndian.AppendUint32(nil, 0xE0F5E1E2)), "erofs"},
		{"xfs", image(0, []byte("XFSB")), "xfs"},
		{"xfs that mkfs has not finished", image(0, slices.Concat([]byte("XFSB"), make([]byte, 122), []byte{1})), ""},
		{"zeros", make([]byte, 8192), ""},
		{"one sector", make([]byte, 512), ""},
		{"cut before the magic", image(1080, []byte{0x53, 0xEF})[:1024], ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := fusedev.FSType(t.Context(), devicetest.Bytes(tt.contents))
			if got != tt.want || errors.Is(err, fusedev.ErrUnknownFileSystem) != (tt.want == "") {
				t.Errorf("FSType = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	_, err := fusedev.FSType(t.Context(), devicetest.FailEvery(devicetest.Bytes(make([]byte, 8192)), 1))
	if !errors.Is(err, devicetest.ErrInjected) {
		t.Errorf("FSType of a failing device = %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	good := fusedev.Config{StateDir: "/var/lib/x", RuntimeDir: "/run/x"}
	if err := good.Validate(); err != nil {
		t.Errorf("good configuration: %v", err)
	}
	bad := map[string]func(*fusedev.Config){
		"no state directory": func(c *fusedev.Config) { c.StateDir = "" },
		"relative":           func(c *fusedev.Config) { c.RuntimeDir = "run" },
		"unclean":            func(c *fusedev.Config) { c.RuntimeDir = "/run/../x" },
		"too long":           func(c *fusedev.Config) { c.RuntimeDir = "/" + strings.Repeat("x", 100) },
		"negative limit":     func(c *fusedev.Config) { c.MaxInFlight = -1 },
	}
	for name, change := range bad {
		cfg := good
		change(&cfg)
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if s, err := fusedev.Open(context.Background(), cfg); err == nil {
			t.Errorf("%s: opened %v", name, s)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	site := newSite(t)
	s := site.open(t)
	sector := devicetest.Bytes(make([]byte, 512))
	for _, id := range []string{"", ".", "..", "a/b", "a b", "a\n", strings.Repeat("x", 129)} {
		if err := s.Add(t.Context(), id, sector); err == nil {
			t.Errorf("ID %q was accepted", id)
		}
	}
	for _, n := range []int{0, 511, 513} {
		if err := s.Add(t.Context(), "d", devicetest.Bytes(make([]byte, n))); err == nil {
			t.Errorf("size %d was accepted", n)
		}
	}
	mustAdd(t, s, "d", sector)
	if err := s.Add(t.Context(), "d", sector); !errors.Is(err, fusedev.ErrExists) {
		t.Errorf("second Add = %v", err)
	}
	if err := s.Mount(t.Context(), "e", fusedev.Mount{Target: "/mnt"}); !errors.Is(err, fusedev.ErrNotFound) {
		t.Errorf("Mount of an unknown device = %v", err)
	}
	if err := s.Mount(t.Context(), "d", fusedev.Mount{Target: site.target(t, "m")}); !errors.Is(err, fusedev.ErrUnknownFileSystem) {
		t.Errorf("Mount of zeros = %v", err)
	}
	if err := s.Mount(t.Context(), "d", fusedev.Mount{Target: site.target(t, "m"), FSType: "ext4"}); err == nil {
		t.Error("Mount of zeros as ext4 succeeded")
	}
}
