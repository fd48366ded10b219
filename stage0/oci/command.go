package oci

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appc"
)

// Command is what an app runs when its user gives a program (--exec) and
// arguments. For a converted image it is as with other tools of such images:
// arguments replace Cmd, a program replaces Entrypoint and Cmd. For an App
// Container image arguments are appended and a program replaces all of exec.
func Command(m *schema.ImageManifest, exec, args []string) ([]string, error) {
	if len(exec) > 0 {
		return slices.Concat(exec, args), nil
	}
	var own []string
	if m.App != nil {
		own = m.App.Exec
	}
	if len(args) == 0 || !appc.Converted(m) {
		return slices.Concat(own, args), nil
	}
	var entrypoint []string
	if text := appc.Annotation(m, AnnotationEntrypoint); text != "" {
		if err := json.Unmarshal([]byte(text), &entrypoint); err != nil {
			return nil, fmt.Errorf("image %q: annotation %q: %w", m.Name, AnnotationEntrypoint, err)
		}
	}
	return slices.Concat(entrypoint, args), nil
}
