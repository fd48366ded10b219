package entrypoint

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/rootpath"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// maxUserDB bounds the image's passwd and group files.
const maxUserDB = 1 << 20

// lookup resolves the user and group of an app in its root: "root", a number,
// the owner of a file (a path), or a name.
func lookup(dir, user, group string) (plan.IDs, error) {
	root, err := rootpath.Open(dir)
	if err != nil {
		return plan.IDs{}, err
	}
	defer root.Close()
	uid, err := resolve(root, user, "user", "/etc/passwd")
	if err != nil {
		return plan.IDs{}, err
	}
	gid, err := resolve(root, group, "group", "/etc/group")
	return plan.IDs{UID: uid, GID: gid}, err
}

func resolve(root *rootpath.Root, name, kind, file string) (uint32, error) {
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
		if kind == "group" {
			return st.GID, nil
		}
		return st.UID, nil
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
