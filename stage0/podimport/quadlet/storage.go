package quadlet

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// storage handles volumes, mounts and secrets.
func (k *container) storage(e entry) (bool, error) {
	switch e.key {
	case "Volume":
		return true, k.volume(e)
	case "Mount":
		return true, k.mount(e)
	case "Tmpfs":
		target, opts, _ := strings.Cut(e.value, ":")
		return true, k.tmpfs(e, target, opts)
	case "VolatileTmp":
		if isTrue(e.value) {
			for _, dir := range []string{"/tmp", "/var/tmp"} {
				k.scratch(dir, "1777")
			}
		}
		return true, nil
	case "Secret":
		return true, k.secret(e)
	}
	return false, nil
}

// volume handles Volume=[SOURCE:]TARGET[:OPTIONS].
func (k *container) volume(e entry) error {
	parts := strings.Split(e.value, ":")
	switch len(parts) {
	case 1:
		if !strings.HasPrefix(parts[0], "/") {
			return fmt.Errorf("%q is no absolute path", parts[0])
		}
		k.note(podimport.Changed, e, "a volume without a name: empty at each start, and gone with the pod")
		k.scratch(parts[0], "0755")
		return nil
	case 2, 3:
	default:
		return errors.New("want SOURCE:TARGET:OPTIONS")
	}
	opts := ""
	if len(parts) == 3 {
		opts = parts[2]
	}
	return k.bind(e, parts[0], parts[1], strings.Split(opts, ","))
}

// bind gives the app a directory of the host, or a named volume.
func (k *container) bind(e entry, source, target string, opts []string) error {
	if !strings.HasPrefix(target, "/") {
		return fmt.Errorf("%q is no absolute path", target)
	}
	v := podjson.Volume{Kind: "host"}
	name := path.Base(source)
	named := false
	switch {
	case strings.HasPrefix(source, "/"):
		v.Source = path.Clean(source)
	case strings.HasPrefix(source, "."):
		v.Source = k.beside(e, source)
	default:
		named = true
		v.Source, name, named = k.named(e, source, slices.Contains(opts, "U"))
	}
	if api(v.Source) {
		k.note(podimport.Todo, e, "the app speaks the API of podman or Docker, which rkt does not have")
	}
	if target == "/run" || strings.HasPrefix(target, "/dev/") || target == "/dev" || target == "/sys" || target == "/proc" || strings.HasPrefix(target, "/sys/") ||
		strings.HasPrefix(target, "/proc/") {
		k.note(podimport.Changed, e, "rkt mounts its own %s first; see whether the app finds what it needs", target)
	}
	for _, o := range opts {
		switch o {
		case "", "rw", "rbind", "private", "rprivate", "exec", "dev", "suid":
		case "ro":
			yes := true
			v.ReadOnly = &yes
		case "bind":
			no := false
			v.Recursive = &no
		case "U":
			v.Owner = "app"
			if named {
				continue // said there
			}
			k.note(podimport.Changed, e, "U: nothing is changed on disk, the source's owner is the app's user in the pod (\"owner\": \"app\")")
		case "idmap":
			v.Owner = "idmap"
		case "z", "Z":
			k.note(podimport.Changed, e, "%s: nothing is relabelled; with SELinux on, give the source a label that the app's context may use", o)
		case "copy", "nocopy":
			k.note(podimport.Dropped, e, "%s: what the image has at a volume's place is never copied to it", o)
		default:
			k.note(podimport.Dropped, e, "%s: volumes have readOnly, recursive and owner, no other options", o)
		}
	}
	if named && v.Owner == "" && k.unprivileged() {
		v.Owner = "app"
	}
	podimport.Mount(&k.app, podimport.Volume(k.t.pod, name, v), path.Clean(target))
	return nil
}

// unprivileged says that the app is known not to run as root.
func (k *container) unprivileged() bool {
	user, _, _ := strings.Cut(k.u.get("Container", "User"), ":")
	return user != "" && user != "root" && user != "0"
}

func api(source string) bool {
	return slices.Contains([]string{"/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock", "/var/run/podman/podman.sock"}, source)
}

// named is the directory of a named volume, or of a .volume. kept says that it
// is one that the pod keeps.
func (k *container) named(e entry, source string, owned bool) (dir, name string, kept bool) {
	volume := "systemd-" + strings.TrimSuffix(source, ".volume")
	name = strings.TrimSuffix(source, ".volume")
	if !strings.HasSuffix(source, ".volume") {
		volume = source
	} else if u := k.c.units[source]; u != nil {
		if n := u.get("Volume", "VolumeName"); n != "" {
			volume, name = n, n
		}
		device, options := u.get("Volume", "Device"), u.get("Volume", "Options")
		switch typ := u.get("Volume", "Type"); {
		case device != "" && (typ == "" || typ == "none" || typ == "bind") && strings.Contains(options+typ, "bind"):
			dir, _ := u.expand(device)
			return path.Clean("/" + dir), name, false
		case device != "":
			k.note(podimport.Todo, e, "%s mounts %s: write a mount unit (or a line of /etc/fstab) for %s", source, device, podimport.VolumesDir+"/"+podimport.FileName(name))
		}
	} else {
		k.note(podimport.Todo, e, "%s is not among the files; if it has options, import them together", source)
	}
	if strings.Contains(name, "%") {
		k.note(podimport.Todo, e, "each instance needs a directory of its own: make it, and write its path with %%i into \"volumes\"")
		name = strings.NewReplacer("%i", "instance", "%%", "%").Replace(name)
	}
	dir = podimport.Keep(k.t.pod, name)
	owner := "belongs to root (in the pod, too): give it another owner or set \"owner\": \"app\" if the image does not start as root"
	if owned || k.unprivileged() {
		owner = "belongs to the app's user in the pod (\"owner\": \"app\")"
	}
	k.note(podimport.Changed, e, "the volume is %s; it starts empty, podman copies what the image has there, and %s. To bring data along: cp -a $(podman volume inspect -f '{{.Mountpoint}}' %s)/. %s",
		dir, owner, volume, dir)
	return dir, name, true
}

// scratch gives the app an empty directory that goes with the pod.
func (k *container) scratch(target, mode string) {
	v := podimport.Volume(k.t.pod, k.app.Name+"-"+podimport.ACName(target), podjson.Volume{Kind: "empty", Mode: mode})
	podimport.Mount(&k.app, v, path.Clean(target))
}

// mounted reports whether the app has a volume at a path.
func (k *container) mounted(target string) bool {
	return slices.ContainsFunc(k.app.Mounts, func(m any) bool {
		s, _ := m.(string)
		return strings.HasSuffix(s, ",target="+target)
	})
}

func (k *container) tmpfs(e entry, target, opts string) error {
	if !strings.HasPrefix(target, "/") {
		return fmt.Errorf("%q is no absolute path", target)
	}
	v := podjson.Volume{Kind: "empty", Mode: "1777"}
	size := ""
	for _, o := range strings.Split(opts, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "mode", "tmpfs-mode":
			v.Mode = "0" + strings.TrimLeft(value, "0")
		case "uid", "gid":
			n, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			if key == "uid" {
				v.UID = &n
			} else {
				v.GID = &n
			}
		case "size", "tmpfs-size":
			size = ", without the limit of " + value
		}
	}
	k.note(podimport.Changed, e, "an empty volume: it is as short-lived, but on disk%s", size)
	podimport.Mount(&k.app, podimport.Volume(k.t.pod, k.app.Name+"-"+podimport.ACName(target), v), path.Clean(target))
	return nil
}

// mount handles Mount=type=TYPE,KEY=VALUE….
func (k *container) mount(e entry) error {
	typ, source, target := "volume", "", ""
	var opts []string
	for _, part := range strings.Split(e.value, ",") {
		key, value, has := strings.Cut(part, "=")
		switch key {
		case "type":
			typ = value
		case "source", "src":
			source = value
		case "destination", "dst", "target":
			target = value
		case "ro", "readonly":
			if !has || isTrue(value) {
				opts = append(opts, "ro")
			}
		case "rw":
		case "U", "chown":
			if !has || isTrue(value) {
				opts = append(opts, "U")
			}
		case "relabel":
			opts = append(opts, map[string]string{"shared": "z", "private": "Z"}[value])
		case "bind-propagation":
			opts = append(opts, value)
		case "bind-nonrecursive":
			opts = append(opts, "bind")
		default:
			opts = append(opts, part)
		}
	}
	switch typ {
	case "bind", "volume":
		if source == "" {
			k.note(podimport.Changed, e, "a volume without a name: empty at each start, and gone with the pod")
			k.scratch(target, "0755")
			return nil
		}
		return k.bind(e, source, target, opts)
	case "tmpfs", "ramfs":
		return k.tmpfs(e, target, strings.Join(opts, ","))
	case "devpts":
		k.note(podimport.Changed, e, "apps have a /dev/pts of their own")
		return nil
	}
	k.note(podimport.Dropped, e, "mounts of the type %s have no counterpart; make a directory of the host of it", typ)
	return nil
}

// device handles AddDevice=[-]HOST[:APP][:PERMISSIONS].
func (k *container) device(e entry) {
	spec, optional := strings.CutPrefix(e.value, "-")
	parts := strings.Split(spec, ":")
	if !strings.HasPrefix(parts[0], "/") {
		k.note(podimport.Dropped, e, "rkt knows no CDI; list the device nodes and libraries as volumes")
		return
	}
	host, app := path.Clean(parts[0]), path.Clean(parts[0])
	v := podjson.Volume{Kind: "host", Source: host}
	for _, p := range parts[1:] {
		switch {
		case strings.HasPrefix(p, "/"):
			app = path.Clean(p)
		case p == "r":
			yes := true
			v.ReadOnly = &yes
		}
	}
	if optional {
		k.note(podimport.Changed, e, "the pod does not start without the device")
	}
	switch {
	case host == "/dev/fuse" || host == "/dev/net/tun":
		k.note(podimport.Changed, e, "apps have it already, with the capabilities for it")
		return
	case !strings.HasPrefix(host, "/dev/"):
		podimport.Systemd(&k.t.pod.Systemd).Service.Add("DeviceAllow", host+" rw")
	case strings.HasSuffix(e.value, "/") || slices.Contains([]string{"/dev/dri", "/dev/snd", "/dev/input", "/dev/bus/usb", "/dev/serial"}, host):
		k.note(podimport.Todo, e, "a directory: name each device node in it as a volume of its own")
	}
	k.note(podimport.Changed, e, "with private users its mode counts, as for anybody else on the host: a udev rule with MODE=, or \"privateUsers\": false")
	podimport.Mount(&k.app, podimport.Volume(k.t.pod, path.Base(host), v), app)
}

// secret handles Secret=NAME[,KEY=VALUE…].
func (k *container) secret(e entry) error {
	parts := strings.Split(e.value, ",")
	name := parts[0]
	kind, target := "mount", ""
	for _, p := range parts[1:] {
		key, value, _ := strings.Cut(p, "=")
		switch key {
		case "type":
			kind = value
		case "target":
			target = value
		case "uid", "gid", "mode":
			k.note(podimport.Changed, e, "%s: a credential can be read by the app's user alone (mode 0400)", p)
		default:
			k.note(podimport.Dropped, e, "%s", p)
		}
	}
	id := podimport.FileName(name)
	o := k.rkt()
	if o.Credentials == nil {
		o.Credentials = map[string]podjson.Credential{}
	}
	load := "/etc/credstore/" + id
	o.Credentials[id] = podjson.Credential{Load: load}
	k.note(podimport.Todo, e, "(umask 077; mkdir -p /etc/credstore; podman secret inspect --showsecret --format '{{.SecretData}}' %s | head -c -1 >%s); or encrypt it, see docs/credentials.md", name, load)
	cred := podjson.AppCredential{Name: id}
	if kind == "env" {
		if target == "" {
			target = name
		}
		cred.Env = strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, target)
		if !strings.HasSuffix(cred.Env, "_FILE") { // some images read the file that such a variable names
			cred.Env += "_FILE"
		}
		if c := cred.Env[0]; c >= '0' && c <= '9' {
			cred.Env = "_" + cred.Env
		}
		k.note(podimport.Todo, e, "secrets are not put into variables: $%s holds the path of a file with it, as many images take it; others need a shell that reads it", cred.Env)
	} else {
		switch {
		case target == "":
			target = "/run/secrets/" + name
		case !strings.HasPrefix(target, "/"):
			target = "/run/secrets/" + target
		}
		cred.File = path.Clean(target)
	}
	k.app.Credentials = append(k.app.Credentials, cred)
	return nil
}
