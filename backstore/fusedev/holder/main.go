package holder

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/backstore/fusedev/channel"
)

// checkInterval is how often a holder without a daemon looks whether the
// kernel side of its descriptor still exists. While a daemon is connected it
// does not look at all: a process that polls the descriptor is woken up for
// every request.
const checkInterval = 2 * time.Second

// Main is the holder process. It returns when it was told to stop, or when
// the file system is gone and no daemon is connected.
func Main() error {
	// A terminal's hang-up and Ctrl-C are meant for the daemon.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE)
	if _, err := unix.FcntlInt(fuseFD, unix.F_GETFD, 0); err != nil {
		return fmt.Errorf("holder started without its descriptors: %w", err)
	}
	f := os.NewFile(fuseFD, "/dev/fuse")
	message := os.NewFile(initFD, "init")
	initMessage, err := io.ReadAll(io.LimitReader(message, maxMessage))
	message.Close()
	if err != nil {
		return fmt.Errorf("reading the INIT message: %w", err)
	}
	file := os.NewFile(listenerFD, "socket")
	l, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return fmt.Errorf("using the listener: %w", err)
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		return fmt.Errorf("listener is a %T", l)
	}
	listener.SetUnlinkOnClose(false)
	h := &holder{file: f, init: initMessage, listener: listener, conns: make(map[net.Conn]bool)}
	return h.run()
}

// holder is the state of the process.
type holder struct {
	file     *os.File
	init     []byte
	listener *net.UnixListener

	mu    sync.Mutex // protects what follows
	conns map[net.Conn]bool
	ended bool
}

// run accepts connections until the holder is stopped or has no reason to
// live.
func (h *holder) run() error {
	var conns sync.WaitGroup
	defer conns.Wait()
	defer h.end()
	for {
		if err := h.listener.SetDeadline(time.Now().Add(checkInterval)); err != nil {
			return err
		}
		conn, err := h.listener.AcceptUnix()
		switch {
		case err == nil:
			conns.Go(func() { h.serve(conn) })
		case errors.Is(err, os.ErrDeadlineExceeded):
			if h.idle() && !channel.Alive(h.file) {
				return nil
			}
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ECONNABORTED):
			// Not a reason to let go of the descriptor.
		default:
			return err
		}
	}
}

// serve answers one client and keeps the connection until it ends.
func (h *holder) serve(conn *net.UnixConn) {
	if !h.add(conn) {
		return
	}
	defer h.remove(conn)
	if !allowed(conn) {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(answerTimeout))
	p := make([]byte, maxMessage)
	n, err := conn.Read(p)
	if err != nil {
		return
	}
	switch string(p[:n]) {
	case requestTake:
		w := welcome{Version: protocolVersion, PID: os.Getpid(), Init: h.init}
		if sendWelcome(conn, w, h.file) != nil {
			return
		}
		_ = conn.SetReadDeadline(time.Time{})
		_, _ = conn.Read(p) // until the daemon ends
	case requestStop:
		h.end()
	}
}

// allowed reports whether the client is root or the user the holder runs as.
func allowed(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if cerr != nil || err != nil {
		return false
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Getuid()
}

// add registers conn; it reports false, and closes conn, if the holder ends.
func (h *holder) add(conn net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		conn.Close()
		return false
	}
	h.conns[conn] = true
	return true
}

func (h *holder) remove(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, conn)
	conn.Close()
}

func (h *holder) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns) == 0
}

// end closes the descriptor first and the connections after it: a client of
// stop sees the end of its connection when the descriptor is closed.
func (h *holder) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return
	}
	h.ended = true
	h.file.Close()
	h.listener.Close()
	for conn := range h.conns {
		conn.Close()
	}
}
