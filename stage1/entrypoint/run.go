// Package entrypoint holds the programs of the nspawn flavour that stage0
// calls on the host's side: run, enter, gc and stop. Each has the pod
// directory as its working directory.
package entrypoint

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/hostsfile"
	"github.com/rkt-systemd/rkt/internal/interrupt"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage1/network"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// Env is what an entrypoint gets from its program.
type Env struct {
	Log     *logrus.Logger
	Environ []string
	// Signals are given back before the process becomes nspawn; may be nil.
	Signals *interrupt.Watcher
	// Reserved are those of ReserveDescriptors.
	Reserved []int
}

func (e Env) get(name string) string {
	for _, kv := range e.Environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// Run plans the pod, carries the plan out and becomes systemd-nspawn. It
// returns only on failure. The goroutine must be locked to its thread: that
// thread moves into the pod's network namespace and executes.
func Run(ctx context.Context, env Env, args []string) error {
	r, err := abi.ParseRun(args)
	if err != nil {
		return err
	}
	describe(env, r.UUID)
	if r.MDSToken != "" {
		return errors.New("--mds-token is not supported yet by this stage1")
	}
	if r.Interactive {
		if err := checkStreams(); err != nil {
			return err
		}
	}
	var ids abi.IDRange
	if r.PrivateUsers != "" {
		if ids, err = abi.ParseIDRange(r.PrivateUsers); err != nil {
			return fmt.Errorf("--private-users: %w", err)
		}
	}
	lock, passed, err := inherited(env)
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	in, err := load(env, r, ids)
	if err != nil {
		return err
	}
	if in.Facts, err = facts(env, r, dir); err != nil {
		return err
	}
	in.Facts.IDs = ids
	if err := isolation(in, &in.Facts); err != nil {
		return err
	}
	in.Facts.Listeners = listeners(passed)
	in.Facts.Joining = network.Joins(r.Net)
	in.Facts.ResolvConf = hasContent(filepath.Join(podfs.Stage1Rootfs, podfs.ResolvConf)) || generatesResolv(in)
	in.Facts.Hosts = network.Joins(r.Net) && r.HostsMode != "host"
	// What cannot be run at all shall not come near the network.
	p, err := plan.Make(in)
	if err != nil {
		return err
	}
	if !network.Contained(r.Net) {
		if len(in.Pod.Ports) > 0 {
			env.Log.Warn("the pod uses the host's network: its ports need no forwarding, and none is done")
		}
		return start(env, in, p, lock)
	}
	ports, err := forwardedPorts(in)
	if err != nil {
		return err
	}
	c := network.Config{PodDir: dir, LocalConfig: r.LocalConfig, UUID: r.UUID, Nets: r.Net, Ports: ports, Bandwidth: plan.Bandwidth(in),
		Machine: in.Facts.Machine, Hostname: plan.Hostname(r)}
	if in.Facts.Hosts {
		if c.Hosts, err = hosts(r); err != nil {
			return err
		}
	}
	ns, err := network.Open(ctx, c)
	if err != nil {
		return fmt.Errorf("failed to setup network: %w", err)
	}
	err = connect(ctx, env, in, ns, p, lock)
	return errors.Join(err, ns.Leave(context.WithoutCancel(ctx), warning(env)))
}

// connect starts the pod in its network namespace, and beside it what joins the
// networks.
func connect(ctx context.Context, env Env, in plan.Input, ns *network.Namespace, p *plan.Plan, lock int) error {
	if in.Facts.IDs.Count > 0 {
		if err := openNetwork("/proc/sys/net", in.Facts.IDs); err != nil {
			return err
		}
	}
	if in.Facts.Joining {
		if err := startJoining(env, in, ns, p.NetParameters); err != nil {
			return err
		}
	} else if _, err := ns.Join(ctx); err != nil {
		return fmt.Errorf("failed to setup network: %w", err)
	}
	return start(env, in, p, lock)
}

// describe says in every message which pod it is about.
func describe(env Env, uuid string) {
	journal.SetField(env.Log, journal.KeyStage, "stage1")
	journal.SetField(env.Log, journal.KeyPodUUID, uuid)
	if b, err := os.ReadFile(podfs.DeclaredName); err == nil {
		journal.SetField(env.Log, journal.KeyPodName, strings.TrimSpace(string(b)))
	}
}

// inherited are the pod's lock and the sockets that systemd passed. Plugins and
// other helpers must hold neither.
func inherited(env Env) (lock int, passed []int, err error) {
	if lock, err = lockFD(env); err != nil {
		return -1, nil, err
	}
	unix.CloseOnExec(lock)
	passed = sys.ListenFDs(env.get)
	sys.HoldFDs(passed)
	return lock, passed, nil
}

// hosts is the apps' hosts file before other pods are named in it. stage0 has
// written what was asked for to the pod's root, which no app has seen yet.
func hosts(r abi.Run) ([]byte, error) {
	if r.HostsMode != "stage0" {
		return []byte(hostsfile.Fallback(plan.Hostname(r))), nil
	}
	return os.ReadFile(filepath.Join(podfs.Stage1Rootfs, podfs.Hosts))
}

// start carries the plan out and becomes the supervisor, unless the networks
// are known to have failed by then.
func start(env Env, in plan.Input, p *plan.Plan, lock int) error {
	for _, w := range p.Warnings {
		env.Log.Warn(w)
	}
	if !in.Facts.Joining { // else who joins the networks does it after that
		if err := setParameters(p.NetParameters); err != nil {
			return err
		}
	}
	if err := compileFilters(env, p, in.Facts.PodDir); err != nil {
		return err
	}
	if err := apply(p, in.Facts.IDs, env.Log.Warnf); err != nil {
		return err
	}
	if plan.GuestJournal(in.Pod) {
		if err := os.Mkdir(podfs.GuestJournal, 0o755); err != nil {
			return err
		}
	}
	if err := mountCredentials(env, p.Apps, in.Facts.IDs); err != nil {
		return err
	}
	failpoint.Hit("stage1/applied")
	if err := keepConfig(in); err != nil {
		return err
	}
	if err := records(in); err != nil {
		return err
	}
	failpoint.Hit("stage1/recorded")
	environ := append([]string{}, p.Env...)
	for _, kv := range env.Environ {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		// what nspawn itself needs to know; nothing of the caller's environment reaches the pod
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "PATH", "JOURNAL_STREAM", "INVOCATION_ID", "SYSTEMD_EXEC_PID":
			environ = append(environ, kv)
		}
	}
	// Without a terminal nobody wants the sequences by which systemd resets one.
	if _, err := unix.IoctlGetTermios(1, unix.TCGETS); err != nil {
		environ = append(environ, "TERM=dumb")
	} else if t := env.get("TERM"); t != "" {
		environ = append(environ, "TERM="+t)
	}
	logs, err := openLogs(p.Logs)
	if err != nil {
		return err
	}
	if environ, lock, err = passSockets(env, environ, logs, lock); err != nil {
		return err
	}
	// nspawn holds the lock as long as it lives and closes it for the pod's PID 1.
	if _, err := unix.FcntlInt(uintptr(lock), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("keeping the pod's lock: %w", err)
	}
	if err := sys.PassFDs(sys.ListenFDs(env.get)); err != nil {
		return fmt.Errorf("passing sockets on: %w", err)
	}
	failpoint.Hit("stage1/exec")
	if in.Facts.Joining && joinFailed() {
		return &Ended{Status: abi.ExitFailure}
	}
	if err := env.Signals.Release(); err != nil {
		return err
	}
	return fmt.Errorf("starting %q: %w", p.Args[0], unix.Exec(p.Args[0], p.Args, environ))
}

func lockFD(env Env) (int, error) {
	fd, err := strconv.Atoi(env.get(abi.EnvLockFD))
	if err != nil || fd < 3 {
		return -1, fmt.Errorf("%s does not name a file descriptor: this program is run by rkt", abi.EnvLockFD)
	}
	var st, cwd unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, fmt.Errorf("%s=%d: %w", abi.EnvLockFD, fd, err)
	}
	if err := unix.Stat(".", &cwd); err != nil {
		return -1, err
	}
	if st.Dev != cwd.Dev || st.Ino != cwd.Ino {
		return -1, fmt.Errorf("%s=%d is not the pod directory", abi.EnvLockFD, fd)
	}
	return fd, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func hasContent(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Size() > 0
}

// load reads the manifests and looks up users.
func load(env Env, r abi.Run, private abi.IDRange) (plan.Input, error) {
	in := plan.Input{Run: r, Images: map[string]*schema.ImageManifest{}, IDs: map[string]plan.IDs{}}
	b, err := os.ReadFile(podfs.PodManifest)
	if err != nil {
		return in, fmt.Errorf("reading the pod manifest: %w", err)
	}
	if in.Pod, _, err = appc.ParsePodManifest(b); err != nil {
		return in, err
	}
	for i := range in.Pod.Apps {
		if err := loadApp(env, &in, &in.Pod.Apps[i], place{root: podfs.Stage1Rootfs}, private); err != nil {
			return in, err
		}
	}
	return in, nil
}

// loadApp reads the image manifest of an app and looks up its user.
func loadApp(env Env, in *plan.Input, ra *schema.RuntimeApp, l place, private abi.IDRange) error {
	name := ra.Name.String()
	b, err := os.ReadFile(filepath.Join(podfs.AppInfo(name), podfs.ManifestFile))
	if err != nil {
		return fmt.Errorf("reading the image manifest of app %q: %w", name, err)
	}
	m, warnings, err := appc.ParseImageManifest(b)
	if err != nil {
		return fmt.Errorf("app %q: %w", name, err)
	}
	for _, w := range warnings {
		env.Log.Warnf("app %q: %s", name, w)
	}
	in.Images[name] = m
	app := ra.App
	if app == nil {
		app = m.App
	}
	if app == nil {
		return nil // the plan says what is wrong
	}
	user := ""
	if m.App != nil && app.User == m.App.User && app.Group == m.App.Group {
		user = appc.DockerUser(m)
	}
	var ids plan.IDs
	if user != "" {
		ids, err = dockerLookup(l.app(name), user)
	} else {
		ids, err = lookup(l.app(name), app.User, app.Group, private)
	}
	if err != nil {
		return fmt.Errorf("app %q: %w", name, err)
	}
	in.IDs[name] = ids
	return nil
}

// facts looks at the host.
func facts(env Env, r abi.Run, dir string) (plan.Facts, error) {
	f := plan.Facts{PodDir: dir, Machine: podfs.DefaultMachine(r.UUID), LdSoCache: exists("/etc/ld.so.cache")}
	if b, err := os.ReadFile(podfs.MachineName); err == nil {
		f.Machine = strings.TrimSpace(string(b))
	}
	f.Terminal = term.IsTerminal(0) && term.IsTerminal(1)
	f.InUnit = env.get("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid())
	f.Declared = f.InUnit && exists(podfs.DeclaredName)
	var err error
	if f.LogUnit, err = logUnit(f); err != nil {
		return f, err
	}
	if f.Nspawn, err = find("systemd-nspawn", "systemd-container"); err != nil {
		return f, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return f, errors.New("this host does not use the unified cgroup hierarchy (cgroup v2), which pods need; " +
			"boot it with systemd.unified_cgroup_hierarchy=1 on the kernel command line")
	}
	if !exists("/run/systemd/system") {
		return f, errors.New("this host was not booted with systemd, which pods need")
	}
	if !exists("/usr/share/dbus-1/system-services/org.freedesktop.machine1.service") {
		return f, errors.New("systemd-machined is missing; install the package that has it (Debian: systemd-container)")
	}
	if !exists("/run/dbus/system_bus_socket") {
		return f, errors.New("the system bus is not there, and machined cannot be reached without it; install and start dbus (Debian: dbus)")
	}
	f.Register = true
	return f, inotify()
}

// inotify asks the kernel for the three instances the pod's systemd needs.
func inotify() error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for range 3 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if errors.Is(err, unix.EMFILE) {
			b, _ := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
			return fmt.Errorf("too few inotify instances are left for another pod (fs.inotify.max_user_instances is %s, each pod takes 3); "+
				"raise it: sysctl -w fs.inotify.max_user_instances=8192, or apply the file that rkt installs: systemctl restart systemd-sysctl",
				bytes.TrimSpace(b))
		}
		if err != nil {
			return fmt.Errorf("making an inotify instance: %w", err)
		}
		fds = append(fds, fd)
	}
	return nil
}

func find(program, pkg string) (string, error) {
	for _, d := range []string{"/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"} {
		p := filepath.Join(d, program)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is missing; install the package that has it (Debian: %s)", program, pkg)
}

// forwardedPorts matches the pod's ports with those its apps declare.
func forwardedPorts(in plan.Input) ([]network.Port, error) {
	var all, out []network.Port
	for _, e := range in.Pod.Ports {
		p := network.Port{HostPort: int(e.HostPort), HostIP: ""}
		if e.HostIP != nil {
			p.HostIP = e.HostIP.String()
		}
		pp := e.PodPort
		if pp == nil {
			found, err := appc.PodPort(in.Pod, e.Name, func(ra *schema.RuntimeApp) *types.App {
				if ra.App != nil {
					return ra.App
				}
				return in.Images[ra.Name.String()].App
			})
			if err != nil {
				return nil, err
			}
			pp = &found
		}
		p.PodPort, p.Protocol = int(pp.Port), pp.Protocol
		if p.HostPort <= 0 || p.HostPort > 65535 {
			return nil, fmt.Errorf("port %q: %d is not a valid host port", e.Name, p.HostPort)
		}
		for _, q := range all {
			if p.Overlaps(q) {
				return nil, fmt.Errorf("port %s already mapped to pod port %d", p.Name(), q.PodPort)
			}
		}
		all = append(all, p)
		// what comes to a socket that was passed needs no forwarding
		if !slices.ContainsFunc(in.Facts.Listeners, func(l plan.Listener) bool { return l.Protocol == p.Protocol && l.Port == p.HostPort }) {
			out = append(out, p)
		}
	}
	return out, nil
}

// records writes the files by which others find the pod: its cgroup before its
// process (the contract's order).
func records(in plan.Input) error {
	cg, err := cgroup(in)
	if err != nil {
		return err
	}
	lock, err := nspawnLock()
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, data string }{{podfs.Subcgroup, cg}, {podfs.NspawnLock, lock}, {podfs.Ppid, strconv.Itoa(os.Getpid()) + "\n"}} {
		tmp := "." + f.name + ".new"
		if err := os.WriteFile(tmp, []byte(f.data), 0o644); err != nil {
			return err
		}
		if err := os.Rename(tmp, f.name); err != nil {
			return err
		}
	}
	return nil
}

// cgroup is where the pod's processes will be, relative to the root of the hierarchy.
func cgroup(in plan.Input) (string, error) {
	if !in.Facts.InUnit {
		return "machine.slice/" + in.Facts.LogUnit + "/payload", nil
	}
	cg, err := ownCgroup()
	return cg + "/payload", err
}

// ownCgroup is this process's cgroup without a leading slash.
func ownCgroup() (string, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if cg, ok := strings.CutPrefix(sc.Text(), "0::/"); ok {
			return cg, nil
		}
	}
	return "", errors.New("this process is in no unified cgroup")
}

// logUnit is the unit journald finds the pod's processes in: the unit that
// runs rkt, else the scope that machined makes for the machine.
func logUnit(f plan.Facts) (string, error) {
	if !f.InUnit {
		return podfs.Scope(f.Machine), nil
	}
	cg, err := ownCgroup()
	if err != nil {
		return "", err
	}
	for part := range strings.SplitSeq(cg, "/") {
		if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
			return part, nil
		}
	}
	return "", fmt.Errorf("the cgroup %q belongs to no unit", cg)
}
