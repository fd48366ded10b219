package oci

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/appc/spec/schema/types"
)

const (
	maxID         = 1<<32 - 2 // of users and groups; the one above means "none"
	maxVolumeName = 128
)

var (
	envName       = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	signalPattern = regexp.MustCompile(`^SIG(RTMIN(\+[0-9]{1,2})?|RTMAX(-[0-9]{1,2})?|[A-Z]{2,8}[12]?)$`)
)

// app makes the app section; a configuration that does not say what to run gives none.
func (c *converter) app() error {
	run := c.cfg.Run
	if run == nil {
		return nil
	}
	a := &types.App{Exec: slices.Concat(run.Entrypoint, run.Cmd)}
	if a.Exec == nil {
		a.Exec = types.Exec{}
	}
	var err error
	if a.User, a.Group, err = splitUser(run.User); err != nil {
		return err
	}
	c.set(AnnotationUser, run.User)
	if err := c.environment(a, run.Env); err != nil {
		return err
	}
	if run.WorkingDir != "" {
		a.WorkingDirectory = path.Clean("/" + run.WorkingDir)
	}
	c.volumes(a, run.Volumes)
	c.ports(a, run.ExposedPorts)
	if len(run.Labels) > 0 {
		a.UserLabels = maps.Clone(types.UserLabels(run.Labels))
	}
	if s := strings.ToUpper(run.StopSignal); s != "" {
		if _, err := strconv.Atoi(s); err != nil && !strings.HasPrefix(s, "SIG") {
			s = "SIG" + s
		}
		if validSignal(s) {
			c.set(AnnotationStopSignal, s)
		} else {
			c.warn("config.StopSignal", "%q is not a signal", clip(run.StopSignal))
		}
	}
	c.set(AnnotationHealthcheck, string(run.Healthcheck))
	c.out = a
	if err := c.setJSON(AnnotationEntrypoint, run.Entrypoint); err != nil {
		return err
	}
	return c.setJSON(AnnotationCmd, run.Cmd)
}

func validSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 1 && n <= 64
	}
	return signalPattern.MatchString(s)
}

// splitUser makes the app section's user and group of USER[:GROUP]. What is
// left open is filled in so that a stage1 which knows nothing of AnnotationUser
// comes close: gid 0 for a number, the group of the same name for a name.
func splitUser(text string) (user, group string, err error) {
	user, group, grouped := strings.Cut(text, ":")
	for _, s := range []string{user, group} {
		n, numErr := strconv.ParseUint(s, 10, 64)
		switch {
		case s == "":
		case strings.Trim(s, "0123456789") == "" && (numErr != nil || n > maxID):
			err = fmt.Errorf("user %q: %s is out of range", clip(text), clip(s))
		// A path would mean the owner of a file to App Container.
		case strings.ContainsAny(s, ":/ ") || len(s) > 256:
			err = fmt.Errorf("user %q: want USER[:GROUP], names or numbers", clip(text))
		}
	}
	number := strings.Trim(user, "0123456789") == ""
	if user == "" {
		user = "0"
	}
	switch {
	case group != "":
	case number || grouped:
		group = "0"
	default:
		group = user
	}
	return user, group, err
}

// environment sorts variables by whether App Container allows their names; of
// several with one name the last counts, at the place of the first.
func (c *converter) environment(a *types.App, env []string) error {
	values := map[string]string{}
	var names []string
	for _, kv := range env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			c.warn("config.Env", "%q is not NAME=VALUE", clip(kv))
			continue
		}
		if _, known := values[name]; !known {
			names = append(names, name)
		}
		values[name] = value
	}
	var others []string
	for _, name := range names {
		if envName.MatchString(name) {
			a.Environment = append(a.Environment, types.EnvironmentVariable{Name: name, Value: values[name]})
		} else {
			others = append(others, name+"="+values[name])
		}
	}
	return c.setJSON(AnnotationEnvironment, others)
}

func (c *converter) volumes(a *types.App, paths []string) {
	taken, seen, last := map[string]bool{}, map[string]bool{}, map[string]int{}
	for _, p := range paths {
		clean := path.Clean("/" + p)
		switch {
		case strings.ContainsFunc(p, control), len(p) > maxText, clean == "/":
			c.warn("config.Volumes", "%q cannot be a volume", clip(p))
			continue
		case seen[clean]:
			continue
		}
		seen[clean] = true
		base := acWord("volume-" + clean)
		name := base
		for taken[name] {
			last[base]++
			name = fmt.Sprintf("%s-%d", base, last[base])
		}
		taken[name] = true
		a.MountPoints = append(a.MountPoints, types.MountPoint{Name: types.ACName(name), Path: clean})
	}
	slices.SortFunc(a.MountPoints, func(x, y types.MountPoint) int { return cmp.Compare(x.Name, y.Name) })
}

// acWord makes text an App Container name.
func acWord(text string) string {
	word := strings.Map(func(r rune) rune {
		if strings.ContainsRune("._~/", r) {
			return '-'
		}
		return r
	}, text)
	word = acName(word, '-')
	return strings.TrimRight(word[:min(len(word), maxVolumeName)], "-")
}

func (c *converter) ports(a *types.App, exposed []string) {
	seen := map[types.Port]bool{}
	for _, text := range exposed {
		p, ok := parsePort(text)
		if !ok {
			c.warn("config.ExposedPorts", "%q is not PORT[-PORT][/PROTOCOL]", clip(text))
			continue
		}
		if !seen[p] {
			seen[p] = true
			a.Ports = append(a.Ports, p)
		}
	}
	slices.SortFunc(a.Ports, func(x, y types.Port) int {
		return cmp.Or(cmp.Compare(x.Port, y.Port), cmp.Compare(x.Count, y.Count), cmp.Compare(x.Protocol, y.Protocol))
	})
}

func parsePort(text string) (types.Port, bool) {
	numbers, protocol, given := strings.Cut(strings.ToLower(text), "/")
	if !given {
		protocol = "tcp"
	}
	from, to, ranged := strings.Cut(numbers, "-")
	if !ranged {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	ok := err1 == nil && err2 == nil && first > 0 && first <= last && slices.Contains([]string{"tcp", "udp", "sctp"}, protocol)
	name := fmt.Sprintf("%d-%s", first, protocol)
	if last > first {
		name = fmt.Sprintf("%d-%d-%s", first, last, protocol)
	}
	return types.Port{Name: types.ACName(name), Protocol: protocol, Port: uint(first), Count: uint(last - first + 1)}, ok
}
