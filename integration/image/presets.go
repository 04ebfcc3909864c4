package image

import (
	"fmt"
	"maps"
	"slices"
)

// Small is a root file system with nothing but a shell and its tools.
func Small() Rootfs {
	links := map[string]string{}
	for _, applet := range []string{"sh", "cat", "ls", "find", "sha256sum", "sort", "stat", "sleep", "dd", "tr", "echo", "xargs", "mkdir", "rm", "touch", "wc", "head", "seq"} {
		links["bin/"+applet] = "/bin/busybox"
	}
	return Rootfs{Packages: []string{"busybox-static"}, Links: links}
}

// busybox is Small with all of busybox's tools.
func busybox() Rootfs {
	r := Small()
	for _, applet := range []string{"awk", "basename", "chmod", "chown", "cp", "date", "dirname", "env", "expr", "grep", "hostname",
		"id", "kill", "ln", "mv", "printf", "ps", "rmdir", "sed", "tail", "test", "true", "uname", "wget"} {
		r.Links["bin/"+applet] = "/bin/busybox"
	}
	return r
}

// and is r with what another one has.
func (r Rootfs) and(other Rootfs) Rootfs {
	r.Packages = slices.Concat(r.Packages, other.Packages)
	r.Compile = slices.Concat(r.Compile, other.Compile)
	r.Files, r.Links, r.Generated = union(r.Files, other.Files), union(r.Links, other.Links), union(r.Generated, other.Generated)
	r.Setup += other.Setup
	return r
}

func union[V any](a, b map[string]V) map[string]V {
	out := map[string]V{}
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}

// Numpy is Python with numpy: about a hundred MB.
func Numpy() Rootfs { return python("python3-numpy") }

// Scipy is Python with numpy and scipy: some hundred MB, of which a program
// that imports them reads a small part.
func Scipy() Rootfs { return python("python3-numpy", "python3-scipy") }

func python(packages ...string) Rootfs {
	r := Small()
	r.Packages = append(append(r.Packages, "python3"), packages...)
	r.Compile = []string{"/usr/lib/python3.11", "/usr/lib/python3"}
	// Debian chooses between implementations of BLAS by links that an
	// installation script makes.
	lib := "/usr/lib/x86_64-linux-gnu/"
	r.Links[lib+"libblas.so.3"] = "blas/libblas.so.3"
	r.Links[lib+"liblapack.so.3"] = "lapack/liblapack.so.3"
	return r
}

// NumpyCommand imports numpy and prints one line.
func NumpyCommand() []string {
	return []string{"/usr/bin/python3", "-c",
		"import numpy; print('numpy', numpy.__version__, 'sum', int(numpy.arange(1000).sum()))"}
}

// ScipyCommand imports numpy and scipy, solves a small system and prints one
// line.
func ScipyCommand() []string {
	return []string{"/usr/bin/python3", "-c",
		"import numpy, scipy.linalg; a = numpy.eye(64) * 2; " +
			"print('scipy', scipy.__version__, 'x0 =', scipy.linalg.solve(a, numpy.ones(64))[0])"}
}

// Bench is a big file to read in sequence and at random, /big, and a tree of
// small files, /tree.
func Bench() Rootfs {
	r := Small()
	r.Generated = map[string]int64{"big": 256 << 20}
	for i := range 2000 {
		r.Generated[fmt.Sprintf("tree/%02d/%04d", i%50, i)] = int64(1000 + i*8)
	}
	return r
}
