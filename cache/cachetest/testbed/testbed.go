// Package testbed is what tests need that start servers: ports, and where the programs
// are that `make tools` fetches.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// firstPort and ports are where FreePort looks: below what Linux gives to outgoing
// connections, one of which would have the port when a server that was stopped is
// started at it again.
const firstPort, ports = 10000, 22000

// FreePort returns a loopback port that was free a moment ago.
func FreePort() (port string, err error) {
	for range 100 {
		var l net.Listener
		port = strconv.Itoa(firstPort + rand.IntN(ports))
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			return port, l.Close()
		}
	}
	return "", fmt.Errorf("finding a free port: %w", err)
}

// FreeAddress is FreePort as host:port.
func FreeAddress() (string, error) {
	port, err := FreePort()
	return net.JoinHostPort("127.0.0.1", port), err
}

// Module returns the root of the source tree that the working directory is in.
func Module() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	if err == nil {
		err = errors.New("no go.mod above the working directory")
	}
	return "", fmt.Errorf("finding the source tree: %w", err)
}

// Tools returns the folder that integration/tools/install.sh puts programs into. It
// installs nothing.
func Tools(ctx context.Context) (string, error) {
	module, err := Module()
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(module, "integration/tools/install.sh"), "--dir").Output()
	if err != nil {
		return "", fmt.Errorf("asking where the tools are: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Missing ends a test that needs a program which is not there. Root can have it, by make
// tools, so for root that is a failure; others skip the test.
func Missing(t testing.TB, program string, err error) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Fatalf("%s is not there, make tools brings it: %v", program, err)
	}
	t.Skipf("%s is not there, make tools brings it: %v", program, err)
}
