package fusedev

import (
	"context"
	"errors"
)

// LoopInfo is a loop device of a device.
type LoopInfo struct {
	ID  string
	Dev string // "/dev/loop3"
	Own bool   // made by Loop, not by Mount
}

// Loop returns a loop device of device id, which stays until Unloop, also when
// the daemon ends. It can be written if the device is a device.Writable. If
// there is one already, also of an earlier daemon, that is it.
func (s *Server) Loop(ctx context.Context, id string) (dev string, err error) {
	return "", errors.ErrUnsupported
}

// Unloop takes the loop device of device id away, or returns an error that wraps
// ErrBusy if somebody has it open, and then leaves it as it is. It does nothing
// if there is none. The device need not be known any more.
func (s *Server) Unloop(ctx context.Context, id string) error {
	return errors.ErrUnsupported
}

// Loops returns the loop devices of all devices, also those of earlier daemons
// and of devices that were removed, ordered by ID. It asks the kernel's tables
// only.
func (s *Server) Loops() ([]LoopInfo, error) {
	return nil, errors.ErrUnsupported
}

// ClearLoops takes away the loop devices made by Loop of devices that are not
// known, those that are open as soon as they are closed. It is for after Ready.
func (s *Server) ClearLoops(ctx context.Context) error {
	return errors.ErrUnsupported
}
