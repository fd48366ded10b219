package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/stage0/prepare"
)

// spec turns the command line into a description of the pod.
func (a *app) spec(g *grammar, po *podOptions) (*prepare.PodSpec, error) {
	p := &prepare.PodSpec{UID: os.Getuid(), GID: os.Getgid()}
	for _, v := range po.volumes {
		vol, owner, err := parseVolume(v)
		if err != nil {
			return nil, fmt.Errorf("--volume %q: %w", v, err)
		}
		if owner != "" {
			if p.Owners == nil {
				p.Owners = map[string]string{}
			}
			p.Owners[vol.Name.String()] = owner
		}
		for _, have := range p.Volumes {
			if have.Name == vol.Name {
				return nil, fmt.Errorf("duplicate volume name %q", vol.Name)
			}
		}
		p.Volumes = append(p.Volumes, *vol)
	}
	for _, v := range po.ports {
		port, err := parsePort(v)
		if err != nil {
			return nil, err
		}
		p.Ports = append(p.Ports, port)
	}
	var err error
	if p.Environment, err = environment(po); err != nil {
		return nil, err
	}
	if po.inheritEnv {
		for _, kv := range a.Environ {
			if k, v, ok := strings.Cut(kv, "="); ok {
				p.Inherited = append(p.Inherited, [2]string{k, v})
			}
		}
	}
	for _, ia := range g.apps {
		s := prepare.AppSpec{Name: ia.name, Args: ia.args, User: ia.user, Group: ia.group, SupplementaryGIDs: ia.groups,
			WorkingDirectory: ia.workingDir, Environment: ia.environment, ReadOnlyRootFS: ia.readOnly, Mounts: ia.mounts,
			Annotations: ia.annotations, UserAnnotations: ia.userAnnotations, UserLabels: ia.userLabels}
		if ia.exec != "" {
			s.Exec = []string{ia.exec}
		}
		if s.Isolators, err = ia.isolators(); err != nil {
			return nil, err
		}
		p.Apps = append(p.Apps, s)
	}
	return p, nil
}

// parseVolume reads --volume: the form that appc defines, and an owner.
func parseVolume(text string) (*types.Volume, string, error) {
	var rest []string
	owner := ""
	for part := range strings.SplitSeq(text, ",") {
		v, ok := strings.CutPrefix(part, "owner=")
		if !ok {
			rest = append(rest, part)
			continue
		}
		if owner != "" {
			return nil, "", errors.New("the owner is given twice")
		}
		if err := abi.CheckOwner(v); err != nil {
			return nil, "", err
		}
		owner = v
	}
	vol, err := types.VolumeFromString(strings.Join(rest, ","))
	if err == nil && owner != "" && vol.Kind != "host" {
		err = errors.New("only a volume of kind host has an owner; an empty one has uid and gid")
	}
	return vol, owner, err
}

func (ia *appArgs) isolators() (types.Isolators, error) {
	var list []map[string]any
	add := func(name string, value any) { list = append(list, map[string]any{"name": name, "value": value}) }
	if ia.memory != "" {
		r, err := types.NewResourceMemoryIsolator(ia.memory, ia.memory)
		if err != nil {
			return nil, fmt.Errorf("--memory %q: %w", ia.memory, err)
		}
		if r.Limit().Value() < 4096 {
			return nil, fmt.Errorf("--memory %q is less than a page; \"m\" means a thousandth, write M or Mi", ia.memory)
		}
		add("resource/memory", map[string]string{"request": ia.memory, "limit": ia.memory})
	}
	if ia.cpu != "" {
		add("resource/cpu", map[string]string{"request": ia.cpu, "limit": ia.cpu})
	}
	if ia.set["cpu-shares"] {
		add("os/linux/cpu-shares", ia.cpuShares)
	}
	if ia.set["oom-score-adj"] {
		add("os/linux/oom-score-adj", ia.oomScore)
	}
	if ia.capsRetain != nil && ia.capsRemove != nil {
		return nil, fmt.Errorf("image %q: --caps-retain and --caps-remove exclude each other", ia.image)
	}
	if ia.capsRetain != nil {
		add("os/linux/capabilities-retain-set", map[string]any{"set": ia.capsRetain})
	}
	if ia.capsRemove != nil {
		add("os/linux/capabilities-remove-set", map[string]any{"set": ia.capsRemove})
	}
	if c := ia.seccomp; c != nil {
		value := map[string]any{"set": c.set}
		if c.errno != "" {
			value["errno"] = c.errno
		}
		add("os/linux/seccomp-"+c.mode+"-set", value)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	return prepare.ParseIsolators(b)
}

// environmentFile reads NAME=VALUE lines; none may set a name that was seen.
// An error says where, not what: many readers of the journal may not read the file.
func environmentFile(file string, seen map[string]bool) ([][2]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out [][2]string
	for n, line := range strings.Split(string(b), "\n") {
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%s:%d: the line is not NAME=VALUE (a value has one line, without quotes)", file, n+1)
		}
		if seen[k] {
			return nil, fmt.Errorf("%s:%d: the line sets a name again", file, n+1)
		}
		seen[k] = true
		out = append(out, [2]string{k, v})
	}
	return out, nil
}

func environment(po *podOptions) ([][2]string, error) {
	var out [][2]string
	seen := map[string]bool{}
	for _, file := range po.setEnvFile {
		all, err := environmentFile(file, seen)
		if err != nil {
			return nil, fmt.Errorf("--set-env-file: %w", err)
		}
		out = append(out, all...)
	}
	seen = map[string]bool{}
	for _, kv := range po.setEnv {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--set-env %q is not NAME=VALUE", kv)
		}
		if seen[k] {
			return nil, fmt.Errorf("--set-env sets %q twice", k)
		}
		seen[k] = true
		out = append(out, [2]string{k, v})
	}
	return out, nil
}
