package compose

import (
	"fmt"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// service is a service that is becoming an app.
type service struct {
	*unit
	c     *converter
	name  string
	first bool // the pod is this service's
	conf  *types.ServiceConfig
	app   podjson.App
	iso   []isolator
	// unitD and serviceD are directives of the app's own unit.
	unitD, serviceD podjson.Values
}

func (s *service) note(level podimport.Level, key, format string, args ...any) {
	s.c.note(level, "services."+s.name+"."+key, format, args...)
}

// convert fills the app, and the pod as far as it is this service's affair.
func (s *service) convert() error {
	s.app.Name = podimport.ACName(s.name)
	for _, a := range s.file.Apps {
		if a.Name == s.app.Name {
			return fmt.Errorf("another service of the pod would have the name %q, too", a.Name)
		}
	}
	handlers := s.handlers()
	v := reflect.ValueOf(*s.conf)
	for _, f := range fields(v.Type()) {
		value := v.FieldByIndex(f.index)
		if isZero(value) {
			continue
		}
		handle, ok := handlers[f.key]
		if !ok {
			s.note(podimport.Dropped, f.key, "rkt does not know this key")
			continue
		}
		if handle == nil {
			continue
		}
		if err := handle(); err != nil {
			return fmt.Errorf("%s: %w", f.key, err)
		}
	}
	s.command()
	s.resources()
	s.capabilities()
	s.restart()
	s.network()
	s.readiness()
	var err error
	if s.app.Isolators, err = isolators(s.iso); err != nil {
		return err
	}
	if s.app.Systemd = (&podjson.Systemd{Unit: s.unitD, Service: s.serviceD}); s.app.Systemd.Empty() {
		s.app.Systemd = nil
	}
	return nil
}

// readiness makes others wait for the app's health, if they asked for that.
func (s *service) readiness() {
	switch {
	case !s.c.healthy[s.name]:
	case string(s.app.Health) == "false":
		s.note(podimport.Dropped, "healthcheck", "others wait for its health, and there is no check: they wait for its start")
	default:
		s.file.Rkt.Ready = "healthy"
	}
}

type field struct {
	key   string
	index []int
}

// fields are the keys that a service can have, those of embedded structures with it.
func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("yaml")
		name, _, _ := strings.Cut(tag, ",")
		if strings.Contains(tag, ",inline") && f.Anonymous {
			for _, sub := range fields(f.Type) {
				out = append(out, field{sub.key, append([]int{i}, sub.index...)})
			}
			continue
		}
		if name == "" || name == "-" || strings.HasPrefix(name, "#") {
			continue
		}
		out = append(out, field{name, []int{i}})
	}
	sort.SliceStable(out, func(a, b int) bool { return out[a].key < out[b].key })
	return out
}

// isZero says that a key was not given; an empty command is one that was.
func isZero(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice:
		return v.IsNil()
	case reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}

// handlers says for each key who carries it over; nil: all of them together do
// (command, resources, capabilities, restart, network), or the whole project.
func (s *service) handlers() map[string]func() error {
	c := s.conf
	word := func(dst *string, value string) func() error {
		return func() error { *dst = value; return nil }
	}
	dropped := func(key, format string, args ...any) func() error {
		return func() error { s.note(podimport.Dropped, key, format, args...); return nil }
	}
	changed := func(key, format string, args ...any) func() error {
		return func() error { s.note(podimport.Changed, key, format, args...); return nil }
	}
	return map[string]func() error{
		"name":           nil,
		"container_name": nil, // names
		"scale":          nil,
		"provider":       nil,
		"profiles":       nil, // it is on, or would not be here
		"extends":        nil, // done by compose-go

		"image":       s.image,
		"build":       s.build,
		"dockerfile":  dropped("dockerfile", "see build"),
		"pull_policy": s.pull,
		"platform":    s.platform,
		"command":     nil, // command
		"entrypoint":  nil,
		"environment": s.environment,
		"env_file":    s.envFiles,
		"user":        s.user,
		"group_add":   s.groups,
		"working_dir": word(&s.app.WorkingDirectory, c.WorkingDir),
		"read_only":   func() error { s.app.ReadOnlyRootFS = c.ReadOnly; return nil },
		"labels":      s.labels,
		"annotations": s.annotations,
		"label_file":  dropped("label_file", "the files are not read; write the labels into labels"),
		"healthcheck": s.health,
		"depends_on":  s.depends,
		"tty": func() error {
			s.note(podimport.Dropped, "tty", "the app has no terminal; if it needs one, set stdout to tty and use rkt attach")
			return nil
		},
		"stdin_open":  dropped("stdin_open", "the app has no input; if it needs one, set stdin to stream and use rkt attach"),
		"logging":     s.logging,
		"log_driver":  dropped("log_driver", "what the app writes goes to the journal"),
		"log_opt":     dropped("log_opt", "what the app writes goes to the journal; see journald.conf(5)"),
		"init":        changed("init", "not needed: the pod has an init, which reaps what the app leaves behind"),
		"stop_signal": s.stopSignal,
		"attach":      changed("attach", "what the app writes goes to the journal: rkt logs"),
		"develop":     dropped("develop", "rkt does not watch sources; build the image anew and restart the pod"),
		"pre_start":   dropped("pre_start", "commands before the start are not carried over; use depends_on with service_completed_successfully, or an event handler of the app section"),
		"post_start":  dropped("post_start", "commands after the start are not carried over; put them into the image's start script"),
		"pre_stop":    dropped("pre_stop", "commands before the stop are not carried over; let the program act on its stop signal"),
		"models":      dropped("models", "models are run by Docker itself"),
		"deploy":      s.deploy,
		"umask":       func() error { s.serviceD.Add("UMask", fmt.Sprintf("%04o", *c.Umask&0o777)); return nil },
		"oom_score_adj": func() error {
			s.serviceD.Add("OOMScoreAdjust", strconv.FormatInt(min(max(c.OomScoreAdj, -1000), 1000), 10))
			return nil
		},
		"stop_grace_period": s.stopGrace,

		"volumes":       s.mounts,
		"volumes_from":  s.volumesFrom,
		"tmpfs":         s.tmpfs,
		"configs":       s.configs,
		"secrets":       s.secrets,
		"devices":       s.devices,
		"shm_size":      dropped("shm_size", "/dev/shm has no size of its own in rkt; bound the app's memory by mem_limit, with which it counts"),
		"storage_opt":   dropped("storage_opt", "an app's root has no size of its own"),
		"volume_driver": dropped("volume_driver", "volumes are directories of the host"),

		"ports":          s.publish,
		"expose":         s.expose,
		"networks":       nil, // network
		"network_mode":   nil,
		"net":            dropped("net", "an old word for network_mode: write that"),
		"links":          nil, // depends_on and names of the network
		"external_links": dropped("external_links", "other projects' pods are found by their names in a common network"),
		"mac_address":    nil,
		"hostname":       nil,
		"domainname":     s.domain,
		"dns":            nil,
		"dns_search":     nil,
		"dns_opt":        nil,
		"extra_hosts":    s.extraHosts,

		"cap_add":             nil, // capabilities
		"cap_drop":            nil,
		"privileged":          nil,
		"security_opt":        s.security,
		"userns_mode":         s.userns,
		"ipc":                 s.ipc,
		"pid":                 dropped("pid", "the pod has process IDs of its own, which its apps share"),
		"uts":                 dropped("uts", "the pod has a host name of its own: hostname"),
		"cgroup":              dropped("cgroup", "the pod has a control group name space of its own"),
		"cgroup_parent":       s.slice,
		"sysctls":             s.sysctls,
		"ulimits":             s.ulimits,
		"device_cgroup_rules": dropped("device_cgroup_rules", "write DeviceAllow= into systemd.service of the pod file, see systemd.resource-control(5)"),
		"gpus":                dropped("gpus", "rkt knows no GPUs: give the pod their device nodes and libraries as volumes of the host"),
		"runtime":             dropped("runtime", "apps are run by systemd-nspawn"),
		"isolation":           dropped("isolation", "of Windows"),
		"credential_spec":     dropped("credential_spec", "of Windows"),
		"use_api_socket":      dropped("use_api_socket", "there is no Docker to talk to"),

		"cpus":             nil, // resources
		"cpu_quota":        nil,
		"cpu_period":       nil,
		"cpu_shares":       nil,
		"cpuset":           nil,
		"cpu_count":        dropped("cpu_count", "of Windows; use cpus"),
		"cpu_percent":      dropped("cpu_percent", "of Windows; use cpus"),
		"cpu_rt_period":    dropped("cpu_rt_period", "systemd has no time slices of real-time processes; see CPUSchedulingPolicy="),
		"cpu_rt_runtime":   dropped("cpu_rt_runtime", "systemd has no time slices of real-time processes; see CPUSchedulingPolicy="),
		"mem_limit":        nil,
		"mem_reservation":  nil,
		"memswap_limit":    nil,
		"mem_swappiness":   dropped("mem_swappiness", "not of control groups any more; see MemorySwapMax="),
		"oom_kill_disable": dropped("oom_kill_disable", "nothing of the kind with control groups v2; see OOMScoreAdjust="),
		"pids_limit":       nil,
		"blkio_config":     s.blkio,

		"restart":            nil, // restart
		"pull_refresh_after": dropped("pull_refresh_after", "write a policy into rkt.update, and let rkt-update.timer look"),
	}
}

// domain is the local domain of the pod's resolv.conf.
func (s *service) domain() error {
	if s.first && s.file.Rkt.DNSDomain == "" {
		s.file.Rkt.DNSDomain = s.conf.DomainName
		s.note(podimport.Changed, "domainname", "it is the local domain in resolv.conf (rkt.dnsDomain), not a part of the host name")
		return nil
	}
	s.note(podimport.Dropped, "domainname", "the pod is that of another service")
	return nil
}

// reference is an image's name in full, as docker would complete it.
func reference(image string) (string, bool) {
	if image == "" || strings.ContainsAny(image, " \t\n\"'\\") || strings.HasPrefix(image, "-") || strings.Contains(":@/", image[len(image)-1:]) {
		return "", false
	}
	host, rest, found := strings.Cut(image, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = "docker.io", image
		if !found {
			rest = "library/" + image
		}
	}
	last := rest[strings.LastIndexByte(rest, '/')+1:]
	if !strings.ContainsAny(last, ":@") {
		rest += ":latest"
	}
	return "docker://" + host + "/" + rest, true
}

func (s *service) image() error {
	ref, ok := reference(s.conf.Image)
	if !ok {
		return fmt.Errorf("%q is no name of an image", s.conf.Image)
	}
	s.app.Image = ref
	return nil
}

func (s *service) build() error {
	if s.conf.Image == "" {
		s.app.Image = "docker://localhost/" + s.c.p.Name + "-" + strings.ToLower(s.name) + ":latest"
	} else if err := s.image(); err != nil {
		return err
	}
	s.note(podimport.Todo, "build", "rkt builds no images: build it from %q with buildah or another tool, push it to a registry or write it to an OCI archive, and make apps[].image of %s.json name it (now %s)",
		s.conf.Build.Context, s.unit.name, s.app.Image)
	return nil
}

func (s *service) pull() error {
	switch p := s.conf.PullPolicy; {
	case p == types.PullPolicyAlways:
		s.pullPolicy("update")
	case p == types.PullPolicyNever:
		s.pullPolicy("never")
	case p == types.PullPolicyMissing || p == types.PullPolicyIfNotPresent:
	case p == types.PullPolicyBuild:
		s.note(podimport.Dropped, "pull_policy", "rkt builds no images; see build")
	default:
		s.file.Rkt.Update = "registry"
		s.note(podimport.Changed, "pull_policy", "%q: the pod is updated whenever rkt-update.timer runs (rkt.update)", p)
	}
	return nil
}

func (s *service) pullPolicy(want string) {
	if have := s.file.Rkt.PullPolicy; have != "" && have != want {
		s.note(podimport.Dropped, "pull_policy", "the pod has one policy, %q, which is that of another service", have)
		return
	}
	s.file.Rkt.PullPolicy = want
}

func (s *service) platform() error {
	s.note(podimport.Dropped, "platform", "images are taken for this host's architecture; for %s pin the digest of that platform's image", s.conf.Platform)
	return nil
}

// command is the entrypoint and the command together: docker drops the image's
// command if the entrypoint is another one.
func (s *service) command() {
	c := s.conf
	switch {
	case len(c.Entrypoint) > 0:
		s.app.Exec = append(append([]string{}, c.Entrypoint...), c.Command...)
	case c.Entrypoint != nil && len(c.Command) > 0:
		s.app.Exec = append([]string{}, c.Command...)
	case c.Entrypoint != nil:
		s.note(podimport.Dropped, "entrypoint", "an empty one leaves nothing to run; that of the image stays")
	case len(c.Command) > 0:
		s.app.Args = append([]string{}, c.Command...)
	case c.Command != nil:
		s.note(podimport.Dropped, "command", "an empty one is that of the image; give the app its \"exec\" if the image's arguments are not wanted")
	}
	if len(s.app.Exec) > 0 && s.app.Exec[0] == "" {
		s.app.Exec = nil
		s.note(podimport.Dropped, "entrypoint", "it names no program")
	}
}

func (s *service) environment() error {
	var secrets []string
	for _, name := range sortedKeys(s.conf.Environment) {
		value := s.conf.Environment[name]
		switch {
		case value == nil:
			s.note(podimport.Todo, "environment."+name, "its value would be that of the environment, where it is not set: give it one in the app's environment")
		case name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(*value, "\x00"):
			s.note(podimport.Dropped, "environment", "%q is no name of a variable", name)
		default:
			s.app.Environment.Add(name, *value)
			if podimport.Secret(name, *value) {
				secrets = append(secrets, name)
			}
		}
	}
	if len(secrets) > 0 {
		s.secret = true
		s.note(podimport.Changed, "environment", "%s", podimport.InFile(secrets))
	}
	return nil
}

func (s *service) user() error {
	user, group, both := strings.Cut(s.conf.User, ":")
	s.app.User = user
	if both {
		s.app.Group = group
	}
	return nil
}

func (s *service) groups() error {
	for _, g := range s.conf.GroupAdd {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			s.note(podimport.Todo, "group_add", "%q: supplementaryGIDs are numbers; look it up in the image's /etc/group", g)
			continue
		}
		s.app.SupplementaryGIDs = append(s.app.SupplementaryGIDs, int(n))
	}
	return nil
}

func (s *service) labels() error {
	if s.file.UserLabels == nil {
		s.file.UserLabels = map[string]string{}
	}
	return s.meta("labels", s.conf.Labels, s.file.UserLabels)
}

func (s *service) annotations() error {
	if s.file.UserAnnotations == nil {
		s.file.UserAnnotations = map[string]string{}
	}
	return s.meta("annotations", s.conf.Annotations, s.file.UserAnnotations)
}

func (s *service) meta(key string, from, to map[string]string) error {
	for _, k := range sortedKeys(from) {
		if have, ok := to[k]; ok && have != from[k] {
			s.note(podimport.Dropped, key, "%q has another value in another service of the pod", k)
			continue
		}
		to[k] = from[k]
	}
	if key == "labels" {
		s.note(podimport.Changed, key, "they are the pod's userLabels; programs that ask Docker for labels do not see them")
	}
	return nil
}

func (s *service) logging() error {
	switch d := s.conf.Logging.Driver; d {
	case "none":
		s.app.Stdout, s.app.Stderr = "null", "null"
	case "", "local", "json-file", "journald", "k8s-file":
		s.note(podimport.Changed, "logging", "what the app writes goes to the journal: rkt logs, journalctl; its limits are those of journald.conf(5)")
	default:
		s.note(podimport.Dropped, "logging", "%q: what the app writes goes to the journal; forward it from there", d)
	}
	return nil
}

func (s *service) stopSignal() error {
	sig := strings.ToUpper(s.conf.StopSignal)
	if !regexp.MustCompile(`^(SIG)?[A-Z0-9]+([+-][0-9]+)?$`).MatchString(sig) {
		return fmt.Errorf("%q is no signal", s.conf.StopSignal)
	}
	if !strings.HasPrefix(sig, "SIG") && strings.Trim(sig, "0123456789") != "" {
		sig = "SIG" + sig
	}
	s.serviceD.Add("KillSignal", sig)
	return nil
}

func (s *service) stopGrace() error {
	podimport.StopGrace(&s.file.Systemd.Service, &s.serviceD, time.Duration(*s.conf.StopGracePeriod))
	return nil
}

func (s *service) userns() error {
	if s.conf.UserNSMode == "host" {
		s.hostUsers()
		return nil
	}
	s.note(podimport.Dropped, "userns_mode", "%q: the pod has user ids of its own, chosen by rkt; see docs/private-users.md", s.conf.UserNSMode)
	return nil
}

func (s *service) ipc() error {
	switch m := s.conf.Ipc; m {
	case "host":
		s.file.Rkt.IPC = "parent"
	case "private", "none":
		s.file.Rkt.IPC = "private"
	case "shareable":
		s.note(podimport.Dropped, "ipc", "only the apps of one pod share memory and queues")
	default:
		s.note(podimport.Dropped, "ipc", "%q: only the apps of one pod share memory and queues; with network_mode: service:NAME the service is an app of that pod", m)
	}
	return nil
}

func (s *service) slice() error {
	name := s.conf.CgroupParent
	if !strings.HasSuffix(name, ".slice") {
		name += ".slice"
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_.]+(-[A-Za-z0-9_.]+)*$`).MatchString(name) {
		s.note(podimport.Dropped, "cgroup_parent", "%q is no name of a slice; see systemd.slice(5)", s.conf.CgroupParent)
		return nil
	}
	s.file.Systemd.Service.Set("Slice", name)
	return nil
}
