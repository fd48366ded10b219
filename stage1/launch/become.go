package launch

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

// become installs the filter, if there is one, and executes file. Nothing but
// execve may come after the filter: it may kill at the first other call.
func become(prog filter.Program, file string, argv, env []string) error {
	// Go raised the limit on open files and puts it back when it executes: have
	// it do that now, by an attempt that cannot succeed.
	_ = unix.Exec("", []string{""}, nil)
	path, err := unix.BytePtrFromString(file)
	if err != nil {
		return err
	}
	a, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	e, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	if prog != nil {
		if err := prog.Install(); err != nil {
			return err
		}
	}
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&e[0])))
	return errno
}

// loadable looks for the program's chain of interpreters before a filter is in
// place: under one that kills, nothing can be told afterwards. What cannot be
// judged is left to the kernel.
func loadable(file string) error {
	for range 5 {
		f, err := os.Open(file)
		if errors.Is(err, os.ErrNotExist) {
			return explain(file, unix.ENOENT)
		}
		if err != nil {
			return nil
		}
		next, err := interpreter(f)
		f.Close()
		if err != nil || !strings.HasPrefix(next, "/") {
			return nil
		}
		file = next
	}
	return nil
}
