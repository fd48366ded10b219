package appc

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/appc/spec/schema"
)

// Annotations of images that were converted from OCI or Docker images, and that
// say what the app section cannot; stage0/oci writes them and tells what they
// mean.
const (
	AnnotationDockerRepository  = "appc.io/docker/repository" // on every converted image and on no other
	AnnotationDockerUser        = "appc.io/docker/user"
	AnnotationDockerEnvironment = "appc.io/docker/environment"
	AnnotationDockerStopSignal  = "appc.io/docker/stopsignal"
	AnnotationDockerHealthcheck = "appc.io/docker/healthcheck"
)

// Converted says whether an image came from an OCI or Docker image.
func Converted(m *schema.ImageManifest) bool { return Annotation(m, AnnotationDockerRepository) != "" }

// DockerUser is the user of a converted image whose groups are to be found in
// the image's own files, "" if the app section says it all.
func DockerUser(m *schema.ImageManifest) string {
	if user := Annotation(m, AnnotationDockerUser); Converted(m) && !strings.Contains(user, ":") {
		return user
	}
	return ""
}

// ExtraEnvironment is what a converted image sets under names that the app
// section cannot hold, NAME=VALUE.
func ExtraEnvironment(m *schema.ImageManifest) ([]string, error) {
	text := Annotation(m, AnnotationDockerEnvironment)
	if text == "" || !Converted(m) {
		return nil, nil
	}
	var env []string
	if err := json.Unmarshal([]byte(text), &env); err != nil {
		return nil, fmt.Errorf("image %q: annotation %q: %w", m.Name, AnnotationDockerEnvironment, err)
	}
	for _, kv := range env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" || strings.ContainsRune(kv, 0) {
			return nil, fmt.Errorf("image %q: annotation %q: bad variable %.100q", m.Name, AnnotationDockerEnvironment, kv)
		}
	}
	return env, nil
}
