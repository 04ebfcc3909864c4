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
