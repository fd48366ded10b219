package entrypoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appcred"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// mountCredentials makes, for each app that has credentials, a file system in
// memory with copies of these alone, as the app's user and nobody else may read
// them. The mounts belong to the pod's mount namespace and end with it. What
// they hold goes from file to file inside the kernel, through no memory of rkt's.
func mountCredentials(env Env, apps []launch.Spec, ids abi.IDRange) error {
	dir := env.get("CREDENTIALS_DIRECTORY")
	for i := range apps {
		s := &apps[i]
		if len(s.Credentials) == 0 {
			continue
		}
		if dir == "" {
			return fmt.Errorf("app %q gets the credential %q, but systemd has passed none: start the pod as its unit (systemctl start rkt@NAME)", s.Name, s.Credentials[0].Name)
		}
		if err := mountAppCredentials(dir, s, ids); err != nil {
			return fmt.Errorf("app %q: %w", s.Name, err)
		}
	}
	return nil
}

func mountAppCredentials(dir string, s *launch.Spec, ids abi.IDRange) error {
	uid, ok := ids.Outside(s.UID)
	gid, ok2 := ids.Outside(s.GID)
	if !ok || !ok2 {
		return fmt.Errorf("its user is not one of the pod's")
	}
	at := filepath.Join(podfs.Stage1Rootfs, podfs.CredentialDir, s.Name)
	if err := asRoot(ids, func() error { return os.MkdirAll(at, 0o700) }); err != nil {
		return err
	}
	// ramfs, unlike tmpfs, is never swapped out
	if err := unix.Mount("ramfs", at, "ramfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mounting a file system for credentials: %w", err)
	}
	root, err := unix.Open(at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for _, c := range s.Credentials {
		if err := copyCredential(dir, root, c.Name, int(uid), int(gid)); err != nil {
			return fmt.Errorf("credential %q: %w", c.Name, err)
		}
	}
	if err := errors.Join(unix.Fchown(root, int(uid), int(gid)), unix.Fchmod(root, 0o500)); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &attr)
}

func copyCredential(dir string, to int, name string, uid, gid int) error {
	in, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return errors.New("systemd has not passed it to the pod's unit; after a change of the pod file, run systemctl daemon-reload")
	}
	if err != nil {
		return err
	}
	defer unix.Close(in)
	var st unix.Stat_t
	if err := unix.Fstat(in, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > appcred.MaxSize {
		return errors.New("it is no file of at most 1 MiB")
	}
	out, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	for left := int(st.Size); left > 0; {
		n, err := unix.Sendfile(out, in, nil, left)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("copying it: %w", err)
		}
		if n == 0 {
			return errors.New("it was cut short while it was copied")
		}
		left -= n
	}
	return errors.Join(unix.Fchown(out, uid, gid), unix.Fchmod(out, 0o400))
}
