//go:build !failpoint

// Package failpoint marks instructions at which tests kill the process. In an
// ordinary build Hit is empty and inlined away; with the build tag "failpoint"
// it ends the process with SIGKILL when RKT_FAILPOINT names it.
package failpoint

// Hit marks a failpoint; name is unique in the program ("store/renamed").
func Hit(name string) {}
