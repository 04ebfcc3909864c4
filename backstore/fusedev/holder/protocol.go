package holder

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The socket is of type SOCK_SEQPACKET: one packet is one message. A client
// sends one request packet per connection; after take it keeps the connection
// open as the sign that it lives.
const (
	requestTake = "take" // answered by a welcome with the descriptor attached
	requestStop = "stop" // answered by an empty packet, then the holder ends

	maxMessage = 16 << 10 // bytes
)

// welcome is the answer to take.
type welcome struct {
	Version int    `json:"version"`
	PID     int    `json:"pid"`
	Init    []byte `json:"init"` // the kernel's INIT message
}

// protocolVersion changes when a newer daemon could no longer use an older
// holder.
const protocolVersion = 1

// sendWelcome sends w with a copy of f.
func sendWelcome(conn *net.UnixConn, w welcome, f *os.File) error {
	p, err := json.Marshal(w)
	if err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		_, _, err = conn.WriteMsgUnix(p, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(cerr, err)
}

// receiveWelcome reads the answer to take.
func receiveWelcome(conn *net.UnixConn) (w welcome, f *os.File, err error) {
	p, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(p, oob)
	if err != nil {
		return w, nil, err
	}
	f, err = descriptor(oob[:oobn])
	if err != nil {
		return w, nil, err
	}
	err = json.Unmarshal(p[:n], &w)
	if err == nil && w.Version != protocolVersion {
		err = fmt.Errorf("it speaks version %d of the protocol, this program version %d", w.Version, protocolVersion)
	}
	if err != nil {
		f.Close()
		return w, nil, err
	}
	return w, f, nil
}

// descriptor returns the one descriptor in the control message oob.
func descriptor(oob []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil || len(fds) != 1 {
			continue
		}
		unix.CloseOnExec(fds[0])
		return os.NewFile(uintptr(fds[0]), "/dev/fuse"), nil
	}
	return nil, errors.New("the answer carries no descriptor")
}
