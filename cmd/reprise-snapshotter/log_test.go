package main

import (
	"bytes"
	"testing"

	"github.com/containerd/log"
)

// logged collects what is logged during the test.
func logged(t *testing.T) (text func() string) {
	t.Helper()
	logger := log.L.Logger
	before := logger.Out
	var b bytes.Buffer
	logger.SetOutput(&b)
	t.Cleanup(func() { logger.SetOutput(before) })
	return b.String
}
