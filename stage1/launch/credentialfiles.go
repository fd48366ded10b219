package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Credential is a file of Spec.CredentialsFrom that is shown in the app, too.
type Credential struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
}

// credentials shows the app's credentials: the mount that stage1 has made with
// the app's own alone, and single files of it where they are wanted.
func (r *root) credentials(s *Spec) error {
	if len(s.Credentials) == 0 {
		return nil
	}
	if err := r.bindTree(s.CredentialsFrom, strings.TrimPrefix(s.CredentialsAt, "/")); err != nil {
		return err
	}
	for _, c := range s.Credentials {
		if c.File == "" {
			continue
		}
		if err := r.credentialFile(path.Join(s.CredentialsFrom, c.Name), c.File); err != nil {
			return fmt.Errorf("showing the credential %q at %q in the app: %w", c.Name, c.File, err)
		}
	}
	return nil
}

func (r *root) credentialFile(source, target string) error {
	t, err := r.mountPoint(target, false)
	if errors.Is(err, unix.EROFS) {
		return errors.New("there is no such file to mount it on, and what is there is read-only")
	}
	if err != nil {
		return err
	}
	defer unix.Close(t)
	m, err := clone(source, false)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	return attach(m, t)
}

// coreFilterHeaders has the kernel put no memory into core dumps, only the ELF
// headers of what was mapped (core(5)).
const coreFilterHeaders = "0x10"

// hideMemory keeps the memory of a process that can have read secrets out of
// core dumps, which are kept on disk. The setting outlives exec and fork.
func (s *Spec) hideMemory() error {
	if len(s.Credentials) == 0 || s.CoreFilter {
		return nil
	}
	err := os.WriteFile("/proc/self/coredump_filter", []byte(coreFilterHeaders), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without core dumps
	}
	if err != nil {
		return &Error{ExitLimits, fmt.Errorf("keeping secrets out of core dumps: %w", err)}
	}
	return nil
}
