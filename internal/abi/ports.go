package abi

import (
	"encoding/json"
	"fmt"

	"github.com/appc/spec/schema/types"
)

// AnnotationActivatedPorts of a pod lists, as JSON, ports of the host that a
// proxy answers: each like an entry of the manifest's ports, with its podPort.
// Such ports are not among the manifest's ports, since nothing forwards them.
const AnnotationActivatedPorts = "coreos.com/rkt/activated-ports"

// FormatActivatedPorts is the annotation's value.
func FormatActivatedPorts(ports []types.ExposedPort) (string, error) {
	b, err := json.Marshal(ports)
	return string(b), err
}

// ParseActivatedPorts reads the annotation; of an empty one there are none.
func ParseActivatedPorts(s string) ([]types.ExposedPort, error) {
	if s == "" {
		return nil, nil
	}
	var ports []types.ExposedPort
	if err := json.Unmarshal([]byte(s), &ports); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", AnnotationActivatedPorts, err)
	}
	for _, p := range ports {
		if p.PodPort == nil || p.PodPort.Port == 0 || p.PodPort.Port > 65535 || p.HostPort == 0 || p.HostPort > 65535 {
			return nil, fmt.Errorf("annotation %s: port %q lacks its number on the host or in the pod", AnnotationActivatedPorts, p.Name)
		}
	}
	return ports, nil
}
