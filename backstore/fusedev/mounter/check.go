package mounter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Offsets in the ext4 superblock, and values, from the kernel's ext4.h.
const (
	superblockOff  = 1024
	superblockSize = 1024

	stateOff  = 0x3A // u16
	stateOK   = 1
	stateBad  = 2
	compatOff = 0x5C // u32
	journal   = 4
)

// repair checks, and repairs, an ext4 without a journal on loop that was not
// unmounted, as after the end of the machine. It says what the check said, or ""
// if there was nothing to do. A journal is the kernel's business, as xfs is.
func (j Job) repair(ctx context.Context, loop *os.File) (string, error) {
	if j.FSType != "ext4" {
		return "", nil
	}
	unclean, err := unclean(loop)
	if err != nil || !unclean || inUse(loop.Name()) {
		return "", err
	}
	output, code, err := program(ctx, []string{"fsck.ext4", "-p", loop.Name()})
	if errors.Is(err, exec.ErrNotFound) {
		return "it was not unmounted, and is not checked, since fsck.ext4 (package e2fsprogs) is not installed", nil
	}
	if err != nil {
		return "", err
	}
	// 1: errors were corrected, 2: and the system should be rebooted, which
	// is meant for a root file system.
	if code&^(1|2) != 0 {
		return "", fmt.Errorf("it was not unmounted, and fsck.ext4 -p cannot repair it (code %d): %s", code, output)
	}
	return "it was not unmounted; fsck.ext4 -p: " + strings.ReplaceAll(output, "\n", "; "), nil
}

// unclean reports whether the ext4 on loop needs a check that its journal cannot
// replace.
func unclean(loop *os.File) (bool, error) {
	p := make([]byte, superblockSize)
	if _, err := loop.ReadAt(p, superblockOff); err != nil {
		return false, fmt.Errorf("reading the superblock: %w", err)
	}
	state := binary.LittleEndian.Uint16(p[stateOff:])
	hasJournal := binary.LittleEndian.Uint32(p[compatOff:])&journal != 0
	return state&stateBad != 0 || state&stateOK == 0 && !hasJournal, nil
}

// inUse reports whether dev is mounted, in whatever mount namespace, or somebody
// has it for himself.
func inUse(dev string) bool {
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.EBUSY)
}
