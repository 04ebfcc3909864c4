package holder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// ErrNone is returned by Connect if no holder listens on the socket.
var ErrNone = errors.New("no holder process")

// answerTimeout bounds the wait for a holder that listens but does not answer.
const answerTimeout = 10 * time.Second

// Client is a daemon's connection to a holder. The holder lives on, whatever
// happens to it.
type Client struct {
	conn *net.UnixConn
	pid  int
}

// Connect connects to the holder on socket and returns, besides the client,
// a copy of the descriptor it holds and the INIT message that belongs to it.
func Connect(ctx context.Context, socket string) (c *Client, f *os.File, initMessage []byte, err error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return nil, nil, nil, err
	}
	if _, err = conn.Write([]byte(requestTake)); err == nil {
		var w welcome
		if w, f, err = receiveWelcome(conn); err == nil {
			_ = conn.SetDeadline(time.Time{})
			return &Client{conn: conn, pid: w.PID}, f, w.Init, nil
		}
	}
	conn.Close()
	return nil, nil, nil, fmt.Errorf("taking the FUSE descriptor from the holder on %s: %w", socket, err)
}

// dial connects to socket, with answerTimeout as the connection's deadline.
func dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", socket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to the holder: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// PID returns the process ID of the holder.
func (c *Client) PID() int { return c.pid }

// Wait returns nil when the holder has ended, or ctx's error.
func (c *Client) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// The holder sends nothing after the welcome, so this ends with it.
	_, err := c.conn.Read(make([]byte, 1))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return fmt.Errorf("watching the holder: %w", err)
}

// Close ends the connection, not the holder.
func (c *Client) Close() error { return c.conn.Close() }

// Stop ends the holder on socket and waits until it has closed its
// descriptor. It returns ErrNone if there is none.
func Stop(ctx context.Context, socket string) error {
	conn, err := dial(ctx, socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(requestStop)); err != nil {
		return fmt.Errorf("stopping the holder on %s: %w", socket, err)
	}
	// End of file: the holder's descriptors are closed.
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("stopping the holder on %s: %w", socket, err)
	}
	_ = os.Remove(socket)
	return nil
}
