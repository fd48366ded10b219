package launch

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

func chdir(dir string) error {
	if dir == "" {
		dir = "/"
	}
	if err := unix.Chdir(dir); err != nil {
		return &Error{ExitChdir, fmt.Errorf("entering the working directory %q: %w", dir, err)}
	}
	// The kernel names a directory outside the root "(unreachable)…": whatever a
	// link below /proc led to, nothing starts there.
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil || n < 1 || buf[0] != '/' {
		return &Error{ExitChdir, fmt.Errorf("entering the working directory %q: it is outside the app's root", dir)}
	}
	return nil
}

// lookup finds the program as appc says: absolute, relative to the working
// directory, or by the app's PATH.
func lookup(name string, env []string, dir string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, executable(name)
	}
	if strings.Contains(name, "/") {
		p := path.Join("/", dir, name)
		return p, executable(p)
	}
	search := dir + ":/bin:/usr/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	for d := range strings.SplitSeq(search, ":") {
		if !strings.HasPrefix(d, "/") {
			d = path.Join("/", dir, d)
		}
		p := path.Join(d, name)
		if executable(p) == nil {
			return p, nil
		}
	}
	return "", diagnose("Unable to open %q: not found in PATH %q", name, search)
}

// executable says why p is no program of the app. What only a magic link of
// /proc leads to is none: it would be the launcher, or what somebody left open.
func executable(p string) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return explain(p, err)
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		if errors.Is(err, unix.ELOOP) {
			return diagnose("%q leads out of the app by a link of /proc; programs are files of the image", p)
		}
		return explain(p, err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return explain(p, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return diagnose("%q is not a regular file", p)
	case st.Mode&0o111 == 0:
		return diagnose("%q is not executable", p)
	}
	return nil
}
