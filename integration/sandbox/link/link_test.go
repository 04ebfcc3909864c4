package link_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/reprise-containers/reprise/integration/sandbox/link"
)

func TestParseLine(t *testing.T) {
	for text, want := range map[string]link.Line{
		"unshaped":      {},
		"25mbit":        {Rate: "25mbit"},
		"200mbit+40ms":  {Rate: "200mbit", RoundTrip: 40 * time.Millisecond},
		"unshaped+1s":   {RoundTrip: time.Second},
		"unshaped+2m1s": {RoundTrip: 121 * time.Second},
	} {
		got, err := link.ParseLine(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParseLine(%q) = %+v (%s), %v, want %+v", text, got, got, err, want)
		}
	}
	for _, text := range []string{"", "+40ms", "25mbit+", "25mbit+40", "25mbit+-1ms"} {
		if got, err := link.ParseLine(text); err == nil {
			t.Errorf("ParseLine(%q) = %+v, want an error", text, got)
		}
	}
}

// TestLink sends more than a line keeps to its far end and back.
func TestLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making network interfaces needs root")
	}
	for _, line := range []link.Line{{}, {Rate: "200mbit"}, {RoundTrip: 20 * time.Millisecond}, {Rate: "200mbit", RoundTrip: 4 * time.Millisecond}} {
		t.Run(line.String(), func(t *testing.T) {
			l, err := link.Up(t.Context(), line)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := l.Down(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			}()
			far, err := l.Listen()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			sent := make([]byte, 2<<20)
			rand.NewChaCha8([32]byte{1}).Read(sent)
			go echo(far)
			if got := ask(t, far.Addr().String(), sent); !bytes.Equal(got, sent) {
				t.Errorf("%d other bytes came back of %d", len(got), len(sent))
			}
		})
	}
}

func echo(l net.Listener) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	io.Copy(c, c)
}

func ask(t *testing.T, address string, p []byte) []byte {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		c.Write(p)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
