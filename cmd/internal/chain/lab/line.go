package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Line joins a network namespace to the machine, as a line to a registry.
type Line struct {
	// Netns is the name of the network namespace at the far end.
	Netns string
	// Near and Far are the addresses of its ends.
	Near, Far string

	near, far string // interfaces
	tun       *tun   // nil if the kernel shapes the line
}

// burstTime is for how long a line that was idle may be faster than it is.
const burstTime = 2 * time.Millisecond

// Up makes a line with a rate in bytes a second and a round trip. It must be
// taken down.
func Up(ctx context.Context, rate float64, roundTrip time.Duration) (*Line, error) {
	id := os.Getpid()
	net := fmt.Sprintf("198.19.%d.", id>>6&0xff) // reserved for benchmarks
	l := &Line{
		Netns: fmt.Sprintf("reprise-lab-%d", id),
		Near:  fmt.Sprintf("%s%d", net, id&0x3f<<2+1),
		Far:   fmt.Sprintf("%s%d", net, id&0x3f<<2+2),
		near:  fmt.Sprintf("rln%d", id), far: fmt.Sprintf("rlf%d", id),
	}
	err := run(ctx, "ip netns add "+l.Netns)
	if err == nil {
		err = l.join(ctx, roundTrip)
	}
	if err == nil {
		err = run(ctx,
			"ip addr add "+l.Near+"/30 dev "+l.near,
			"ip link set "+l.near+" up",
			"ip -n "+l.Netns+" addr add "+l.Far+"/30 dev "+l.far,
			"ip -n "+l.Netns+" link set "+l.far+" up",
			"ip -n "+l.Netns+" link set lo up")
	}
	if err == nil && l.tun != nil {
		l.tun.carryAll(rate, roundTrip)
	}
	if err == nil && roundTrip == 0 {
		// With a large burst, what comes after a pause would not be held to the
		// rate, and reads from an idle line would look faster than it is.
		burst := max(int64(rate*burstTime.Seconds()), 4<<10)
		shape := fmt.Sprintf(" root tbf rate %dbit burst %d latency %s", int64(8*rate), burst, backlog)
		err = run(ctx, "tc qdisc add dev "+l.near+shape, "tc -n "+l.Netns+" qdisc add dev "+l.far+shape)
	}
	if err != nil {
		l.Down(ctx) //nolint:errcheck // the first error tells more
		return nil, fmt.Errorf("making a line: %w", err)
	}
	return l, nil
}

// join makes the interfaces.
func (l *Line) join(ctx context.Context, roundTrip time.Duration) (err error) {
	if roundTrip == 0 {
		return run(ctx, "ip link add "+l.near+" type veth peer name "+l.far+" netns "+l.Netns)
	}
	l.tun, err = newTun(ctx, l)
	return err
}

// Down removes the line and the namespace.
func (l *Line) Down(ctx context.Context) error {
	var err error
	if l.tun != nil {
		l.tun.down()
	} else {
		err = run(ctx, "ip link del "+l.near)
	}
	return errors.Join(err, run(ctx, "ip netns del "+l.Netns))
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
