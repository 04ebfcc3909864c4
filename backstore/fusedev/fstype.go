package fusedev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/reprise-containers/reprise/backstore/device"
)

// ErrUnknownFileSystem is wrapped by FSType's error for a device with none of
// the known superblocks.
var ErrUnknownFileSystem = errors.New("no ext4, xfs or erofs superblock")

// xfsInProgress is where in the superblock of xfs sb_inprogress is: see struct
// xfs_dsb in the kernel's xfs_format.h.
const xfsInProgress = 126

// FSType returns the type of the file system in d, "ext4", "xfs" or "erofs",
// by the magic number in its superblock. It reads the first 4 KiB. What a mkfs has
// not finished is no file system: mkfs.xfs writes the superblock first, with a mark
// in it (sb_inprogress) that goes with the last write; mkfs.ext4 writes it last.
func FSType(ctx context.Context, d device.Device) (string, error) {
	p := make([]byte, min(4096, d.Size()))
	if _, err := d.ReadAt(ctx, p, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the superblock: %w", err)
	}
	switch {
	case len(p) > xfsInProgress && string(p[:4]) == "XFSB" && p[xfsInProgress] == 0:
		return "xfs", nil
	case len(p) >= 1028 && binary.LittleEndian.Uint32(p[1024:]) == 0xE0F5E1E2:
		return "erofs", nil
	case len(p) >= 1082 && binary.LittleEndian.Uint16(p[1080:]) == 0xEF53:
		return "ext4", nil
	}
	return "", ErrUnknownFileSystem
}
