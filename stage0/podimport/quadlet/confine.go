package quadlet

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// confinement handles what the container may do.
func (k *container) confinement(e entry) (bool, error) {
	switch e.key {
	case "AddCapability":
		caps := strings.Fields(e.value)
		k.add = append(k.add, caps...)
		if beyond := podimport.BeyondPrivateUsers(caps); len(beyond) > 0 && !k.hostNetwork() {
			no := false
			k.rkt().PrivateUsers = &no
			k.note(podimport.Changed, e, "%s has no effect with private users: the pod has none (\"privateUsers\": false)", strings.Join(beyond, " "))
		}
	case "DropCapability":
		k.drop = append(k.drop, strings.Fields(e.value)...)
	case "ReadOnly":
		k.readOnly = isTrue(e.value)
	case "ReadOnlyTmpfs":
		k.noTmpfs = !isTrue(e.value)
	case "NoNewPrivileges":
		podimport.Isolator(&k.app.Isolators, "os/linux/no-new-privileges", isTrue(e.value))
	case "SeccompProfile":
		if e.value == "unconfined" {
			k.insecure("seccomp")
			k.note(podimport.Changed, e, "system calls of the whole pod are not filtered (\"insecureOptions\": \"seccomp\")")
			break
		}
		k.note(podimport.Dropped, e, "the app has rkt's own list of system calls; write what the profile adds or takes as an isolator os/linux/seccomp-retain-set or -remove-set")
	case "AppArmor":
		podimport.Isolator(&k.app.Isolators, "os/linux/apparmor-profile", map[string]string{"profile": e.value})
	case "SecurityLabelDisable", "SecurityLabelFileType", "SecurityLabelLevel", "SecurityLabelNested", "SecurityLabelType":
		k.note(podimport.Dropped, e, "see the isolator os/linux/selinux-context; without it apps have no context of their own")
	case "Mask":
		k.note(podimport.Dropped, e, "rkt hides those interfaces of the kernel that it knows to be dangerous, no others")
	case "Unmask":
		if strings.EqualFold(e.value, "ALL") {
			k.insecure("paths")
			k.note(podimport.Changed, e, "nothing is masked in the whole pod (\"insecureOptions\": \"paths\")")
			break
		}
		k.note(podimport.Dropped, e, "single paths cannot be unmasked; \"insecureOptions\": \"paths\" does it for all")
	case "Sysctl":
		words, err := e.words()
		for _, w := range words {
			name, value, ok := strings.Cut(w, "=")
			if !ok {
				return true, fmt.Errorf("%q is not NAME=VALUE", w)
			}
			k.t.sysctl(k, e, strings.ReplaceAll(name, "/", "."), value)
		}
		return true, err
	case "UserNS":
		mode, _, _ := strings.Cut(e.value, ":")
		switch mode {
		case "auto", "private":
		case "host":
			no := false
			k.rkt().PrivateUsers = &no
		default:
			k.note(podimport.Changed, e, "the pod has a range of ids of its own, whose files on volumes are as the volumes' \"owner\" says (docs/private-users.md)")
		}
	case "UIDMap", "GIDMap", "SubUIDMap", "SubGIDMap", "RemapUid", "RemapGid", "RemapUidSize", "RemapUsers":
		k.note(podimport.Changed, e, "rkt chooses the pod's range of ids itself; volumes have \"owner\" (docs/private-users.md)")
	case "AddDevice":
		k.device(e)
	default:
		return false, nil
	}
	return true, nil
}

// insecure adds an option that leaves a check out.
func (k *container) insecure(word string) {
	if o := k.rkt(); !slices.Contains(o.InsecureOptions, word) {
		o.InsecureOptions = append(o.InsecureOptions, word)
	}
}

// sysctl sets a kernel parameter of the pod.
func (t *target) sysctl(k *container, e entry, name, value string) {
	if !strings.HasPrefix(name, "net.") && !strings.HasPrefix(name, "kernel.shm") && !strings.HasPrefix(name, "kernel.msg") &&
		!strings.HasPrefix(name, "kernel.sem") && !strings.HasPrefix(name, "fs.mqueue.") {
		k.note(podimport.Dropped, e, "%s belongs to the whole host: set it there, in /etc/sysctl.d", name)
		return
	}
	if t.sysctls == nil {
		t.sysctls = map[string]string{}
	}
	t.sysctls[name] = value
	podimport.Isolator(&t.pod.Isolators, "os/unix/sysctl", t.sysctls)
}

// bound handles limits.
func (k *container) bound(e entry) (bool, error) {
	switch e.key {
	case "Memory":
		size, ok := podimport.Bytes(e.value)
		if !ok {
			return true, fmt.Errorf("%q is no size", e.value)
		}
		k.service("MemoryMax", size)
	case "PidsLimit":
		if n, err := strconv.Atoi(e.value); err != nil {
			return true, err
		} else if n <= 0 {
			k.service("TasksMax", "infinity")
			break
		}
		k.service("TasksMax", e.value)
	case "ShmSize":
		k.note(podimport.Dropped, e, "/dev/shm of a pod has no size of its own; memory limits count it")
	case "Ulimit":
		name, value, ok := strings.Cut(e.value, "=")
		if e.value == "host" || !ok {
			k.note(podimport.Dropped, e, "name the limits: Limit…= in \"systemd\": {\"service\": …} of the app")
			break
		}
		directive := map[string]string{"core": "LimitCORE", "cpu": "LimitCPU", "data": "LimitDATA", "fsize": "LimitFSIZE", "locks": "LimitLOCKS",
			"memlock": "LimitMEMLOCK", "msgqueue": "LimitMSGQUEUE", "nice": "LimitNICE", "nofile": "LimitNOFILE", "nproc": "LimitNPROC", "rss": "LimitRSS",
			"rtprio": "LimitRTPRIO", "rttime": "LimitRTTIME", "sigpending": "LimitSIGPENDING", "stack": "LimitSTACK"}[strings.ToLower(name)]
		if directive == "" {
			return true, fmt.Errorf("no limit is called %q", name)
		}
		var out []string
		for _, part := range strings.Split(value, ":") {
			switch n, err := strconv.ParseInt(part, 10, 64); {
			case part == "unlimited" || err == nil && n < 0:
				part = "infinity"
			case err != nil:
				return true, fmt.Errorf("%q is no limit", part)
			}
			out = append(out, part)
		}
		k.service(directive, strings.Join(out, ":"))
	default:
		return false, nil
	}
	return true, nil
}
