package fusedev

import "context"

// Freeze writes the file system on target out, which must be one that Mount
// mounted for writing, stops all writing to it, calls during and lets writing go
// on, in any case: also when during panics, when ctx ends before during returns
// (which is an error then), and when the daemon dies.
func (s *Server) Freeze(ctx context.Context, target string, during func() error) error {
	return s.mounter.Freeze(ctx, target, during)
}
