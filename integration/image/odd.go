package image

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// Odd is a small image with every kind of entry that containerd accepts in a
// layer. What it does not accept is in Refused.
//
// A shell is in the first layer; everything else is below /odd.
func Odd() Layered {
	return Layered{Name: "odd", Version: 3, Args: []string{"/bin/sh", "-c", "find /odd | wc -l"}, Steps: []Step{
		{Rootfs: Small()},
		{Write: oddBottom},
		{Write: oddMiddle, Compression: Zstd},
		{Write: oddTop},
	}}
}

// netRaw is a security.capability attribute of revision 2: CAP_NET_RAW,
// permitted and effective.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// entries writes the entries of an odd layer; the first error is kept.
type entries struct {
	Archive
	err error
}

// add writes an entry whose missing mode and time are the usual ones.
func (e *entries) add(h tar.Header, data string) {
	if h.Mode == 0 {
		h.Mode = 0o644
		if h.Typeflag == tar.TypeDir {
			h.Mode = 0o755
		}
	}
	e.addBare(h, data)
}

// addBare writes an entry whose mode may be 0.
func (e *entries) addBare(h tar.Header, data string) {
	if h.ModTime.IsZero() {
		h.ModTime = epoch
	}
	if e.err == nil {
		e.err = e.Add(h, data)
	}
}

func (e *entries) file(name, data string) { e.add(tar.Header{Name: name}, data) }

func (e *entries) dir(name string) { e.add(tar.Header{Name: name + "/", Typeflag: tar.TypeDir}, "") }

func (e *entries) symlink(name, target string) {
	e.add(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, "")
}

func (e *entries) link(name, target string) {
	e.add(tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}, "")
}

// attributes returns a header of a file with extended attributes.
func attributes(name string, attrs map[string]string) tar.Header {
	h := tar.Header{Name: name, PAXRecords: map[string]string{}}
	for k, v := range attrs {
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	return h
}

// oddBottom holds what upper layers change, and everything that one layer alone
// can show.
func oddBottom(ctx context.Context, a Archive) error {
	e := &entries{Archive: a}
	e.add(tar.Header{Name: "./", Typeflag: tar.TypeDir}, "")
	e.dir("odd")
	e.belowWhiteouts()
	e.belowDirectories()
	e.hardLinks()
	e.extendedAttributes()
	e.surprises()
	e.modesAndOwners()
	e.nodes()
	e.names()
	e.symlinks()
	e.times()
	e.sizes()
	e.repeated()
	e.trees()
	if e.err != nil {
		return e.err
	}
	return sparse(ctx, a)
}

func (e *entries) hardLinks() {
	e.dir("odd/hard")
	e.file("odd/hard/a", "shared by a chain")
	e.link("odd/hard/b", "odd/hard/a")
	e.link("odd/hard/c", "./odd/hard/b")
	e.dir("odd/hard/elsewhere")
	e.link("odd/hard/elsewhere/d", "/odd/hard/c")
	e.symlink("odd/hard/folder", "elsewhere")
	e.link("odd/hard/through", "odd/hard/folder/d")
	// Every entry sets owner, mode, attributes and time of the file they share.
	e.file("odd/hard/meta", "the last entry wins")
	h := attributes("odd/hard/meta-link", map[string]string{"user.of": "the link"})
	h.Typeflag, h.Linkname, h.Mode, h.Uid, h.ModTime = tar.TypeLink, "odd/hard/meta", 0o600, 5, time.Unix(1_111_111_111, 0)
	e.add(h, "")
	// Builders repeat capabilities with each link, see surprises.
	e.add(attributes("odd/hard/capable", map[string]string{"security.capability": netRaw}), "ping")
	h = attributes("odd/hard/capable-link", map[string]string{"security.capability": netRaw})
	h.Typeflag, h.Linkname = tar.TypeLink, "odd/hard/capable"
	e.add(h, "")
	// Not only regular files have several names.
	e.add(tar.Header{Name: "odd/hard/fifo", Typeflag: tar.TypeFifo}, "")
	e.link("odd/hard/fifo-link", "odd/hard/fifo")
	// Some of these names go in upper layers, others change.
	for i, name := range []string{"gone", "stays", "replaced", "also-stays"} {
		if i == 0 {
			e.file("odd/hard/part-"+name, "several names, some of which go")
		} else {
			e.link("odd/hard/part-"+name, "odd/hard/part-gone")
		}
	}
}

func (e *entries) extendedAttributes() {
	many := map[string]string{}
	for i := range 40 {
		many[fmt.Sprintf("user.many.%02d", i)] = fmt.Sprintf("value %d", i)
	}
	e.dir("odd/xattrs")
	e.add(attributes("odd/xattrs/user", map[string]string{"user.a": "1", "user.b": "\x00 binary \xff\n=", "user.empty": ""}), "x")
	e.add(attributes("odd/xattrs/big", map[string]string{"user.big": strings.Repeat("0123456789", 250)}), "x")
	e.add(attributes("odd/xattrs/many", many), "x")
	e.add(attributes("odd/xattrs/capability", map[string]string{"security.capability": netRaw}), "x")
	e.add(attributes("odd/xattrs/label", map[string]string{"security.selinux": "system_u:object_r:bin_t:s0\x00"}), "x")
	acl := attributes("odd/xattrs/acl", map[string]string{"system.posix_acl_access": accessList()})
	acl.Mode = 0o674 // with a list, the group's bits are its mask
	e.add(acl, "x")
	dir := attributes("odd/xattrs/directory/", map[string]string{
		"user.on": "a directory", "system.posix_acl_access": accessList(), "system.posix_acl_default": accessList(),
	})
	dir.Typeflag, dir.Mode = tar.TypeDir, 0o674
	e.add(dir, "") // nothing is in it: containerd's files would inherit the list
	link := attributes("odd/xattrs/symlink", map[string]string{"security.note": "kept", "user.note": "dropped: not for links"})
	link.Typeflag, link.Linkname = tar.TypeSymlink, "user"
	e.add(link, "")
	fifo := attributes("odd/xattrs/fifo", map[string]string{"security.note": "kept", "user.note": "dropped: not for nodes"})
	fifo.Typeflag = tar.TypeFifo
	e.add(fifo, "")
	// The same attributes on many files are stored once by some file systems.
	for i := range 300 {
		e.add(attributes(fmt.Sprintf("odd/xattrs/same/%03d", i), map[string]string{"user.same": strings.Repeat("same", 20)}), "")
	}
}

// surprises are entries that end up otherwise than they say when containerd
// unpacks them.
func (e *entries) surprises() {
	// Linux takes capabilities away when an owner is set, even the same one.
	e.add(attributes("odd/hard/incapable", map[string]string{"security.capability": netRaw}), "ping")
	e.link("odd/hard/incapable-link", "odd/hard/incapable")
	// It knows no permissions of symbolic links, which can have several names.
	e.symlink("odd/hard/symlink", "a")
	e.link("odd/hard/symlink-link", "odd/hard/symlink")
	// containerd drops these attributes.
	e.add(attributes("odd/xattrs/trusted", map[string]string{"trusted.note": "dropped", "user.note": "kept"}), "x")
}

// accessList is a POSIX access control list with a named user, as it is in an
// extended attribute: owner rw, user 1000 rx, group r, mask rwx, others r.
func accessList() string {
	const anyone = 0xffffffff
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, x := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, anyone}, {0x02, 5, 1000}, {0x04, 4, anyone}, {0x10, 7, anyone}, {0x20, 4, anyone}} {
		b = binary.LittleEndian.AppendUint16(b, x.tag)
		b = binary.LittleEndian.AppendUint16(b, x.perm)
		b = binary.LittleEndian.AppendUint32(b, x.id)
	}
	return string(b)
}

func (e *entries) modesAndOwners() {
	e.dir("odd/modes")
	for _, mode := range []int64{0, 0o001, 0o4755, 0o2755, 0o1644, 0o6711, 0o7777} {
		e.addBare(tar.Header{Name: fmt.Sprintf("odd/modes/file-%04o", mode), Mode: mode}, "x")
		e.addBare(tar.Header{Name: fmt.Sprintf("odd/modes/dir-%04o/", mode), Mode: mode, Typeflag: tar.TypeDir}, "")
	}
	for i, id := range []int{1, 65535, 65536, 100_000, 1 << 21, 1 << 31, 1<<32 - 2} {
		e.add(tar.Header{Name: fmt.Sprintf("odd/owners/%d", i), Uid: id, Gid: 1<<32 - 2 - id}, "x")
		e.add(tar.Header{Name: fmt.Sprintf("odd/owners/dir-%d/", i), Uid: id, Gid: id, Typeflag: tar.TypeDir}, "")
		e.add(tar.Header{Name: fmt.Sprintf("odd/owners/link-%d", i), Uid: id, Typeflag: tar.TypeSymlink, Linkname: "x", Mode: 0o777}, "")
	}
}

func (e *entries) nodes() {
	e.dir("odd/nodes")
	for _, n := range []struct {
		name         string
		kind         byte
		major, minor int64
		mode         int64
	}{
		{"null", tar.TypeChar, 1, 3, 0o666}, {"sda", tar.TypeBlock, 8, 0, 0o660},
		{"wide-minor", tar.TypeChar, 259, 300_000, 0o600}, {"wide-major", tar.TypeBlock, 4095, 255, 0o600},
		{"block-zero", tar.TypeBlock, 0, 0, 0o600}, {"fifo", tar.TypeFifo, 0, 0, 0o620}, {"setuid-fifo", tar.TypeFifo, 0, 0, 0o4600},
	} {
		e.add(tar.Header{Name: "odd/nodes/" + n.name, Typeflag: n.kind, Devmajor: n.major, Devminor: n.minor, Mode: n.mode, Uid: 6, Gid: 7}, "")
	}
}
