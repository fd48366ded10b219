package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is a root file system that means harm to who starts a program in it.
type Root struct {
	Name string
	// Entries are made in order: "d PATH" a directory, "l PATH TARGET" a link,
	// "f PATH TEXT" a file, "p PATH" a FIFO, "s PATH" a socket, "z PATH" a device
	// like /dev/zero, "n PATH" a device like /dev/null, "m PATH" a device like
	// /dev/mem, "b PATH" a block device, "big PATH" a file of 1 GiB of nothing,
	// "users PATH" a user database with a million lines. $C is the decoy.
	Entries []string
	// Culprit is what an error has to name; "" for roots in which programs run.
	Culprit string
}

// Roots are root file systems with links to the directory decoy.
func Roots(decoy string) []Root {
	var all []Root
	add := func(culprit, name string, entries ...string) {
		for i, e := range entries {
			entries[i] = strings.ReplaceAll(e, "$C", decoy)
		}
		all = append(all, Root{Name: name, Entries: entries, Culprit: culprit})
	}
	add("", "nothing at all")
	for _, top := range []string{"/dev", "/proc", "/sys", "/run"} {
		add(top, "link at "+top, "l "+top+" $C")
		add(top, "relative link at "+top, "l "+top+" ../../../../../../../../..$C")
		add(top, "dangling link at "+top, "l "+top+" /none")
		add(top, "loop at "+top, "l "+top+" "+top)
		add(top, "link to the process's root at "+top, "l "+top+" /proc/self/root"+decoy)
		add(top, "link to the first process's root at "+top, "l "+top+" /proc/1/root"+decoy)
		add(top, "file at "+top, "f "+top+" text")
		add(top, "FIFO at "+top, "p "+top)
		add(top, "device at "+top, "z "+top)
	}
	add("/run/systemd", "link at /run/systemd", "d /run", "l /run/systemd $C")
	add("/run/systemd", "file at /run/systemd", "d /run", "f /run/systemd text")
	add("/run/systemd/journal", "link at the journal", "d /run", "d /run/systemd", "l /run/systemd/journal $C")
	add("/run/systemd/journal", "FIFO at the journal", "d /run", "d /run/systemd", "p /run/systemd/journal")
	add("", "links in the journal", "d /run", "d /run/systemd", "d /run/systemd/journal", "l /run/systemd/journal/socket $C/secret", "l /run/systemd/journal/stdout $C/secret")
	add("", "links at nodes", "d /dev", "l /dev/null $C/secret", "l /dev/console $C/secret", "l /dev/tty $C/secret", "l /dev/zero /proc/1/root$C/secret",
		"l /dev/pts $C", "l /dev/shm $C", "l /dev/mqueue $C", "l /dev/net $C", "l /dev/fd $C", "l /dev/log $C/secret", "l /dev/stdout $C/secret")
	add("", "directories at nodes", "d /dev", "d /dev/null", "d /dev/console", "d /dev/ptmx", "d /dev/stdout", "d /dev/log")
	add("", "files at nodes", "d /dev", "f /dev/null text", "f /dev/pts text", "f /dev/shm text", "p /dev/console", "p /dev/urandom")
	add("", "wrong devices at nodes", "d /dev", "m /dev/null", "m /dev/zero", "b /dev/tty", "z /dev/random", "m /dev/console")
	add("", "links below proc and sys", "d /proc", "d /sys", "l /proc/self $C", "l /proc/sys $C", "l /proc/kcore $C/secret", "l /sys/firmware $C", "l /sys/fs $C")
	for _, e := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"} {
		base := filepath.Base(e)
		add("", "link at "+e, "d /etc", "l "+e+" $C/"+base)
		add("", "relative link at "+e, "d /etc", "l "+e+" ../../../../../../../..$C/"+base)
		add("", "dangling link at "+e, "d /etc", "l "+e+" ../run/none/"+base)
		add(e, "loop at "+e, "d /etc", "l "+e+" "+base)
		add(e, "link of proc at "+e, "d /etc", "l "+e+" /proc/1/root$C/"+base)
		add(e, "directory at "+e, "d /etc", "d "+e)
		add("", "FIFO at "+e, "d /etc", "p "+e)
		add("", "endless file at "+e, "d /etc", "z "+e)
	}
	add("/etc", "link at /etc", "l /etc $C")
	add("/etc", "dangling loop at /etc", "l /etc etc")
	add("/etc", "file at /etc", "f /etc text")
	add("/etc", "FIFO at /etc", "p /etc")
	add("/etc", "link to the process's root at /etc", "l /etc /proc/self/root$C")
	add("", "link to the root at /etc", "l /etc /")
	add("", "link at /etc/mtab", "d /etc", "l /etc/mtab $C/mtab")
	add("", "directory at /etc/mtab", "d /etc", "d /etc/mtab")
	for _, db := range []string{"passwd", "group"} {
		at := "/etc/" + db
		add("", "link at "+at, "d /etc", "l "+at+" $C/"+db)
		add("", "link of proc at "+at, "d /etc", "l "+at+" /proc/1/root$C/"+db)
		add("", "link to the working directory at "+at, "d /etc", "l "+at+" /proc/self/cwd/../..$C/"+db)
		add("", "directory at "+at, "d /etc", "d "+at)
		add("", "FIFO at "+at, "d /etc", "p "+at)
		add("", "socket at "+at, "d /etc", "s "+at)
		add("", "endless "+at, "d /etc", "z "+at)
		add("", "link to an endless "+at, "d /etc", "d /dev", "z /dev/zero", "l "+at+" /dev/zero")
		add("", "huge "+at, "d /etc", "big "+at)
		add("", "many users in "+at, "d /etc", "users "+at)
		add("", "block device at "+at, "d /etc", "b "+at)
		add("", "no numbers in "+at, "d /etc", "f "+at+" victim:x:-1:4294967296::/:\nvictim:x:0x0:+0::/:\n::::::\n:\nvictim")
	}
	return all
}

// Make makes the root in the directory dir; what is there in the way goes.
func (r Root) Make(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, e := range r.Entries {
		f := strings.SplitN(e, " ", 3)
		name, arg := filepath.Join(dir, f[1]), ""
		if len(f) == 3 {
			arg = f[2]
		}
		if st, err := os.Lstat(name); err == nil {
			if f[0] == "d" && st.IsDir() {
				continue
			}
			if err := os.RemoveAll(name); err != nil {
				return err
			}
		}
		if err := makeEntry(f[0], name, arg); err != nil {
			return fmt.Errorf("making %q: %w", e, err)
		}
	}
	return nil
}

func makeEntry(kind, name, arg string) error {
	node := func(mode uint32, major, minor uint32) error {
		return unix.Mknod(name, mode|0o666, int(unix.Mkdev(major, minor)))
	}
	switch kind {
	case "d":
		return os.Mkdir(name, 0o755)
	case "l":
		return os.Symlink(arg, name)
	case "f":
		return os.WriteFile(name, []byte(arg), 0o644)
	case "p":
		return node(unix.S_IFIFO, 0, 0)
	case "s":
		return node(unix.S_IFSOCK, 0, 0)
	case "n":
		return node(unix.S_IFCHR, 1, 3)
	case "z":
		return node(unix.S_IFCHR, 1, 5)
	case "m":
		return node(unix.S_IFCHR, 1, 1)
	case "b":
		return node(unix.S_IFBLK, 7, 0)
	case "big":
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Truncate(1 << 30)
	case "users":
		return os.WriteFile(name, []byte(strings.Repeat("u:x:1:1::/:/bin/sh\n", 1_000_000)+"victim:x:1:1::/:/bin/sh\n"), 0o644)
	}
	return fmt.Errorf("no kind %q", kind)
}
