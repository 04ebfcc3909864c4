package mounter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountFlags are the options that mount(2) wants as flags, from mount(8).
var mountFlags = map[string]uintptr{
	"rw": 0, "defaults": 0, "async": 0, "atime": 0, "suid": 0, "dev": 0, "exec": 0,
	"dirsync":     unix.MS_DIRSYNC,
	"iversion":    unix.MS_I_VERSION,
	"lazytime":    unix.MS_LAZYTIME,
	"noatime":     unix.MS_NOATIME,
	"nodev":       unix.MS_NODEV,
	"nodiratime":  unix.MS_NODIRATIME,
	"noexec":      unix.MS_NOEXEC,
	"nosuid":      unix.MS_NOSUID,
	"relatime":    unix.MS_RELATIME,
	"strictatime": unix.MS_STRICTATIME,
	"sync":        unix.MS_SYNCHRONOUS,
}

// foreignOptions name other devices or files.
var foreignOptions = []string{"journal_dev", "journal_path", "logdev", "rtdev", "device", "usrjquota", "grpjquota"}

// mountOptions are the options for one attempt of mount(2).
type mountOptions struct {
	flags uintptr
	data  string
}

// CheckMountOptions reports options that would not be used for a writable mount
// of fsType, or that name other files or devices.
func CheckMountOptions(fsType, options string) error {
	_, err := Job{FSType: fsType, Options: options, Writable: true}.mountOptions()
	return err
}

// mountOptions returns the options to mount with, best first: older kernels do
// not know all of them.
func (j Job) mountOptions() ([]mountOptions, error) {
	if j.Writable {
		return j.writableOptions()
	}
	var candidates []string
	switch j.FSType {
	case "ext4":
		// noload: a journal that was not closed cannot be replayed on
		// a device that never changes. inode_readahead_blks: ext4 reads
		// inode tables ahead by itself, 32 blocks at a time, whatever
		// the loop device's readahead is; see also readahead.
		candidates = []string{"noload,inode_readahead_blks=0"}
	case "xfs":
		// norecovery as noload; nouuid, as two containers may run two
		// images made from one.
		candidates = []string{"norecovery,nouuid"}
	case "erofs":
		// directio, for a mount without a loop device: reads go to the
		// FUSE file as erofs makes them. Without it they go through
		// that file's page cache, 4 KiB at a time, as its readahead was
		// off when erofs opened it, and nothing can turn it on later.
		// A loop device has no such option.
		candidates = []string{"directio", ""}
	default:
		return nil, fmt.Errorf("file system type %q is not one of ext4, xfs, erofs", j.FSType)
	}
	more, err := parseOptions(j.Options)
	if err != nil {
		return nil, err
	}
	var all []mountOptions
	for _, c := range candidates {
		all = append(all, mountOptions{flags: more.flags | unix.MS_RDONLY, data: join(c, more.data)})
	}
	return all, nil
}

// quietExt4 are options for an ext4 that is written, each unless there is another
// one of its name. inode_readahead_blks: as for reading. noinit_itable: the kernel
// would zero all inode tables in the background after the mount, in a new file
// system of 64 GiB with 512 requests over 1 GiB, which were zeros before.
var quietExt4 = map[string]string{
	"inode_readahead_blks": "inode_readahead_blks=0",
	"init_itable":          "noinit_itable",
}

// writableOptions returns the options for a mount that can be written: j's, or
// upstream's defaults, and what keeps the kernel from work of its own.
func (j Job) writableOptions() ([]mountOptions, error) {
	options, quiet := j.Options, map[string]string(nil)
	switch j.FSType {
	case "ext4":
		if options == "" {
			options = "discard"
		}
		quiet = quietExt4
	case "xfs":
		if options == "" {
			options = "nouuid,discard"
		}
	default:
		return nil, fmt.Errorf("file system type %q is not one of those that can be written, ext4 and xfs", j.FSType)
	}
	o, err := parseOptions(options)
	if err != nil {
		return nil, err
	}
	given := o.data
	for _, name := range slices.Sorted(maps.Keys(quiet)) {
		if !strings.Contains(given, name) {
			o.data = join(o.data, quiet[name])
		}
	}
	return []mountOptions{o}, nil
}

// parseOptions splits options, as mount(8) takes them, into those that mount(2)
// takes as flags and the rest, which are the file system's.
func parseOptions(options string) (mountOptions, error) {
	var o mountOptions
	for option := range strings.SplitSeq(strings.TrimSpace(options), ",") {
		option = strings.TrimSpace(option)
		name, value, _ := strings.Cut(option, "=")
		flag, known := mountFlags[option]
		switch {
		case option == "":
		case known:
			o.flags |= flag
		case name == "ro":
			return o, fmt.Errorf("mount option %q: say that by not asking for a writable mount", option)
		case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
			return o, fmt.Errorf("mount option %q has no name of letters, digits and _", option)
		case slices.Contains(foreignOptions, name), strings.ContainsAny(value, "/\n"):
			return o, fmt.Errorf("mount option %q names something outside of the file system", option)
		case option == "errors=panic": // a label must not stop the machine
			return o, fmt.Errorf("mount option %q is not for file systems that others write", option)
		default:
			o.data = join(o.data, option)
		}
	}
	return o, nil
}

// join joins two lists of options.
func join(a, b string) string {
	return strings.Trim(a+","+b, ",")
}
