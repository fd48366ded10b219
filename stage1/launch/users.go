package launch

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// User is whom a process runs as.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
}

// maxUserDB bounds what is read of an image's passwd and group.
const maxUserDB = 1 << 20

// imageFile reads a file of the image; it is the image's, so it is found
// beneath the root, must be a plain file, and is read up to a limit.
func imageFile(root, name string) []byte {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxUserDB {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxUserDB))
	if err != nil {
		return nil
	}
	return b
}

// entry finds the line of a user database whose field is value.
func entry(db []byte, field, fields int, value string) []string {
	for line := range bytes.Lines(db) {
		p := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(p) == fields && p[field] == value {
			return p
		}
	}
	return nil
}

// PasswdEntry is the line of the image's passwd for a user ID, split; nil if
// there is none.
func PasswdEntry(root string, uid uint32) []string {
	return entry(imageFile(root, "etc/passwd"), 2, 7, strconv.FormatUint(uint64(uid), 10))
}

// FindUser resolves USER or USER:GROUP, names or numbers, in the image. A
// user's group and supplementary groups are those of the image, unless a group
// is given.
func FindUser(root, name string) (*User, error) {
	name, group, hasGroup := strings.Cut(name, ":")
	db := imageFile(root, "etc/passwd")
	u := &User{}
	p := entry(db, 0, 7, name)
	uid, err := parseID(name)
	switch {
	case p == nil && name == "root":
	case p == nil && err != nil:
		return nil, fmt.Errorf("user %q is not in the image's /etc/passwd", name)
	case p == nil:
		u.UID = uid
		if p = entry(db, 2, 7, name); p != nil {
			u.GID, err = parseID(p[3])
		} else {
			err = nil
		}
	default:
		if u.UID, err = parseID(p[2]); err == nil {
			u.GID, err = parseID(p[3])
		}
	}
	if p != nil && err != nil {
		return nil, fmt.Errorf("user %q has a bad number in the image's /etc/passwd", name)
	}
	groups := imageFile(root, "etc/group")
	if hasGroup {
		if u.GID, err = parseID(group); err != nil {
			g := entry(groups, 0, 4, group)
			if g == nil {
				return nil, fmt.Errorf("group %q is not in the image's /etc/group", group)
			}
			if u.GID, err = parseID(g[2]); err != nil {
				return nil, fmt.Errorf("group %q has a bad number in the image's /etc/group", group)
			}
		}
		return u, nil
	}
	if p == nil {
		return u, nil
	}
	for line := range bytes.Lines(groups) {
		g := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(g) != 4 || !slices.Contains(strings.Split(g[3], ","), p[0]) {
			continue
		}
		if gid, err := parseID(g[2]); err == nil && len(u.Groups) < 65535 {
			u.Groups = append(u.Groups, gid)
		}
	}
	return u, nil
}

func parseID(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n >= 1<<32-1 || text[0] == '+' {
		return 0, fmt.Errorf("%q is no user or group number", text)
	}
	return uint32(n), nil
}

// Exists reports whether the image has a file, links followed inside it.
func Exists(root, name string) bool {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, strings.TrimPrefix(path.Clean(name), "/"), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}
