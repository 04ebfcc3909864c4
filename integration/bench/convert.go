package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/integration/image"
)

// conversionRounds is how often each converter runs, in turns.
const conversionRounds = 3

// conversion is what the benchmark of converters works with.
type conversion struct {
	dir     string // of everything
	reprise string // the program
	estargz string
	plain   image.Layout // the image with layers that are not compressed
	tars    []string     // its layers
	tree    string       // what tar unpacks them to
	bytes   int64        // of the layers
}

// conversions compares converting a real image of more than 1 GB with what
// others do with the same tar archives on the same cores.
func (b bench) conversions(ctx context.Context) error {
	c, err := b.prepareConversion(ctx)
	if c != nil {
		defer os.RemoveAll(c.dir)
	}
	if err != nil {
		return err
	}
	rivals := []struct {
		name   string
		rounds int
		run    func(context.Context, string) error
	}{
		{"reprise convert", conversionRounds, c.ours},
		{"mkfs.erofs of an unpacked tree, then the same compression", conversionRounds, c.mkfs},
		{"tar -x, mkfs.erofs, then the same compression", conversionRounds, c.unpackAndMkfs},
		{"estargz.Build of all layers at once", 1, c.stargz}, // minutes, far from the rest
	}
	seconds, cpu := make([][]float64, len(rivals)), make([][]float64, len(rivals))
	for n := range conversionRounds {
		for i, r := range rivals {
			if n >= r.rounds {
				continue
			}
			took, used, err := c.timed(ctx, r.run)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			say("round %d: %s: %.1f s, %.1f s of processors", n+1, r.name, took, used)
			seconds[i], cpu[i] = append(seconds[i], took), append(cpu[i], used)
		}
	}
	fmt.Printf("\nConverting %d layers, %.0f MB of tar archives, to zstd in blocks of 4 KiB\n"+
		"(median of %d, eStargz once; ratios are what it takes to what we take: more is better)\n", len(c.tars), float64(c.bytes)/1e6, conversionRounds)
	fmt.Printf("%-58s %8s %6s %6s %8s %6s\n", "", "seconds", "MB/s", "ratio", "CPU s", "ratio")
	ours, oursCPU := median(seconds[0]), median(cpu[0])
	for i, r := range rivals {
		s, u := median(seconds[i]), median(cpu[i])
		fmt.Printf("%-58s %8.1f %6.0f %6.2f %8.1f %6.2f\n", r.name, s, float64(c.bytes)/1e6/s, s/ours, u, u/oursCPU)
	}
	return nil
}

// timed runs a converter with an empty folder for its results and returns the
// seconds it took and those that processors worked for it.
func (c *conversion) timed(ctx context.Context, run func(context.Context, string) error) (took, used float64, err error) {
	out, err := os.MkdirTemp(c.dir, "out-")
	if err != nil {
		return 0, 0, err
	}
	begin, before := time.Now(), processorSeconds()
	err = run(ctx, out)
	took, used = time.Since(begin).Seconds(), processorSeconds()-before
	return took, used, errors.Join(err, os.RemoveAll(out))
}

// processorSeconds returns what this process and those it waited for have used.
func processorSeconds() float64 {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			continue
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum.Seconds()
}

// prepareConversion makes the image and programs; the caller removes the
// folder.
func (b bench) prepareConversion(ctx context.Context) (*conversion, error) {
	l, err := image.Large().Make(ctx, filepath.Join(b.tools.Cache, "images"), say)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "reprise-bench-")
	if err != nil {
		return nil, err
	}
	c := &conversion{dir: dir, reprise: filepath.Join(dir, "reprise"), estargz: filepath.Join(dir, "estargz"), tree: filepath.Join(dir, "tree")}
	if err := b.buildConverters(ctx, c); err != nil {
		return c, err
	}
	if c.plain, err = l.Uncompressed(filepath.Join(dir, "plain"), image.Large().Args); err != nil {
		return c, err
	}
	_, m, err := c.plain.Manifest()
	if err != nil {
		return c, err
	}
	for _, d := range m.Layers {
		c.tars = append(c.tars, c.plain.BlobPath(d))
		c.bytes += d.Size
	}
	return c, c.unpack(ctx, c.tree)
}

// buildConverters builds the programs that are compared.
func (b bench) buildConverters(ctx context.Context, c *conversion) error {
	if err := b.build(ctx, b.tools.Module, c.reprise, "./cmd/reprise"); err != nil {
		return err
	}
	return b.build(ctx, filepath.Join(b.tools.Module, "integration/bench/estargz"), c.estargz, ".")
}

func (b bench) build(ctx context.Context, dir, to, what string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, what)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", what, err, out)
	}
	return nil
}

func (c *conversion) ours(ctx context.Context, out string) error {
	_, err := convert(ctx, c.reprise, c.plain.Dir, out)
	return err
}

// convert runs `reprise convert` from one layout to another below dir and
// returns the most memory that it had resident, in bytes.
func convert(ctx context.Context, program, layout, dir string) (int64, error) {
	return runMeasured(ctx, program, "convert", "--json", "--cache-dir", "", "--temp-dir", dir,
		"--compression", "zstd", "--block-size", "4k", "oci:"+layout, "oci:"+filepath.Join(dir, "layout")+":converted")
}

// runMeasured runs a program to its end and returns the most memory that it had
// resident, in bytes.
func runMeasured(ctx context.Context, argv ...string) (int64, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("running %s: %w: %.1000s", argv[0], err, out)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, errors.New("this system tells nothing of a process's memory")
	}
	return usage.Maxrss << 10, nil
}

// conversionMemory prints how much memory converting images of different sizes
// takes.
func (b bench) conversionMemory(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "reprise-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "reprise")
	if err := b.build(ctx, b.tools.Module, program, "./cmd/reprise"); err != nil {
		return err
	}
	fmt.Printf("\nMost memory that a conversion has resident (gzip and zstd layers, from one OCI layout to another)\n%-24s %10s\n", "image", "MB")
	for _, i := range []image.Layered{image.Sized(250e6), image.Sized(1000e6), image.Sized(2000e6), image.Large()} {
		l, err := i.Make(ctx, filepath.Join(b.tools.Cache, "images"), say)
		if err != nil {
			return err
		}
		out, err := os.MkdirTemp(dir, "out-")
		if err != nil {
			return err
		}
		peak, err := convert(ctx, program, l.Dir, out)
		if err := errors.Join(err, os.RemoveAll(out)); err != nil {
			return err
		}
		fmt.Printf("%-24s %10.0f\n", i.Name, float64(peak)/1e6)
	}
	return nil
}
