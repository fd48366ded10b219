package entrypoint

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/rootpath"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// maxUserDB bounds the image's passwd and group files.
const maxUserDB = 1 << 20

// lookup resolves the user and group of an app in its root: "root", a number,
// the owner of a file (a path), or a name. Files belong to the pod's private
// users, which the app knows by other numbers.
func lookup(dir, user, group string, private abi.IDRange) (plan.IDs, error) {
	root, err := rootpath.Open(dir)
	if err != nil {
		return plan.IDs{}, err
	}
	defer root.Close()
	uid, err := resolve(root, user, "user", "/etc/passwd", private)
	if err != nil {
		return plan.IDs{}, err
	}
	gid, err := resolve(root, group, "group", "/etc/group", private)
	return plan.IDs{UID: uid, GID: gid}, err
}

func resolve(root *rootpath.Root, name, kind, file string, private abi.IDRange) (uint32, error) {
	switch {
	case name == "":
		return 0, fmt.Errorf("the %s is not set", kind)
	case name == "root":
		return 0, nil
	case strings.HasPrefix(name, "/"):
		st, err := root.Lstat(name)
		if err != nil {
			return 0, fmt.Errorf("%s %q: %w", kind, name, err)
		}
		owner := st.UID
		if kind == "group" {
			owner = st.GID
		}
		inside, ok := private.Inside(owner)
		if !ok {
			return 0, fmt.Errorf("%s %q: the file's is outside of the pod's private users, which are 0 to %d", kind, name, private.Count-1)
		}
		return inside, nil
	}
	if strings.Trim(name, "0123456789") == "" {
		n, err := strconv.ParseUint(name, 10, 32)
		if err != nil || n >= 1<<32-1 {
			return 0, fmt.Errorf("%s %q is out of range", kind, name)
		}
		return uint32(n), nil
	}
	b, err := root.ReadFile(file, maxUserDB)
	if err != nil {
		return 0, fmt.Errorf("looking up the %s %q in the image: %w", kind, name, err)
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		f := strings.Split(sc.Text(), ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		n, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || n >= 1<<32-1 {
			return 0, fmt.Errorf("%s %q has a bad number in the image's %s", kind, name, file)
		}
		return uint32(n), nil
	}
	return 0, fmt.Errorf("%s %q is not in the image's %s", kind, name, file)
}

// dockerLookup resolves the user of a converted image that names no group (OCI
// image configuration, "User"): a number's group is that of its passwd entry,
// else 0; a name must be there, and brings the groups that list it.
func dockerLookup(dir, user string) (plan.IDs, error) {
	root, err := rootpath.Open(dir)
	if err != nil {
		return plan.IDs{}, err
	}
	defer root.Close()
	number := strings.Trim(user, "0123456789") == ""
	field := 0
	if number {
		field = 2
	}
	entry, err := dbEntry(root, "/etc/passwd", field, user)
	switch {
	case err != nil && (!number || !errors.Is(err, fs.ErrNotExist)):
		return plan.IDs{}, fmt.Errorf("looking up the user %q in the image: %w", user, err)
	case entry == nil && number, err != nil:
		uid, err := id(user)
		return plan.IDs{UID: uid}, err
	case entry == nil:
		return plan.IDs{}, fmt.Errorf("user %q is not in the image's /etc/passwd", user)
	}
	ids := plan.IDs{}
	if ids.UID, err = id(entry[2]); err == nil {
		ids.GID, err = id(entry[3])
	}
	if err != nil {
		return plan.IDs{}, fmt.Errorf("user %q in the image's /etc/passwd: %w", user, err)
	}
	if number {
		return ids, nil
	}
	ids.Groups, err = listing(root, user)
	return ids, err
}

func id(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n >= 1<<32-1 {
		return 0, fmt.Errorf("%q is no user or group number", text)
	}
	return uint32(n), nil
}

// dbEntry is the first line of a user database whose field is value, nil if
// there is none.
func dbEntry(root *rootpath.Root, file string, field int, value string) ([]string, error) {
	b, err := root.ReadFile(file, maxUserDB)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) >= 4 && f[field] == value {
			return f, nil
		}
	}
	return nil, nil
}

// maxGroups is what the kernel takes (NGROUPS_MAX).
const maxGroups = 65536

// listing is the groups that list a user as a member.
func listing(root *rootpath.Root, user string) ([]uint32, error) {
	b, err := root.ReadFile("/etc/group", maxUserDB)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking up the groups of user %q in the image: %w", user, err)
	}
	var out []uint32
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), user) {
			continue
		}
		gid, err := id(f[2])
		if err != nil {
			return nil, fmt.Errorf("group %.100q in the image's /etc/group: %w", f[0], err)
		}
		if len(out) < maxGroups {
			out = append(out, gid)
		}
	}
	return out, nil
}
