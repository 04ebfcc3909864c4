package holder

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"syscall"
)

// Descriptors of the new process, after stdin, stdout and stderr.
const (
	fuseFD     = 3
	listenerFD = 4
	initFD     = 5
)

// Start starts a holder for f and its INIT message, listening on socket.
// command is what to execute, with arguments, so that Main is called. The
// socket accepts connections when Start returns; one left by an earlier holder
// is replaced, so the caller makes sure (with Connect) that there is none.
//
// The caller gets the process to wait for, or to forget: it is in a session of
// its own and outlives the caller.
func Start(command []string, socket string, f *os.File, initMessage []byte) (*exec.Cmd, error) {
	// The listener is made here, so that there is no time at which the
	// holder runs and cannot be found.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the old socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("creating the holder's socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	listener, err := l.File()
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	message, err := filledPipe(initMessage)
	if err != nil {
		return nil, err
	}
	defer message.Close()

	cmd := exec.Command(command[0], command[1:]...)
	cmd.ExtraFiles = []*os.File{f, listener, message}
	cmd.Dir = "/"
	// Nothing of the daemon's environment, which may hold secrets.
	cmd.Env = []string{"GOGC=10", "GOMAXPROCS=1", "GOMEMLIMIT=4MiB"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the holder process: %w", err)
	}
	return cmd, nil
}

// filledPipe returns the reading end of a pipe that contains p and then ends.
func filledPipe(p []byte) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if len(p) > maxMessage/2 {
		r.Close()
		return nil, fmt.Errorf("INIT message of %d bytes is too long", len(p))
	}
	if _, err := w.Write(p); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}
