package oci

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appc"
)

// Converted says whether an image came from an OCI or Docker image.
func Converted(m *schema.ImageManifest) bool {
	return appc.Annotation(m, AnnotationRepository) != ""
}

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
	if len(args) == 0 || !Converted(m) {
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

// ExtraEnvironment is what the image sets under names that the app section
// cannot hold, NAME=VALUE.
func ExtraEnvironment(m *schema.ImageManifest) ([]string, error) {
	text := appc.Annotation(m, AnnotationEnvironment)
	if text == "" {
		return nil, nil
	}
	var env []string
	if err := json.Unmarshal([]byte(text), &env); err != nil {
		return nil, fmt.Errorf("image %q: annotation %q: %w", m.Name, AnnotationEnvironment, err)
	}
	return env, nil
}
