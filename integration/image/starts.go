package image

// Start is an image whose start is measured.
type Start struct {
	Name string
	// Rootfs is what the image holds, Steps the same by layers.
	Rootfs Rootfs
	Steps  []Step
	Args   []string
}

// Build is the image as one layer of that format.
func (s Start) Build(format Overlaybd) Build {
	return Build{Name: s.Name, Rootfs: s.Rootfs, Format: format, Args: s.Args}
}

// Layered is the ordinary image.
func (s Start) Layered() Layered {
	return Layered{Name: s.Name, Version: 1, Steps: s.Steps, Args: s.Args}
}

// Starts are the images whose starts decide how bytes are stored: a server, a
// program of one big file, and one of thousands of small ones.
func Starts() []Start {
	redis, node, scipy := redis(), node(), Scipy()
	return []Start{
		{"redis", redis, []Step{{Rootfs: Small()}, {Rootfs: redis}}, RedisCommand()},
		{"node", node, []Step{{Rootfs: Small()}, {Rootfs: node}}, NodeCommand()},
		{"scipy", scipy, []Step{{Rootfs: Small()}, {Rootfs: python()}, {Rootfs: Numpy()}, {Rootfs: scipy}}, ScipyCommand()},
	}
}

// ColdStarts are images as they are deployed, whose time from a registry to
// being of use is measured. Each command prints something once that is so.
func ColdStarts() []Start {
	redis, pandas := redis(), python("python3-numpy", "python3-scipy", "python3-pandas")
	return []Start{
		wordpress(),
		{"pandas", pandas, []Step{{Rootfs: Small()}, {Rootfs: python()}, {Rootfs: Scipy()}, {Rootfs: pandas}}, []string{"/usr/bin/python3", "-c",
			"import numpy, scipy.linalg, scipy.optimize, scipy.sparse, scipy.stats, pandas; print('pandas', pandas.__version__)"}},
		{"redis", redis, []Step{{Rootfs: Small()}, {Rootfs: redis}}, RedisCommand()},
		toolchain(),
	}
}

// toolchain is what a build machine has, more than 1 GB: a JDK, C and Go
// compilers, libraries and headers. Its command asks for the JDK's version and
// compiles and runs a program.
func toolchain() Start {
	base := Small()
	java := Rootfs{Packages: []string{"openjdk-17-jdk-headless"}}
	gcc := Rootfs{Packages: []string{"gcc", "g++", "libc6-dev"}}
	more := Rootfs{Packages: []string{"libboost1.74-dev", "golang-1.19-src", "golang-1.19-go", "linux-headers-amd64"}}
	whole := base
	for _, r := range []Rootfs{java, gcc, more} {
		whole = whole.and(r)
	}
	return Start{"toolchain", whole, []Step{{Rootfs: base}, {Rootfs: java}, {Rootfs: gcc}, {Rootfs: more}}, []string{"/bin/sh", "-ec", `
/usr/lib/jvm/java-17-openjdk-amd64/bin/java -version
cat >/tmp/hello.c <<'C'
#include <stdio.h>
int main(void) { puts("hello, compiled"); }
C
gcc -O2 -o /tmp/hello /tmp/hello.c
/tmp/hello`}}
}

// redis is a database server.
func redis() Rootfs {
	r := Small()
	r.Packages = append(r.Packages, "redis-server")
	return r
}

// RedisCommand starts a server, waits until it answers, and ends it.
func RedisCommand() []string {
	return []string{"/bin/sh", "-c", `
s=/tmp/redis.sock
redis-server --port 0 --unixsocket $s --save '' --dir /tmp --daemonize yes >/tmp/log || exit
for i in $(seq 200); do
	[ "$(redis-cli -s $s ping 2>/dev/null)" = PONG ] && break
	sleep 0.05
done
redis-cli -s $s ping && redis-cli -s $s shutdown nosave`}
}

// node is a JavaScript runtime with its standard modules.
func node() Rootfs {
	r := Small()
	r.Packages = append(r.Packages, "nodejs")
	return r
}

// NodeCommand serves a page over HTTP, fetches it and prints it.
func NodeCommand() []string {
	return []string{"/usr/bin/node", "-e", `
const http = require('http'), path = '/tmp/node.sock';
const server = http.createServer((request, response) => response.end('hello from node ' + request.url));
server.listen(path, () => http.get({socketPath: path, path: '/page'}, response => {
	response.setEncoding('utf8').on('data', text => console.log(text)).on('end', () => server.close());
}));`}
}
