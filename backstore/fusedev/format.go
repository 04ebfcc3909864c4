package fusedev

import (
	"context"
	"fmt"
)

// Format makes a file system on device id, which must be a device.Writable and
// not be in use. options are those of mkfs, separated by blanks; "" stands for
// the defaults of the type and NoOptions for none. When ctx ends, or the daemon
// dies, in the middle, what is on the device is undefined, and Format can be
// called again.
func (s *Server) Format(ctx context.Context, id, fsType, options string) error {
	e, writable, err := s.lookUp(ctx, id)
	if err == nil {
		err = checkWritable(fsType, writable)
	}
	if err == nil {
		err = s.mounter.Format(ctx, s.file(e), fsType, options)
	}
	if err != nil {
		return fmt.Errorf("formatting device %s: %w", id, err)
	}
	return nil
}

// GrowFS tells the kernel that device id has grown (after Resized), and makes
// the file system that is mounted on target as large as the device. With an
// empty target there is none, and only the loop device grows.
func (s *Server) GrowFS(ctx context.Context, id, target string) error {
	e, writable, err := s.lookUp(ctx, id)
	if err == nil && !writable {
		err = ErrReadOnly
	}
	if err == nil {
		err = s.mounter.Grow(ctx, s.file(e), target)
	}
	if err != nil {
		return fmt.Errorf("growing the file system of device %s: %w", id, err)
	}
	return nil
}
