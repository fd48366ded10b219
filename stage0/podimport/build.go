package podimport

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/timespan"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// Systemd returns the section, made when it is not there.
func Systemd(s **podjson.Systemd) *podjson.Systemd {
	if *s == nil {
		*s = &podjson.Systemd{}
	}
	return *s
}

// Rkt returns the pod's options, made when they are not there.
func Rkt(p *podjson.Pod) *podjson.Options {
	if p.Rkt == nil {
		p.Rkt = &podjson.Options{}
	}
	return p.Rkt
}

// Trim takes sections out that have nothing in them.
func Trim(p *podjson.Pod) {
	if p.Systemd.Empty() {
		p.Systemd = nil
	}
	if raw, err := json.Marshal(p.Rkt); err == nil && string(raw) == "{}" {
		p.Rkt = nil
	}
}

// StopGrace gives an app a time to stop in, and the pod more than any of its apps.
func StopGrace(pod, app *podjson.Values, d time.Duration) {
	if d <= 0 {
		d = time.Second // none is no limit to systemd
	}
	text := strconv.FormatInt(int64(d/time.Second), 10) + "s"
	if d%time.Second != 0 {
		text = strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "ms"
	}
	app.Set("TimeoutStopSec", text)
	Outlast(pod, d)
}

// Outlast has the host wait longer for a pod than the pod does for an app. That
// is 100 s without a word, see rkt@.service.
func Outlast(pod *podjson.Values, d time.Duration) {
	n := int64(d/time.Second) + 20
	if d%time.Second != 0 {
		n++
	}
	for _, v := range *pod {
		if have, ok := timespan.Parse(v.Value); v.Key == "TimeoutStopSec" && (v.Value == "infinity" || ok && int64(have/time.Second) >= n) {
			return
		}
	}
	if n > 100 {
		pod.Set("TimeoutStopSec", strconv.FormatInt(n, 10)+"s")
	}
}

// Isolator adds an isolator to a list of a pod file, in place of one of its name.
func Isolator(list *json.RawMessage, name string, value any) {
	type entry struct {
		Name  string          `json:"name"`
		Value json.RawMessage `json:"value"`
	}
	var all []entry
	_ = json.Unmarshal(*list, &all) // only this function writes it
	raw, err := json.Marshal(value)
	if err != nil {
		return // strings, lists and maps of them
	}
	all = slices.DeleteFunc(all, func(e entry) bool { return e.Name == name })
	*list, _ = json.Marshal(append(all, entry{name, raw}))
}

// Volume adds a volume to a pod, and returns its name: that of an equal one, or
// the wanted one, made unique.
func Volume(p *podjson.Pod, want string, v podjson.Volume) string {
	v.Name = ACName(want)
	for n := 2; ; n++ {
		same, taken := false, false
		for _, have := range p.Volumes {
			other, _ := have.(podjson.Volume)
			if other.Name == v.Name {
				taken = true
				a, _ := json.Marshal(other)
				b, _ := json.Marshal(v)
				same = string(a) == string(b)
			}
		}
		if same {
			return v.Name
		}
		if !taken {
			p.Volumes = append(p.Volumes, v)
			return v.Name
		}
		v.Name = ACName(want) + "-" + strconv.Itoa(n)
	}
}

// Mount gives a volume to an app.
func Mount(a *podjson.App, volume, target string) {
	if strings.ContainsAny(target, ",=") {
		a.Mounts = append(a.Mounts, map[string]string{"volume": volume, "path": target})
		return
	}
	a.Mounts = append(a.Mounts, "volume="+volume+",target="+target)
}

// Port is a port of the host that leads to an app.
type Port struct {
	HostIP   string
	Host     uint // 0: none
	App      uint
	Protocol string
}

// Publish adds a port to an app and, with one of the host, to the pod.
func Publish(p *podjson.Pod, a *podjson.App, port Port) error {
	if port.Protocol == "" {
		port.Protocol = "tcp"
	}
	if port.App == 0 || port.App > 65535 || port.Host > 65535 {
		return fmt.Errorf("no number of a port")
	}
	base := strconv.Itoa(int(port.App)) + "-" + port.Protocol
	name := base
	used := func(name string) bool {
		return slices.ContainsFunc(p.Ports, func(have any) bool {
			m, _ := have.(podPort)
			return m.Name == name
		})
	}
	for n := 2; port.Host != 0 && used(name); n++ {
		name = base + "-" + strconv.Itoa(n)
	}
	if !slices.ContainsFunc(a.Ports, func(have podjson.AppPort) bool { return have.Name == name }) {
		a.Ports = append(a.Ports, podjson.AppPort{Name: name, Port: port.App, Protocol: port.Protocol})
	}
	if port.Host != 0 {
		p.Ports = append(p.Ports, podPort{Name: name, HostPort: port.Host, HostIP: port.HostIP})
	}
	return nil
}

// podPort is written in the short form where there is one.
type podPort struct {
	Name     string `json:"name"`
	HostIP   string `json:"hostIP,omitempty"`
	HostPort uint   `json:"hostPort"`
}

// MarshalJSON writes the short form.
func (p podPort) MarshalJSON() ([]byte, error) {
	switch {
	case strings.Contains(p.HostIP, ":"):
		type long podPort
		return json.Marshal(long(p))
	case p.HostIP != "":
		return json.Marshal(fmt.Sprintf("%s:%s:%d", p.Name, p.HostIP, p.HostPort))
	}
	return json.Marshal(fmt.Sprintf("%s:%d", p.Name, p.HostPort))
}

// Capabilities are the isolator for what is added to and taken from the set that
// apps have, "" when it is that set. Names are with or without CAP_, ALL is all.
func Capabilities(add, drop []string) (isolator string, set []string) {
	has := []string{"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
		"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
	norm := func(list []string) []string {
		var out []string
		for _, c := range list {
			out = append(out, strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
		}
		return out
	}
	add, drop = norm(add), norm(drop)
	result := has
	if slices.Contains(add, "ALL") {
		result = allCapabilities()
	}
	if slices.Contains(drop, "ALL") {
		result = nil
	}
	for _, c := range add {
		if c != "ALL" && !slices.Contains(result, c) {
			result = append(slices.Clone(result), c)
		}
	}
	result = slices.DeleteFunc(slices.Clone(result), func(c string) bool { return slices.Contains(drop, c) && !slices.Contains(add, c) })
	slices.Sort(result)
	if slices.Equal(result, has) {
		return "", nil
	}
	isolator = "os/linux/capabilities-retain-set"
	if len(add) == 0 && !slices.Contains(drop, "ALL") || len(result) == 0 {
		// the same said by what is missing
		isolator = "os/linux/capabilities-remove-set"
		missing := slices.DeleteFunc(slices.Clone(has), func(c string) bool { return slices.Contains(result, c) })
		result = missing
	}
	for _, c := range result {
		set = append(set, "CAP_"+c)
	}
	return isolator, set
}

func allCapabilities() []string {
	return strings.Fields(`AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER
		FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW
		PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO
		SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)
}

// BeyondPrivateUsers are those of capabilities (with or without CAP_) that have
// no effect for a pod with users of its own: what they are for is the host's.
func BeyondPrivateUsers(caps []string) []string {
	var out []string
	for _, c := range caps {
		switch c = strings.TrimPrefix(strings.ToUpper(c), "CAP_"); c {
		case "ALL", "NET_ADMIN", "NET_RAW", "MKNOD", "SYS_ADMIN", "SYS_TIME", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "SYSLOG", "BPF", "PERFMON",
			"AUDIT_CONTROL", "AUDIT_READ", "MAC_ADMIN", "MAC_OVERRIDE", "SYS_NICE", "SYS_RESOURCE", "WAKE_ALARM", "BLOCK_SUSPEND", "IPC_LOCK":
			out = append(out, c)
		}
	}
	return out
}

// Bytes is a size as systemd reads it, of one as Docker and Podman write it
// ("512m", "1.5g", "100kb"), which count in powers of 1024 as well.
func Bytes(s string) (string, bool) {
	t := strings.ToLower(strings.TrimSpace(s))
	t = strings.TrimSuffix(strings.TrimSuffix(t, "b"), "i")
	unit := ""
	if n := len(t); n > 0 && strings.ContainsRune("kmgtp", rune(t[n-1])) {
		unit, t = strings.ToUpper(t[n-1:]), t[:n-1]
	}
	f, err := strconv.ParseFloat(t, 64)
	if err != nil || f < 0 || f > 1<<52 {
		return "", false
	}
	if f == float64(int64(f)) {
		return strconv.FormatInt(int64(f), 10) + unit, true
	}
	scale := map[string]float64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}[unit]
	return strconv.FormatInt(int64(f*scale), 10), true
}
