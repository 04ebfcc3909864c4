// Package link joins a network namespace to the machine by a pair of virtual
// interfaces whose rate is limited in both directions, as a slow line to a
// registry.
package link

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Link is a shaped line. It must be taken down.
type Link struct {
	// Netns is the name of the network namespace at the far end.
	Netns string
	// Near and Far are the addresses of its ends.
	Near, Far string

	near, far string // interface names
}

// Up makes a namespace and the line to it with the rate of tc's syntax, such
// as "25mbit"; "" does not limit it.
func Up(ctx context.Context, rate string) (*Link, error) {
	// The process id keeps concurrent sandboxes apart; 198.18.0.0/15 is
	// reserved for benchmarks.
	id := os.Getpid()
	net := fmt.Sprintf("198.18.%d.%d", id>>6&0xff, id&0x3f<<2)
	base := strings.TrimSuffix(net, fmt.Sprint(id&0x3f<<2))
	l := &Link{
		Netns: fmt.Sprintf("reprise-%d", id),
		Near:  fmt.Sprintf("%s%d", base, id&0x3f<<2+1),
		Far:   fmt.Sprintf("%s%d", base, id&0x3f<<2+2),
		near:  fmt.Sprintf("rpn%d", id),
		far:   fmt.Sprintf("rpf%d", id),
	}
	err := run(ctx,
		"ip netns add "+l.Netns,
		"ip link add "+l.near+" type veth peer name "+l.far+" netns "+l.Netns,
		"ip addr add "+l.Near+"/30 dev "+l.near,
		"ip link set "+l.near+" up",
		"ip -n "+l.Netns+" addr add "+l.Far+"/30 dev "+l.far,
		"ip -n "+l.Netns+" link set "+l.far+" up",
		"ip -n "+l.Netns+" link set lo up",
	)
	if err == nil && rate != "" {
		err = l.Shape(ctx, rate)
	}
	if err != nil {
		l.Down(ctx) //nolint:errcheck // the first error tells more
		return nil, fmt.Errorf("making a network link: %w", err)
	}
	return l, nil
}

// Shape changes the rate; "" removes the limit.
func (l *Link) Shape(ctx context.Context, rate string) error {
	if rate == "" {
		return run(ctx,
			"tc qdisc del dev "+l.near+" root",
			"tc -n "+l.Netns+" qdisc del dev "+l.far+" root")
	}
	limit := " root tbf rate " + rate + " burst 64kb latency 50ms"
	return run(ctx,
		"tc qdisc replace dev "+l.near+limit,
		"tc -n "+l.Netns+" qdisc replace dev "+l.far+limit)
}

// Down removes the line and the namespace.
func (l *Link) Down(ctx context.Context) error {
	return run(ctx, "ip link del "+l.near, "ip netns del "+l.Netns)
}

func run(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		f := strings.Fields(c)
		cmd := exec.CommandContext(ctx, f[0], f[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", c, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
