package devicetest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reprise-containers/reprise/backstore/device"
	"github.com/reprise-containers/reprise/backstore/device/devicetest"
)

func TestBytesConforms(t *testing.T) {
	devicetest.Run(t, func(_ *testing.T, contents []byte) device.Device {
		return devicetest.Bytes(contents)
	})
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := devicetest.Delay(devicetest.Bytes(make([]byte, 512)), time.Second)
		start := time.Now()
		if _, err := d.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("read took %v, want 1s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := d.ReadAt(ctx, make([]byte, 512), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read with a deadline = %v", err)
		}
	})
}

func TestFailEvery(t *testing.T) {
	d := devicetest.FailEvery(devicetest.Bytes(make([]byte, 512)), 3)
	for i := 1; i <= 9; i++ {
		_, err := d.ReadAt(t.Context(), make([]byte, 512), 0)
		if failed := errors.Is(err, devicetest.ErrInjected); failed != (i%3 == 0) {
			t.Errorf("read %d: %v", i, err)
		}
	}
}

func TestHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := devicetest.NewHanging(devicetest.Bytes(make([]byte, 512)))
		d.Hang()
		done := make(chan error, 2)
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { _, err := d.ReadAt(ctx, make([]byte, 512), 0); done <- err }()
		synctest.Wait()
		if d.Stuck() != 1 {
			t.Errorf("Stuck() = %d, want 1", d.Stuck())
		}
		cause := errors.New("enough")
		cancel(cause)
		if err := <-done; !errors.Is(err, cause) {
			t.Errorf("cancelled read = %v", err)
		}
		go func() { _, err := d.ReadAt(t.Context(), make([]byte, 512), 0); done <- err }()
		synctest.Wait()
		d.Resume()
		if err := <-done; err != nil {
			t.Errorf("resumed read = %v", err)
		}
	})
}

func TestFileConforms(t *testing.T) {
	devicetest.RunWritable(t, func(t *testing.T, contents []byte) device.Writable {
		name := filepath.Join(t.TempDir(), "device")
		if err := os.WriteFile(name, contents, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := devicetest.OpenFile(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	})
}
