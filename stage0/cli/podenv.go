package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfile"
)

// declaredEnvironment are the variables of all apps of a declared pod: those of
// its files, a later one over an earlier, and over them its own.
func declaredEnvironment(o *podfile.Options) ([][2]string, error) {
	var out [][2]string
	for _, file := range o.EnvironmentFiles {
		name, optional := strings.CutPrefix(file, "-")
		all, err := environmentFile(name, map[string]bool{})
		if optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the environment file %q: %w", name, err)
		}
		out = append(out, all...)
	}
	for _, e := range o.Environment {
		out = append(out, [2]string{e.Name, e.Value})
	}
	return out, nil
}
