#!/bin/sh
# install.sh [--dir] [test|demo|bench|lint]
#
# Puts what the demo, the tests and the benchmarks run against into a cache
# outside the source tree and prints the folder's name:
#
#   bin/       containerd, ctr and the runc shim, built from the versions in go.mod
#   s3/        versitygw, an S3 server, built from the version in s3/go.mod
#   debian/    runc, the registry, CNI plugins, nginx, Redis with the libraries it needs, and
#              Debian's own containerd, unpacked, not installed: no service is started and
#              nothing on the machine changes
#
# Small file system tools that are missing, the browser that tests look at pages with, and
# the python3 that plugins run in, are installed with apt-get. Nothing is done when
# everything is there. With --dir only the folder is printed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/reprise
layout=1 # raise when what this script puts there changes
key=$( (cat "$here/go.sum" "$here/go.mod" "$here/lint/go.sum" "$here/s3/go.sum"; go env GOVERSION; echo $layout) | sha256sum | cut -c1-12)
dir=${REPRISE_TOOLS:-$cache/tools-$key}
if [ "${1:-}" = --dir ]; then echo "$dir"; exit; fi
purpose=${1:-test}

# Package names by purpose: commands that must be on PATH, installed if not.
commands="mkfs.ext4:e2fsprogs dumpe2fs:e2fsprogs mkfs.erofs:erofs-utils ip:iproute2 tc:iproute2 nsenter:util-linux losetup:mount"
[ "$purpose" = bench ] && commands="$commands fio:fio wrk:wrk"
[ "$purpose" = test ] && commands="$commands mkfs.xfs:xfsprogs chromium:chromium python3:python3"
# Packages that bring a daemon or a runtime: unpacked into the cache only.
unpacked="runc docker-registry containerd"
[ "$purpose" = test ] && unpacked="$unpacked containernetworking-plugins"
[ "$purpose" = bench ] && unpacked="$unpacked nginx"
# redis-server is a link into redis-tools; the others are its libraries.
case $purpose in test | bench)
	unpacked="$unpacked redis-server redis-tools libjemalloc2 liblzf1 libatomic1" ;;
esac
built="containerd ctr containerd-shim-runc-v2"

say() { echo "tools: $*" >&2; }

missing_packages() {
	PATH=$PATH:/usr/sbin:/sbin
	for c in $commands; do
		command -v "${c%%:*}" >/dev/null 2>&1 || echo "${c#*:}"
	done | sort -u
}

need_apt() {
	command -v apt-get >/dev/null 2>&1 && return
	say "this machine has no apt-get; install by hand: $*"
	exit 1
}

updated=
# apt-get update, once, and only if a package is not known yet.
update_lists() {
	[ -n "$updated" ] && return
	for p in "$@"; do
		if [ -z "$(apt-cache madison "$p" 2>/dev/null)" ]; then
			say "fetching package lists"
			apt-get -qq update
			updated=yes
			return
		fi
	done
}

# A package list that is out of date names archives that are gone.
apt_retry() {
	"$@" && return
	[ -n "$updated" ] && return 1
	say "fetching package lists"
	apt-get -qq update
	updated=yes
	"$@"
}

install_packages() {
	[ -n "$*" ] || return 0
	need_apt "$@"
	[ "$(id -u)" = 0 ] || { say "missing packages, install them as root: $*"; exit 1; }
	update_lists "$@"
	say "installing $*"
	DEBIAN_FRONTEND=noninteractive apt_retry apt-get -qq -y --no-install-recommends install "$@" >&2
}

unpack_packages() {
	todo=
	for p in $unpacked; do [ -e "$dir/debian/.$p" ] || todo="$todo $p"; done
	[ -n "$todo" ] || return 0
	need_apt $todo
	# shellcheck disable=SC2086
	update_lists $todo
	say "unpacking$todo"
	mkdir -p "$dir/debian"
	tmp=$(mktemp -d "$dir/deb.XXXXXX")
	# shellcheck disable=SC2086
	(cd "$tmp" && apt_retry apt-get -qq -o APT::Sandbox::User=root download $todo >&2)
	for deb in "$tmp"/*.deb; do dpkg-deb -x "$deb" "$dir/debian"; done
	rm -r "$tmp"
	for p in $todo; do : >"$dir/debian/.$p"; done
}

build_tools() {
	for b in $built; do [ -x "$dir/bin/$b" ] || missing=yes; done
	[ -n "${missing:-}" ] || return 0
	say "building containerd (some minutes the first time)"
	mkdir -p "$dir/bin.new"
	module=github.com/containerd/containerd/v2
	version=$(cd "$here" && go list -m -f '{{.Version}}' "$module")
	for b in $built; do
		say "  $b $version"
		(cd "$here" && CGO_ENABLED=0 go build -trimpath -buildvcs=false \
			-tags "no_cri no_btrfs no_zfs no_devmapper no_tracing" \
			-ldflags "-s -w -X $module/version.Version=$version" \
			-o "$dir/bin.new/$b" "$module/cmd/$b") >&2
	done
	rm -rf "$dir/bin"
	mv "$dir/bin.new" "$dir/bin"
}

build_s3() {
	[ -x "$dir/s3/versitygw" ] && return
	say "building versitygw"
	mkdir -p "$dir/s3"
	(cd "$here/s3" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$dir/s3/versitygw.new" \
		github.com/versity/versitygw/cmd/versitygw) >&2
	mv "$dir/s3/versitygw.new" "$dir/s3/versitygw"
}

build_lint() {
	[ -x "$dir/lint/golangci-lint" ] && return
	say "building golangci-lint"
	mkdir -p "$dir/lint"
	(cd "$here/lint" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$dir/lint/golangci-lint" \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint) >&2
}

mkdir -p "$dir"
# Two installs at once (go test runs packages in parallel) take turns.
exec 9>"$dir/.lock"
flock 9
if [ "$purpose" = lint ]; then
	build_lint
else
	# shellcheck disable=SC2046
	install_packages $(missing_packages)
	unpack_packages
	build_tools
	[ "$purpose" = demo ] || build_s3
fi
echo "$dir"
