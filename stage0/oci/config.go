package oci

import (
	"encoding/json"
	"fmt"
)

const (
	maxListed = 1 << 14 // elements of a list in a configuration
	maxWord   = 64      // bytes of an operating system's or architecture's name
)

// Config is what an image's configuration says, as far as it matters here.
type Config struct {
	Platform
	Created string
	Author  string
	Comment string
	DiffIDs []string
	// Run is nil when the configuration says nothing about what to run.
	Run *RunConfig
}

// RunConfig says how to run an image.
type RunConfig struct {
	User         string
	Env          []string
	Entrypoint   []string
	Cmd          []string
	WorkingDir   string
	Volumes      []string // sorted
	ExposedPorts []string // sorted
	Labels       map[string]string
	StopSignal   string
	Healthcheck  json.RawMessage // compact, members sorted; nil if there is none
}

// ParseConfig parses an image's configuration.
func ParseConfig(data []byte) (*Config, error) {
	c, err := parseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("parsing image configuration: %w", err)
	}
	return c, nil
}

func parseConfig(data []byte) (*Config, error) {
	v, err := decode(data, MaxConfig)
	if err != nil {
		return nil, err
	}
	r := &reader{}
	const at = "config"
	m := r.object(at, v, "os", "architecture", "variant", "created", "author", "comment", "rootfs", "config", "history")
	if m == nil {
		r.fail("the document", "not a JSON object")
		return nil, r.err
	}
	out := &Config{
		Platform: Platform{
			OS:           r.text(at, m, "os", maxWord),
			Architecture: r.text(at, m, "architecture", maxWord),
			Variant:      r.text(at, m, "variant", maxWord),
		},
		Created: r.text(at, m, "created", maxWord),
		Author:  r.str(at, m, "author"),
		Comment: r.str(at, m, "comment"),
	}
	fs := r.object("rootfs", m["rootfs"], "type", "diff_ids")
	if fs == nil {
		r.fail("rootfs", "missing")
	}
	if typ := r.text("rootfs", fs, "type", maxWord); typ != "layers" {
		r.fail("rootfs.type", "%q, want %q", typ, "layers")
	}
	out.DiffIDs = r.strs("rootfs", fs, "diff_ids", MaxLayers)
	for i, id := range out.DiffIDs {
		if _, err := ParseDigest(id); err != nil {
			r.fail(fmt.Sprintf("rootfs.diff_ids[%d]", i), "%w", err)
		}
	}
	out.Run = r.run(m["config"])
	switch {
	case r.err != nil:
		return nil, r.err
	case out.OS == "":
		return nil, fmt.Errorf("it names no operating system (os)")
	case out.Architecture == "":
		return nil, fmt.Errorf("it names no architecture")
	}
	return out, nil
}

func (r *reader) run(v any) *RunConfig {
	const at = "config"
	c := r.object(at, v, "User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Volumes", "ExposedPorts", "Labels", "StopSignal", "Healthcheck")
	if c == nil {
		return nil
	}
	out := &RunConfig{
		User:         r.text(at, c, "User", maxText),
		Env:          r.strs(at, c, "Env", maxListed),
		Entrypoint:   r.strs(at, c, "Entrypoint", maxListed),
		Cmd:          r.strs(at, c, "Cmd", maxListed),
		WorkingDir:   r.text(at, c, "WorkingDir", maxText),
		Volumes:      r.keys(at, c, "Volumes", maxListed),
		ExposedPorts: r.keys(at, c, "ExposedPorts", maxListed),
		Labels:       r.stringMap(at, c, "Labels", maxListed),
		StopSignal:   r.text(at, c, "StopSignal", maxWord),
	}
	if h := r.object(at+".Healthcheck", c["Healthcheck"]); len(h) > 0 {
		b, err := json.Marshal(h)
		if err != nil {
			r.fail(at+".Healthcheck", "%w", err)
		}
		out.Healthcheck = b
	}
	return out
}
