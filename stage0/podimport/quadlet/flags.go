package quadlet

import (
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// flagKey is the key of [Container] that a flag of podman run stands for.
func flagKey(flag string) string {
	table := ` annotation:Annotation cap-add:AddCapability cap-drop:DropCapability device:AddDevice dns:DNS dns-option:DNSOption
		dns-search:DNSSearch entrypoint:Entrypoint env:Environment e:Environment env-file:EnvironmentFile expose:ExposeHostPort group-add:GroupAdd
		health-cmd:HealthCmd health-interval:HealthInterval health-on-failure:HealthOnFailure health-retries:HealthRetries
		health-start-period:HealthStartPeriod health-timeout:HealthTimeout hostname:HostName h:HostName init:RunInit ip:IP ip6:IP6 label:Label l:Label
		log-driver:LogDriver log-opt:LogOpt memory:Memory m:Memory mount:Mount name:ContainerName network:Network net:Network
		network-alias:NetworkAlias pids-limit:PidsLimit publish:PublishPort p:PublishPort pull:Pull read-only:ReadOnly secret:Secret
		security-opt:security-opt shm-size:ShmSize stop-signal:StopSignal stop-timeout:StopTimeout sysctl:Sysctl tmpfs:Tmpfs tz:Timezone
		ulimit:Ulimit user:User u:User userns:UserNS volume:Volume v:Volume workdir:WorkingDir w:WorkingDir http-proxy:HttpProxy add-host:AddHost `
	_, rest, ok := strings.Cut(" "+strings.Join(strings.Fields(table), " ")+" ", " "+flag+":")
	if !ok {
		return ""
	}
	key, _, _ := strings.Cut(rest, " ")
	return key
}

// flags handles PodmanArgs=: flags of podman run.
func (k *container) flags(e entry) error {
	words, err := e.words()
	if err != nil {
		return err
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		if !strings.HasPrefix(w, "-") {
			k.note(podimport.Dropped, e, "%q is not understood", w)
			continue
		}
		flag, value, has := strings.Cut(strings.TrimLeft(w, "-"), "=")
		if !strings.HasPrefix(w, "--") && len(flag) > 1 && !has { // -p80:80, -it
			if key := flagKey(flag[:1]); key != "" {
				flag, value, has = flag[:1], flag[1:], true
			}
		}
		if !has && !boolean(flag) && i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") {
			i++
			value, has = words[i], true
		}
		if !has {
			value = "true"
		}
		k.flag(e, flag, value)
	}
	return nil
}

func boolean(flag string) bool {
	return strings.Contains(" privileged init read-only rm replace detach d interactive i tty t it ti sig-proxy oom-kill-disable no-healthcheck tls-verify "+
		"publish-all P http-proxy env-host no-hosts quiet q ", " "+flag+" ")
}

func (k *container) flag(e entry, flag, value string) {
	limit := func(directive string, size bool) {
		if size {
			v, ok := podimport.Bytes(value)
			if !ok {
				k.note(podimport.Dropped, e, "--%s: %q is no size", flag, value)
				return
			}
			value = v
		}
		k.service(directive, value)
	}
	switch flag {
	case "rm", "replace", "d", "detach", "sdnotify", "cgroups", "cidfile", "sig-proxy", "quiet", "q", "conmon-pidfile":
		return // how podman is run under systemd
	case "privileged":
		k.rkt().Profile = "trusted"
		k.insecure("paths")
		k.note(podimport.Changed, e, "--privileged: the profile \"trusted\" has nearly all capabilities, no list of system calls and the host's ids; devices are to be named as volumes")
	case "cpus":
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || f <= 0 || f > 1e6 {
			k.note(podimport.Dropped, e, "--cpus: %q is no number of CPUs", value)
			return
		}
		k.service("CPUQuota", strconv.Itoa(int(f*100+0.5))+"%")
	case "cpu-shares", "c":
		n, err := strconv.Atoi(value)
		if err != nil {
			k.note(podimport.Dropped, e, "--cpu-shares: %q is no number", value)
			return
		}
		k.service("CPUWeight", strconv.Itoa(min(max(n*100/1024, 1), 10000)))
	case "cpuset-cpus":
		limit("AllowedCPUs", false)
	case "cpuset-mems":
		limit("AllowedMemoryNodes", false)
	case "memory-reservation":
		limit("MemoryLow", true)
	case "memory-swap":
		k.note(podimport.Dropped, e, "--memory-swap is memory and swap together; set MemorySwapMax= to the swap alone")
	case "oom-score-adj":
		limit("OOMScoreAdjust", false)
	case "blkio-weight":
		limit("IOWeight", false)
	case "restart":
		policy, _, _ := strings.Cut(value, ":")
		policy = map[string]string{"always": "always", "unless-stopped": "always", "on-failure": "on-failure", "no": "no"}[policy]
		if k.shared && policy != "" {
			k.service("Restart", policy)
		} else if policy != "" {
			k.t.pod.Systemd.Service.Set("Restart", policy)
		}
	case "ipc":
		if value == "host" {
			k.rkt().IPC = "parent"
			return
		}
		k.note(podimport.Dropped, e, "--ipc=%s: a pod has its own, or the host's", value)
	case "pid", "uts", "cgroupns", "cgroup-parent", "cgroup-conf":
		k.note(podimport.Dropped, e, "--%s: a pod has namespaces and a control group of its own; Slice= moves its unit", flag)
	case "no-healthcheck":
		k.key(entry{e.section, "HealthCmd", "none", e.path, e.line}) //nolint:errcheck // it cannot fail
	case "security-opt":
		k.securityOpt(e, value)
	case "interactive", "i", "tty", "t", "it", "ti":
		k.note(podimport.Dropped, e, "a declared pod has no terminal by itself; \"stdin\": \"tty\" of an app is for rkt attach")
	default:
		key := flagKey(flag)
		if key == "" {
			k.note(podimport.Dropped, e, "--%s=%s has no counterpart that is known", flag, value)
			return
		}
		if key == "Environment" || key == "Label" || key == "Annotation" {
			value = quote(value)
		}
		if err := k.key(entry{e.section, key, value, e.path, e.line}); err != nil {
			k.note(podimport.Dropped, e, "--%s: %v", flag, err)
		}
	}
}

// quote makes a value one word.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func (k *container) securityOpt(e entry, value string) {
	name, rest, ok := strings.Cut(value, "=")
	if !ok {
		name, rest, _ = strings.Cut(value, ":")
	}
	key := map[string]string{"seccomp": "SeccompProfile", "apparmor": "AppArmor", "label": "SecurityLabelDisable", "mask": "Mask", "unmask": "Unmask"}[name]
	switch {
	case name == "no-new-privileges":
		key, rest = "NoNewPrivileges", "true"
	case name == "apparmor" && rest == "unconfined":
		return // without an isolator there is no profile
	case key == "":
		k.note(podimport.Dropped, e, "--security-opt=%s is not known", value)
		return
	}
	if err := k.key(entry{e.section, key, rest, e.path, e.line}); err != nil {
		k.note(podimport.Dropped, e, "--security-opt=%s: %v", value, err)
	}
}
