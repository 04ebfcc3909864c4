package fusedev_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/reprise-containers/reprise/backstore/fusedev"
)

// cloneNamespace starts a process with a private copy of the mount namespace.
func cloneNamespace(t testing.TB) (end func()) {
	t.Helper()
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("needs unshare (package util-linux)")
	}
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the namespace", func() bool {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid))
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		return err == nil && ns != own && bytes.HasPrefix(args, []byte("sleep"))
	})
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// TestPinnedMount detaches devices while another mount namespace has a copy
// of their mounts.
func TestPinnedMount(t *testing.T) {
	for _, fsType := range fsTypes {
		t.Run(fsType, func(t *testing.T) {
			site := newSite(t)
			site.cfg.Patience = 300e6
			s := site.open(t)
			_, target := mountHanging(t, site, s, fsType)
			end := cloneNamespace(t)
			if err := s.Unmount(t.Context(), target); !errors.Is(err, fusedev.ErrPinned) {
				t.Errorf("Unmount = %v, want ErrPinned", err)
			}
			mounts, err := s.Mounts()
			if err != nil || len(mounts) != 0 {
				t.Errorf("Mounts() = %v, %v", mounts, err)
			}
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Errorf("second Unmount = %v", err)
			}
			if err := s.Remove(t.Context(), "d"); err != nil {
				t.Error(err)
			}
			// The place is free for the next.
			dev := daemonDevice{Image: makeImage(t, fsType, t.TempDir())}
			d, err := dev.open()
			if err != nil {
				t.Fatal(err)
			}
			mustAdd(t, s, "d", d)
			if err := s.Mount(t.Context(), "d", fusedev.Mount{Target: target}); err != nil {
				t.Error(err)
			}
			end()
			if err := s.Unmount(t.Context(), target); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSharedRootIsNotPinned clones the namespace as container runtimes do, as
// a slave: unmounting then happens there too.
func TestSharedRootIsNotPinned(t *testing.T) {
	site := newSite(t)
	root := site.target(t, ".")
	for range 2 {
		if err := fusedev.EnsureShared(root); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", root).Run(); err != nil {
			t.Errorf("unmounting the root: %v", err)
		}
	})
	s := site.open(t)
	_, target := mountHanging(t, site, s, "ext4")
	cmd := exec.Command("unshare", "-m", "--propagation", "slave", "sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Skipf("needs unshare: %v", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	waitFor(t, "the namespace", func() bool {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		return bytes.HasPrefix(args, []byte("sleep"))
	})
	if err := s.Unmount(t.Context(), target); err != nil {
		t.Errorf("Unmount = %v", err)
	}
}
