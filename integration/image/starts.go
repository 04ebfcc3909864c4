package image

// The images whose starts the benchmarks measure, beside Scipy.

// Redis is a database server.
func Redis() Rootfs {
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

// Node is a JavaScript runtime with its standard modules.
func Node() Rootfs {
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
