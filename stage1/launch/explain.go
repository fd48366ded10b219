package launch

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// diagnosis is a finding in the words that users of App Container runtimes know.
type diagnosis string

func (d diagnosis) Error() string { return string(d) }

func diagnose(format string, args ...any) error {
	return diagnosis("Error: " + fmt.Sprintf(format, args...))
}

// explain says why a program could not be executed. The kernel answers "no
// such file" also when the program's loader or script interpreter is missing,
// so the chain of interpreters is followed.
func explain(file string, cause error) error {
	program := file
	for range 5 {
		f, err := os.Open(file)
		if err != nil {
			return diagnose("Unable to open %q: %s", file, text(err))
		}
		next, err := interpreter(f)
		f.Close()
		if err != nil {
			return diagnose("%q: %v", file, err)
		}
		if next == "" {
			return diagnose("Unable to run %q: %s", program, text(cause))
		}
		if !strings.HasPrefix(next, "/") {
			return diagnose("Path must be absolute: %q, the interpreter of %q", next, file)
		}
		file = next
	}
	return diagnose("Excessive interpreter recursion, giving up")
}

func text(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		switch e {
		case unix.ENOENT:
			return "No such file or directory"
		case unix.EACCES:
			return "Permission denied"
		case unix.EPERM:
			return "Operation not permitted; a file with capabilities that the app's bounding set lacks is not executed"
		case unix.ENOEXEC:
			return "Exec format error"
		}
		return e.Error()
	}
	return err.Error()
}

// interpreter returns what the kernel loads first to run f, or "" when nothing.
func interpreter(f *os.File) (string, error) {
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, ok := bytes.Cut(head[2:], []byte("\n"))
		if !ok && n == 256 {
			return "", diagnosis("Shebang line too long")
		}
		words := strings.Fields(string(line))
		if len(words) == 0 {
			return "", diagnosis("Unable to determine interpreter")
		}
		return words[0], nil
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		e, err := elf.NewFile(f)
		if err != nil {
			return "", diagnosis("Unable to determine interpreter: " + err.Error())
		}
		for _, p := range e.Progs {
			if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
				b := make([]byte, p.Filesz)
				if _, err := p.ReadAt(b, 0); err != nil {
					return "", diagnosis("Unable to determine interpreter: " + err.Error())
				}
				return string(bytes.TrimRight(b, "\x00")), nil
			}
		}
		return "", nil
	}
	return "", diagnosis("Unsupported file type")
}
