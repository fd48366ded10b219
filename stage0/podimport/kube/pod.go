package kube

import (
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// pod is a pod that is being made.
type pod struct {
	c    *converter
	name string
	kind string
	p    *podjson.Pod
	spec *object

	volumes map[string]*object
	env     map[string]string // of secrets, in a file
	secret  bool              // one is in the pod file
}

func (p *pod) make() {
	s, o := p.spec, p.p.Rkt
	if s.boolean("hostNetwork") {
		o.Net = []string{"host"}
	}
	if s.boolean("hostIPC") {
		o.IPC = "parent"
	}
	if s.boolean("hostPID") {
		s.note(podimport.Dropped, "hostPID", "a pod has processes of its own")
	}
	if s.has("hostUsers") && !s.boolean("hostUsers") {
		yes := true
		o.PrivateUsers = &yes
	}
	if s.boolean("shareProcessNamespace") {
		s.note(podimport.Changed, "shareProcessNamespace", "apps of a pod are in one process namespace always")
	}
	o.Hostname = s.str("hostname")
	if s.has("subdomain") {
		s.note(podimport.Dropped, "subdomain", "pods are found by their own name and their host name")
	}
	for _, h := range s.list("hostAliases") {
		for _, name := range h.strs("hostnames") {
			o.HostsEntries = append(o.HostsEntries, h.str("ip")+"="+name)
		}
	}
	p.dns()
	s.ignore("enableServiceLinks", "automountServiceAccountToken", "schedulerName", "preemptionPolicy", "nodeName", "setHostnameAsFQDN")
	for _, key := range []string{"serviceAccountName", "serviceAccount"} {
		if s.has(key) && s.str(key) != "default" {
			s.note(podimport.Dropped, key, "there is no API to have an account of")
		}
	}
	if s.has("imagePullSecrets") {
		s.note(podimport.Todo, "imagePullSecrets", "log in to the registry (podman login, /etc/rkt/auth.d): docs/registries.md")
	}
	if n, ok := s.number("activeDeadlineSeconds"); ok {
		p.p.Systemd.Service.Set("RuntimeMaxSec", strconv.Itoa(n))
	}
	p.volumes, p.env = map[string]*object{}, map[string]string{}
	for _, v := range s.list("volumes") {
		p.volumes[v.str("name")] = v
	}
	var before []string
	for _, c := range s.list("initContainers") {
		if c.str("restartPolicy") == "Always" {
			before = append(before, p.app(c, "always", nil))
			continue
		}
		s.note(podimport.Todo, "initContainers", "%s: apps of a pod start together; do what it does in an app's own start, or in a pod before this one (After=rkt-completed@%s-%[1]s.service)",
			c.str("name"), p.name)
		for _, k := range c.keys {
			c.used[k] = true
		}
	}
	restart := map[string]string{"": "always", "Always": "always", "OnFailure": "on-failure", "Never": ""}[s.str("restartPolicy")]
	if p.kind == "Job" || p.kind == "CronJob" {
		restart = map[string]string{"OnFailure": "on-failure"}[s.str("restartPolicy")]
	}
	for _, c := range s.list("containers") {
		p.app(c, restart, before)
	}
	if n, ok := s.number("terminationGracePeriodSeconds"); ok {
		for i := range p.p.Apps {
			podimport.StopGrace(&p.p.Systemd.Service, &podimport.Systemd(&p.p.Apps[i].Systemd).Service, time.Duration(min(n, math.MaxInt32))*time.Second)
		}
	}
	if restart == "always" {
		p.p.Systemd.Service.Set("Restart", "on-failure")
	}
	if s.has("ephemeralContainers") {
		s.note(podimport.Dropped, "ephemeralContainers", "rkt enter is for that")
	}
	if len(p.env) > 0 {
		file := "/etc/rkt/env/" + p.name + ".env"
		var names []string
		for n := range p.env {
			names = append(names, n)
		}
		sort.Strings(names)
		text := ""
		for _, n := range names {
			text += n + "=" + p.env[n] + "\n"
		}
		p.c.r.Files = append(p.c.r.Files, podimport.File{Path: file, Text: text, Mode: 0o600, From: s.r.path})
		o.EnvironmentFiles = append(o.EnvironmentFiles, file)
		p.c.r.Note(podimport.Changed, s.r.path, 0, s.path+".containers[].env", "variables with secrets are in %s (mode 0600), for all apps of the pod; files are safer: docs/credentials.md", file)
	}
	p.security(s.sub("securityContext"))
}

func (p *pod) dns() {
	s, o := p.spec, p.p.Rkt
	switch s.str("dnsPolicy") {
	case "", "ClusterFirst", "ClusterFirstWithHostNet", "None":
	case "Default":
		o.DNS = []string{"host"}
	}
	d := s.sub("dnsConfig")
	if d == nil {
		return
	}
	o.DNS = d.strs("nameservers")
	o.DNSSearch = d.strs("searches")
	for _, opt := range d.list("options") {
		text := opt.str("name")
		if v := opt.str("value"); v != "" {
			text += ":" + v
		}
		o.DNSOptions = append(o.DNSOptions, text)
	}
}

// security is what all apps of the pod get.
func (p *pod) security(sc *object) {
	if sc == nil {
		return
	}
	sysctls := map[string]string{}
	for _, s := range sc.list("sysctls") {
		sysctls[s.str("name")] = s.str("value")
	}
	if len(sysctls) > 0 {
		podimport.Isolator(&p.p.Isolators, "os/unix/sysctl", sysctls)
	}
	var gids []int
	for _, g := range sc.strs("supplementalGroups") {
		if n, err := strconv.Atoi(g); err == nil {
			gids = append(gids, n)
		}
	}
	if n, ok := sc.number("fsGroup"); ok {
		gids = append(gids, n)
		sc.note(podimport.Changed, "fsGroup", "apps are in the group %d, but volumes keep their group: chgrp -R %[1]d their directories", n)
	}
	sc.ignore("fsGroupChangePolicy", "runAsNonRoot", "supplementalGroupsPolicy")
	for i := range p.p.Apps {
		a := &p.p.Apps[i]
		if a.User == "" {
			a.User = sc.str("runAsUser")
		}
		if a.Group == "" {
			a.Group = sc.str("runAsGroup")
		}
		a.SupplementaryGIDs = append(a.SupplementaryGIDs, gids...)
	}
	p.profiles(sc)
}

// profiles are those of seccomp, AppArmor and SELinux.
func (p *pod) profiles(sc *object) {
	if prof := sc.sub("seccompProfile"); prof != nil {
		switch prof.str("type") {
		case "Unconfined":
			if !slices.Contains(p.p.Rkt.InsecureOptions, "seccomp") {
				p.p.Rkt.InsecureOptions = append(p.p.Rkt.InsecureOptions, "seccomp")
			}
			prof.note(podimport.Changed, "type", "system calls of the whole pod are not filtered")
		case "Localhost":
			prof.note(podimport.Dropped, "localhostProfile", "write it as an isolator os/linux/seccomp-retain-set")
		}
	}
	if sc.has("seLinuxOptions") {
		sc.note(podimport.Dropped, "seLinuxOptions", "see the isolator os/linux/selinux-context")
	}
}

// app makes an app of a container and returns its name.
func (p *pod) app(c *object, restart string, after []string) string {
	a := podjson.App{Name: podimport.ACName(c.str("name"))}
	for n := 2; slices.ContainsFunc(p.p.Apps, func(o podjson.App) bool { return o.Name == a.Name }); n++ {
		a.Name = podimport.ACName(c.str("name")) + "-" + strconv.Itoa(n)
	}
	c.str("restartPolicy")
	image, assumed := podimport.Image(c.str("image"))
	a.Image = image
	if assumed {
		c.note(podimport.Changed, "image", "it is taken from Docker Hub")
	}
	if strings.HasPrefix(image, "docker://localhost/") {
		c.note(podimport.Todo, "image", "the image is in podman's own store: push it to a registry, or save it as an OCI archive")
	}
	if policy := map[string]string{"Always": "update", "IfNotPresent": "new", "Never": "never"}[c.str("imagePullPolicy")]; policy != "" {
		if have := p.p.Rkt.PullPolicy; have != "" && have != policy {
			c.note(podimport.Changed, "imagePullPolicy", "a pod has one policy, which is %q", have)
		} else {
			p.p.Rkt.PullPolicy = policy
		}
	}
	vars := p.environment(c, &a)
	command, args := p.words(c, "command", vars), p.words(c, "args", vars)
	if len(command) > 0 {
		a.Exec = append(command, args...)
	} else {
		a.Args = args
	}
	a.WorkingDirectory = c.str("workingDir")
	p.ports(c, &a)
	for _, m := range c.list("volumeMounts") {
		p.mount(m, &a)
	}
	for _, d := range c.list("volumeDevices") {
		d.note(podimport.Dropped, "name", "name the device's node as a volume of the host")
		d.ignore("devicePath")
	}
	p.resources(c.sub("resources"), &a)
	p.appSecurity(c.sub("securityContext"), &a)
	p.probes(c, &a)
	if restart != "" {
		podimport.Systemd(&a.Systemd).Service.Set("Restart", restart)
	}
	for _, other := range after {
		podimport.Systemd(&a.Systemd).Unit.Add("After", other)
	}
	if l := c.sub("lifecycle"); l != nil {
		if l.has("postStart") {
			l.note(podimport.Dropped, "postStart", "do it in the app's own start")
		}
		if l.has("preStop") {
			l.note(podimport.Dropped, "preStop", "apps are stopped by their signal (\"KillSignal\"); TimeoutStopSec= bounds it")
		}
		if s := l.str("stopSignal"); s != "" {
			podimport.Systemd(&a.Systemd).Service.Set("KillSignal", s)
		}
	}
	c.ignore("terminationMessagePath", "terminationMessagePolicy", "stdinOnce")
	if c.boolean("tty") || c.boolean("stdin") {
		c.note(podimport.Dropped, "stdin", "a declared pod has no terminal by itself; \"stdin\": \"tty\" of an app is for rkt attach")
		c.ignore("tty")
	}
	p.p.Apps = append(p.p.Apps, a)
	return a.Name
}

func (p *pod) ports(c *object, a *podjson.App) {
	for _, o := range c.list("ports") {
		n, _ := o.number("containerPort")
		host, _ := o.number("hostPort")
		o.str("name") // probes look it up
		port := podimport.Port{App: uint(max(n, 0)), Host: uint(max(host, 0)), HostIP: o.str("hostIP"), Protocol: strings.ToLower(o.str("protocol"))}
		if slices.Contains(p.p.Rkt.Net, "host") {
			port.Host = 0
		}
		if err := podimport.Publish(p.p, a, port); err != nil {
			o.note(podimport.Dropped, "containerPort", "%v", err)
		}
	}
}

func (p *pod) resources(o *object, a *podjson.App) {
	set := func(key, value string) { podimport.Systemd(&a.Systemd).Service.Set(key, value) }
	limits, requests := o.sub("limits"), o.sub("requests")
	if v := limits.str("memory"); v != "" {
		set("MemoryMax", quantity(v))
	}
	if v := limits.str("cpu"); v != "" {
		if f, ok := cores(v); ok {
			set("CPUQuota", strconv.Itoa(int(f*100+0.5))+"%")
		}
	}
	if v := requests.str("memory"); v != "" {
		set("MemoryLow", quantity(v))
	}
	if v := requests.str("cpu"); v != "" {
		if f, ok := cores(v); ok {
			set("CPUWeight", strconv.Itoa(min(max(int(f*100), 1), 10000)))
		}
	}
	for _, o := range []*object{limits, requests} {
		if o.has("ephemeral-storage") {
			o.note(podimport.Dropped, "ephemeral-storage", "what an app writes is on the disk of /var/lib/rkt, without a limit")
		}
	}
}

func cores(s string) (float64, bool) {
	milli, ok := strings.CutSuffix(s, "m")
	f, err := strconv.ParseFloat(milli, 64)
	if ok {
		f /= 1000
	}
	return f, err == nil && f > 0 && f < 1e5
}

// quantity is a size for systemd, whose K is 1024.
func quantity(s string) string {
	for _, u := range []string{"Ki", "Mi", "Gi", "Ti", "Pi"} {
		if n, ok := strings.CutSuffix(s, u); ok {
			return n + u[:1]
		}
	}
	for i, u := range []string{"k", "M", "G", "T", "P"} {
		if n, ok := strings.CutSuffix(s, u); ok {
			if f, err := strconv.ParseFloat(n, 64); err == nil {
				for range i + 1 {
					f *= 1000
				}
				return strconv.FormatInt(int64(f), 10)
			}
		}
	}
	return s
}

func (p *pod) appSecurity(sc *object, a *podjson.App) {
	if sc == nil {
		return
	}
	a.User, a.Group = sc.str("runAsUser"), sc.str("runAsGroup")
	a.ReadOnlyRootFS = sc.boolean("readOnlyRootFilesystem")
	sc.ignore("runAsNonRoot")
	if sc.has("allowPrivilegeEscalation") && !sc.boolean("allowPrivilegeEscalation") {
		podimport.Isolator(&a.Isolators, "os/linux/no-new-privileges", true)
	}
	if sc.boolean("privileged") {
		p.p.Rkt.Profile = "trusted"
		sc.note(podimport.Changed, "privileged", "the whole pod has the profile \"trusted\"; devices are to be named as volumes")
	}
	if caps := sc.sub("capabilities"); caps != nil {
		add, drop := caps.strs("add"), caps.strs("drop")
		if name, set := podimport.Capabilities(add, drop); name != "" {
			podimport.Isolator(&a.Isolators, name, map[string]any{"set": set})
		}
		if beyond := podimport.BeyondPrivateUsers(add); len(beyond) > 0 && !slices.Contains(p.p.Rkt.Net, "host") {
			no := false
			p.p.Rkt.PrivateUsers = &no
			caps.note(podimport.Changed, "add", "%s has no effect with private users: the pod has none", strings.Join(beyond, " "))
		}
	}
	if sc.has("procMount") && sc.str("procMount") != "Default" {
		sc.note(podimport.Dropped, "procMount", "\"insecureOptions\": \"paths\" unmasks it")
	}
	p.profiles(sc)
}
