// Package link joins a network namespace to the machine by a line whose rate is
// limited in both directions and whose round trip can be made longer: a slow or
// a far registry.
package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Line says what a link is like. The zero Line is as fast as the machine.
type Line struct {
	// Rate is in tc's syntax, such as "25mbit"; "" is no limit.
	Rate string
	// RoundTrip is added to that of the machine.
	RoundTrip time.Duration
}

// ParseLine reads what String writes: "unshaped", "25mbit", "200mbit+40ms".
func ParseLine(s string) (Line, error) {
	rate, delay, found := strings.Cut(s, "+")
	l := Line{Rate: rate}
	if rate == unshaped {
		l.Rate = ""
	}
	var err error
	if found {
		l.RoundTrip, err = time.ParseDuration(delay)
	}
	if err == nil && (rate == "" || l.RoundTrip < 0) {
		err = errors.New("not of the form RATE[+ROUNDTRIP]")
	}
	if err != nil {
		return Line{}, fmt.Errorf("parsing line %q: %w", s, err)
	}
	return l, nil
}

const unshaped = "unshaped"

// String implements fmt.Stringer.
func (l Line) String() string {
	s := l.Rate
	if s == "" {
		s = unshaped
	}
	if l.RoundTrip > 0 {
		s += "+" + l.RoundTrip.String()
	}
	return s
}

// Link is a line that is up. It must be taken down.
type Link struct {
	// Netns is the name of the network namespace at the far end.
	Netns string
	// Near and Far are the addresses of its ends.
	Near, Far string

	near, far string // interface names
	delay     *delay // nil: the ends are joined by the kernel
}

// Up makes a namespace and the line to it.
func Up(ctx context.Context, line Line) (*Link, error) {
	// The process id keeps concurrent sandboxes apart; 198.18.0.0/15 is
	// reserved for benchmarks.
	id := os.Getpid()
	base := fmt.Sprintf("198.18.%d.", id>>6&0xff)
	l := &Link{
		Netns: fmt.Sprintf("reprise-%d", id),
		Near:  fmt.Sprintf("%s%d", base, id&0x3f<<2+1),
		Far:   fmt.Sprintf("%s%d", base, id&0x3f<<2+2),
		near:  fmt.Sprintf("rpn%d", id),
		far:   fmt.Sprintf("rpf%d", id),
	}
	err := l.join(ctx, line.RoundTrip)
	if err == nil {
		err = run(ctx,
			"ip addr add "+l.Near+"/30 dev "+l.near,
			"ip link set "+l.near+" up",
			"ip -n "+l.Netns+" addr add "+l.Far+"/30 dev "+l.far,
			"ip -n "+l.Netns+" link set "+l.far+" up",
			"ip -n "+l.Netns+" link set lo up")
	}
	if err == nil && line.Rate != "" {
		err = l.Shape(ctx, line.Rate)
	}
	if err != nil {
		l.Down(ctx) //nolint:errcheck // the first error tells more
		return nil, fmt.Errorf("making a network link: %w", err)
	}
	return l, nil
}

// join makes the namespace and the interfaces.
func (l *Link) join(ctx context.Context, roundTrip time.Duration) error {
	if err := run(ctx, "ip netns add "+l.Netns); err != nil {
		return err
	}
	if roundTrip == 0 {
		return run(ctx, "ip link add "+l.near+" type veth peer name "+l.far+" netns "+l.Netns)
	}
	var err error
	if l.delay, err = newDelay(l.near, l.far, roundTrip/2); err != nil {
		return err
	}
	// A burst of TCP's must fit into an interface's queue, as it does into that
	// of a real one; TUN's is short.
	return run(ctx, "ip link set "+l.far+" netns "+l.Netns,
		"ip link set "+l.near+" txqueuelen 10000",
		"ip -n "+l.Netns+" link set "+l.far+" txqueuelen 10000")
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

// Listen listens for TCP connections at the far end: whoever accepts them is
// behind the line, whatever namespace it is in itself.
func (l *Link) Listen() (net.Listener, error) {
	type result struct {
		net.Listener
		error
	}
	done := make(chan result)
	go func() {
		listener, err := l.listen()
		done <- result{listener, err}
	}()
	r := <-done
	if r.error != nil {
		return nil, fmt.Errorf("listening at the far end of a link: %w", r.error)
	}
	return r.Listener, nil
}

// listen may leave its thread in the wrong namespace; then it stays locked, and
// ends with the goroutine.
func (l *Link) listen() (net.Listener, error) {
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer here.Close()
	there, err := os.Open("/run/netns/" + l.Netns)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", l.Far+":0")
	if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back == nil {
		runtime.UnlockOSThread()
	}
	return listener, err
}

// Down removes the line and the namespace.
func (l *Link) Down(ctx context.Context) error {
	if l.delay != nil {
		l.delay.Close()
		return run(ctx, "ip netns del "+l.Netns)
	}
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
