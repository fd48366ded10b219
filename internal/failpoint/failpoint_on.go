//go:build failpoint

package failpoint

import (
	"os"
	"syscall"
)

// Hit ends the process with SIGKILL when the environment names this failpoint.
func Hit(name string) {
	if os.Getenv("RKT_FAILPOINT") == name {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
