package terminal_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/cmd/internal/terminal"
)

func TestDuring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		want := errors.New("work")
		err := terminal.During(&out, func() string { return "half done" }, func() error {
			time.Sleep(time.Second)
			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("error of the work: %v", err)
		}
		if s := out.String(); !strings.Contains(s, "half done") || !strings.HasSuffix(s, "\r\x1b[K") {
			t.Errorf("drew %q; want the text, erased at the end", s)
		}
	})
}

func TestDuringSilent(t *testing.T) {
	ran := false
	if err := terminal.During(nil, nil, func() error { ran = true; return nil }); err != nil || !ran {
		t.Errorf("ran=%v, %v", ran, err)
	}
}

func TestIs(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if terminal.Is(w) || terminal.Is(&bytes.Buffer{}) {
		t.Error("a pipe or a buffer passes for a terminal")
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 2251264: "2.1 MiB", 1 << 62: "4.0 EiB",
	} {
		if got := terminal.Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
