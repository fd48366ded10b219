package quadlet

import (
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// container is an app that is being made: what several keys say together.
type container struct {
	c   *converter
	u   *unit
	t   *target
	app podjson.App

	entrypoint, exec []string
	add, drop        []string
	readOnly         bool
	noTmpfs          bool
	health           map[string]any
	shared           bool // of a pod with others
}

func (c *converter) container(u *unit) error {
	name := u.stem
	k := &container{c: c, u: u, health: map[string]any{}}
	if pod := u.get("Container", "Pod"); pod != "" {
		k.shared, name = true, c.units[pod].stem
	}
	k.t = c.pods[name]
	k.app.Name = podimport.ACName(strings.TrimSuffix(u.stem, "@"))
	if prefix, _, ok := strings.Cut(u.stem, "@"); ok {
		k.app.Name = podimport.ACName(prefix)
	}
	if k.shared && slices.ContainsFunc(k.t.apps, func(o *container) bool { return o.app.Name == k.app.Name }) {
		return fmt.Errorf("%s: another container of %s becomes the app %q, too; rename one", u.path, k.t.unit.file, k.app.Name)
	}
	k.t.apps = append(k.t.apps, k)
	for _, e := range u.entries {
		if e.section != "Container" {
			continue
		}
		e.value = c.text(u, e)
		if err := k.key(e); err != nil {
			c.note(podimport.Dropped, e, "it cannot be read: %v", err)
		}
	}
	if k.app.Image == nil {
		return fmt.Errorf("%s: [Container] has no Image=", u.path)
	}
	k.done()
	return nil
}

// note adds a line of the report.
func (k *container) note(level podimport.Level, e entry, format string, args ...any) {
	k.c.note(level, e, format, args...)
}

// rkt returns the pod's options.
func (k *container) rkt() *podjson.Options { return podimport.Rkt(k.t.pod) }

// service sets a directive of the app's unit.
func (k *container) service(key, value string) {
	podimport.Systemd(&k.app.Systemd).Service.Set(key, value)
}

// key handles a key of [Container].
func (k *container) key(e entry) error {
	for _, handle := range []func(entry) (bool, error){k.program, k.options, k.confinement, k.network, k.storage, k.healthKey, k.bound} {
		if done, err := handle(e); done || err != nil {
			return err
		}
	}
	k.note(podimport.Dropped, e, "the key is not known")
	return nil
}

// program handles what is run: the image, the command, its environment.
func (k *container) program(e entry) (bool, error) {
	switch e.key {
	case "Image":
		k.image(e)
	case "Rootfs":
		dir, _, _ := strings.Cut(e.value, ":")
		k.app.Image = dir
		k.note(podimport.Todo, e, "a directory is no image: make one of it (tar it as an ACI or OCI layout) and name that")
	case "Exec":
		words, err := k.substituted(e)
		k.exec = words
		return true, err
	case "Entrypoint":
		if strings.HasPrefix(e.value, "[") {
			return true, json.Unmarshal([]byte(e.value), &k.entrypoint)
		}
		if strings.ContainsAny(e.value, " \t\"'") {
			words, err := e.words()
			k.entrypoint = words
			return true, err
		}
		k.entrypoint = []string{e.value}
	case "Environment":
		words, err := e.words()
		var secrets []string
		for _, w := range words {
			name, value, ok := strings.Cut(w, "=")
			if !ok {
				k.note(podimport.Dropped, e, "%q takes over a variable of podman's own environment; write NAME=VALUE", w)
				continue
			}
			k.app.Environment.Set(name, value)
			if podimport.Secret(name, value) {
				secrets = append(secrets, name)
			}
		}
		if len(secrets) > 0 {
			k.t.secret = true
			k.note(podimport.Changed, e, "%s", podimport.InFile(secrets))
		}
		return true, err
	case "EnvironmentFile":
		p := e.value
		optional := strings.HasPrefix(p, "-")
		p = strings.TrimPrefix(p, "-")
		if !strings.HasPrefix(p, "/") {
			p = k.beside(e, p)
		}
		if optional {
			p = "-" + p
		}
		k.rkt().EnvironmentFiles = append(k.rkt().EnvironmentFiles, p)
		if k.shared {
			k.note(podimport.Changed, e, "a file of variables is for all apps of the pod")
		}
	case "EnvironmentHost":
		if isTrue(e.value) {
			k.note(podimport.Dropped, e, "apps never have the host's environment; name the variables in \"environment\"")
		}
	case "User":
		user, group, ok := strings.Cut(e.value, ":")
		k.app.User = user
		if ok {
			k.app.Group = group
		}
	case "Group":
		k.app.Group = e.value
	case "GroupAdd":
		for _, g := range strings.Fields(e.value) {
			n, err := strconv.Atoi(g)
			if err != nil {
				k.note(podimport.Dropped, e, "%q: only numbers can be in \"supplementaryGIDs\"", g)
				continue
			}
			k.app.SupplementaryGIDs = append(k.app.SupplementaryGIDs, n)
		}
	case "WorkingDir":
		k.app.WorkingDirectory = e.value
	case "Timezone":
		return true, k.timezone(e)
	default:
		return false, nil
	}
	return true, nil
}

func (k *container) image(e entry) {
	ref := e.value
	if u := k.c.units[ref]; u != nil {
		switch u.kind {
		case "image":
			ref, _ = u.expand(u.get("Image", "Image"))
		case "build":
			ref, _ = u.expand(u.get("Build", "ImageTag"))
		}
	} else if strings.HasSuffix(ref, ".image") || strings.HasSuffix(ref, ".build") {
		k.note(podimport.Todo, e, "%s is not among the files; write the image that it stands for", ref)
	}
	for _, transport := range []string{"containers-storage:", "docker-daemon:", "dir:"} {
		if strings.HasPrefix(ref, transport) {
			k.note(podimport.Todo, e, "rkt has no %s: copy the image (skopeo copy %s oci-archive:FILE) and name oci-archive:FILE", transport, ref)
			ref = ref[len(transport):]
		}
	}
	full, assumed := podimport.Image(ref)
	if strings.Contains(ref, "$") {
		k.note(podimport.Todo, e, "variables are not replaced in an image's name")
	}
	k.app.Image = full
	switch {
	case strings.HasPrefix(ref, "localhost/"):
		k.note(podimport.Todo, e, "the image is in podman's own store: podman save --format oci-archive -o FILE %s, and \"image\": \"oci-archive:FILE\"; or push it to a registry", ref)
	case assumed:
		k.note(podimport.Changed, e, "%q is taken from Docker Hub; write the whole name if podman has it from elsewhere", ref)
	}
}

// substituted splits a command line as systemd does, with its variables: a word
// $NAME becomes the words of the value, ${NAME} and $$ are replaced anywhere; see
// "COMMAND LINES" in systemd.service(5).
func (k *container) substituted(e entry) ([]string, error) {
	words, err := e.words()
	vars := k.serviceVariables()
	var out []string
	for _, w := range words {
		var missing []string
		if name, ok := strings.CutPrefix(w, "$"); ok && name != "" && name[0] != '{' && name[0] != '$' {
			value, ok := vars[name]
			split, err := unitfile.SplitWords(value)
			if ok && err == nil {
				out = append(out, split...)
				continue
			}
			missing = append(missing, w)
		}
		w = variable().ReplaceAllStringFunc(w, func(m string) string {
			if m == "$$" {
				return "$"
			}
			if value, ok := vars[strings.Trim(m, "${}")]; ok {
				return value
			}
			missing = append(missing, m)
			return m
		})
		if len(missing) > 0 {
			k.note(podimport.Todo, e, "systemd would replace %s by variables of the unit: write what they stand for, or run a shell", strings.Join(missing, " "))
		}
		out = append(out, w)
	}
	return out, err
}

// serviceVariables are those of Environment= in [Service], the last of a name.
func (k *container) serviceVariables() map[string]string {
	vars := map[string]string{}
	for _, v := range k.u.entries {
		if v.section != "Service" || v.key != "Environment" {
			continue
		}
		set, _ := unitfile.SplitWords(v.value)
		for _, kv := range set {
			kv, _ = k.u.expand(kv)
			if name, value, ok := strings.Cut(kv, "="); ok {
				vars[name] = value
			}
		}
	}
	return vars
}

func variable() *regexp.Regexp {
	return regexp.MustCompile(`\$\$|\$\{[A-Za-z_][A-Za-z0-9_]*\}`)
}

// beside makes a path absolute: it is relative to the unit's directory.
func (k *container) beside(e entry, p string) string {
	abs, err := filepath.Abs(filepath.Join(filepath.Dir(e.path), p))
	if err != nil {
		return "/" + p
	}
	return abs
}

func (k *container) timezone(e entry) error {
	source := "/etc/localtime"
	if e.value != "local" {
		if path.Clean("/"+e.value) != "/"+e.value {
			return fmt.Errorf("%q is no time zone", e.value)
		}
		source = "/usr/share/zoneinfo/" + e.value
	}
	yes := true
	v := podimport.Volume(k.t.pod, "localtime", podjson.Volume{Kind: "host", Source: source, ReadOnly: &yes})
	podimport.Mount(&k.app, v, "/etc/localtime")
	return nil
}

// options handles how the container is run.
func (k *container) options(e entry) (bool, error) {
	switch e.key {
	case "Pod", "ServiceName": // seen to when units were read
	case "ContainerName":
		k.name(e, e.value)
	case "AutoUpdate":
		switch {
		case e.value != "registry" && e.value != "local":
			k.note(podimport.Dropped, e, "%q is no policy of updates", e.value)
			return true, nil
		case k.shared:
			k.app.Update = e.value
		default:
			k.rkt().Update = e.value
		}
		k.note(podimport.Changed, e, "rkt-update.timer takes the place of podman-auto-update.timer: systemctl enable --now rkt-update.timer")
	case "Pull":
		policy := map[string]string{"always": "update", "newer": "update", "missing": "new", "never": "never"}[e.value]
		if policy == "" {
			return true, fmt.Errorf("%q is no policy", e.value)
		}
		k.rkt().PullPolicy = policy
	case "Notify":
		switch {
		case e.value == "healthy":
			k.rkt().Ready = "healthy"
		case isTrue(e.value):
			k.service("Type", "notify")
		}
	case "StopSignal":
		k.service("KillSignal", signal(e.value))
	case "StopTimeout":
		d, err := grace(e.value)
		if err != nil {
			return true, err
		}
		podimport.StopGrace(&podimport.Systemd(&k.t.pod.Systemd).Service, &podimport.Systemd(&k.app.Systemd).Service, d)
	case "ReloadSignal":
		k.service("ReloadSignal", signal(e.value))
	case "ReloadCmd":
		cmd := e.value
		if !strings.HasPrefix(cmd, "/") { // a unit wants a path
			cmd = "/bin/sh -c " + quote("exec "+cmd)
		}
		k.service("ExecReload", cmd)
	case "Label", "Annotation":
		words, err := e.words()
		for _, w := range words {
			name, value, _ := strings.Cut(w, "=")
			if e.key == "Label" && name == "io.containers.autoupdate" {
				return k.options(entry{e.section, "AutoUpdate", value, e.path, e.line})
			}
			if strings.HasPrefix(name, "traefik.") || strings.HasPrefix(name, "caddy") {
				k.note(podimport.Todo, e, "%s configures a proxy by podman's or Docker's API, which is not there: write the route into the proxy's own configuration", name)
			}
			if k.t.pod.UserAnnotations == nil {
				k.t.pod.UserAnnotations = map[string]string{}
			}
			k.t.pod.UserAnnotations[name] = value
		}
		return true, err
	case "LogDriver":
		switch e.value {
		case "journald", "passthrough", "passthrough-tty":
		case "none":
			k.app.Stdout, k.app.Stderr = "null", "null"
		default:
			k.note(podimport.Changed, e, "the app's lines go to the journal: rkt logs, journalctl -u rkt@%s", k.t.name)
		}
	case "LogOpt":
		k.note(podimport.Dropped, e, "see journald.conf(5), or \"logNamespace\" for a journal with limits of its own")
	case "RunInit":
		if isTrue(e.value) {
			k.note(podimport.Changed, e, "not needed: the pod has an init that collects processes")
		}
	case "StartWithPod":
		if !isTrue(e.value) {
			k.note(podimport.Dropped, e, "all apps of a pod start with it; an app to be started later needs a pod file of its own")
		}
	case "HttpProxy":
		if isTrue(e.value) {
			k.note(podimport.Dropped, e, "the host's proxy variables are not taken over; put them into \"environment\"")
			break
		}
		k.note(podimport.Changed, e, "apps never have the host's proxy variables")
	case "CgroupsMode":
		k.note(podimport.Dropped, e, "pods always have a control group of their own, below their unit")
	case "ContainersConfModule":
		k.note(podimport.Dropped, e, "what the module of containers.conf(5) sets has to be in the pod file")
	case "GlobalArgs":
		k.note(podimport.Dropped, e, "options of podman itself")
	case "Retry", "RetryDelay":
		k.note(podimport.Dropped, e, "fetches are tried again by rkt, and by Restart= of the unit")
	case "PodmanArgs":
		return true, k.flags(e)
	default:
		return false, nil
	}
	return true, nil
}

// name is a name by which other containers of a network find this one.
func (k *container) name(e entry, name string) {
	o := k.rkt()
	switch {
	case name == k.t.name || name == o.Hostname:
	case o.Hostname == "" && k.hostName(name):
		o.Hostname = name
	default:
		k.note(podimport.Changed, e, "a pod has two names, its own (%s) and one host name (%s): others do not find it as %q", k.t.name, o.Hostname, name)
	}
}

// hostName says that a pod can have it; of a template it has specifiers.
func (k *container) hostName(s string) bool {
	if k.u.instanced() {
		s = strings.NewReplacer("%i", "i", "%p", "p").Replace(s)
	}
	return hostName().MatchString(s)
}

func hostName() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)
}

func isTrue(s string) bool {
	return slices.Contains([]string{"1", "yes", "true", "on", "y", "t"}, strings.ToLower(s))
}

// grace reads how long podman waits for a container to stop.
func grace(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of seconds", s)
	}
	return time.Duration(n) * time.Second, nil
}

func signal(s string) string {
	if n, err := strconv.Atoi(s); err == nil {
		return strconv.Itoa(n)
	}
	return "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
}

// done puts together what several keys said.
func (k *container) done() {
	switch {
	case k.entrypoint != nil:
		k.app.Exec = append(k.entrypoint, k.exec...)
	default:
		k.app.Args = k.exec
	}
	if name, set := podimport.Capabilities(k.add, k.drop); name != "" {
		podimport.Isolator(&k.app.Isolators, name, map[string]any{"set": set})
	}
	if k.readOnly {
		k.app.ReadOnlyRootFS = true
		if !k.noTmpfs {
			for _, dir := range []string{"/tmp", "/var/tmp", "/run"} {
				if !k.mounted(dir) {
					k.scratch(dir, "1777")
				}
			}
		}
	}
	k.healthDone()
	if k.app.User != "" && k.app.Group == "" && k.app.User != "root" && k.app.User != "0" {
		k.note(podimport.Changed, entry{"Container", "User", "", k.u.path, k.line("User")}, "without Group= the group is the image's, podman takes that of the user in /etc/passwd")
	}
}

func (k *container) line(key string) int {
	for _, e := range slices.Backward(k.u.entries) {
		if e.section == "Container" && e.key == key {
			return e.line
		}
	}
	return 0
}
