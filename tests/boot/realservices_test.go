//go:build boot

package boot

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// realService is a service of Debian, as an image of tests/images/mkimage.
type realService struct {
	name string
	// oci are the options of umoci that say in an OCI image what the manifest of the ACI says.
	oci string
	// app is the app in the pod file, beside name and image; more are the pod's other apps.
	app  m
	more []m
	// volumes of the pod.
	volumes []string
	// user is the app's first process's, in the pod.
	user int
	// probe is a script on the host that succeeds when the service of the pod $1 answers as it should.
	probe string
	// store makes the service keep something, kept checks that it has it: after the app was killed, after a restart of the pod.
	store, kept string
	// entered is a program of the image with what it prints.
	entered, prints string
	// logged is what an app logs of the probe.
	logger, logged string
	// processes is how many the app has, at least.
	processes int
}

const (
	realDir = "/var/tmp/real"
	psql    = "/usr/bin/psql -h /tmp -U postgres -At -c "
	// A web server whose answers come from three processes of its own; the queues between them are in shared memory.
	workers = `
import http.server, multiprocessing, os, signal
def square(n):
    return f"{n * n} by {os.getpid()}\n"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = pool.apply(square, (int(self.path[1:]),)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        with open("/data/requests", "a") as f:
            f.write(self.path + "\n")
# systemd asks all processes of an app to end
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
pool = multiprocessing.get_context("fork").Pool(3)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
`
)

var realServices = []realService{
	{name: "nginx", oci: "--config.entrypoint /usr/sbin/nginx --config.cmd -c --config.cmd /etc/nginx.conf --config.exposedports 80/tcp --config.stopsignal SIGQUIT",
		app:  m{"mounts": []string{"volume=logs,target=/logs"}},
		more: []m{app("ship", "exec tail -n +1 -F /logs/access.log", m{"user": "1000", "group": "1000", "mounts": []string{"volume=logs,target=/logs"}})},
		// the shipper is another user, and has no right to write
		volumes: []string{"logs,kind=empty,mode=0755"},
		probe:   `curl -fsS --max-time 30 "http://$1/" | grep -x "a page of the image"`,
		entered: "/usr/sbin/nginx -v 2>&1", prints: "nginx version", logger: "ship", logged: `"GET / HTTP/1.1" 200`, processes: 3},
	// args follow the command of an ACI, and take the place of an OCI image's CMD
	{name: "redis", user: 999, oci: "--config.entrypoint /usr/bin/redis-server --config.cmd --version --config.user redis --config.workingdir /var/lib/redis --config.volume /var/lib/redis",
		app: m{"args": []string{"--bind", "0.0.0.0", "--protected-mode", "no", "--appendonly", "yes", "--appendfsync", "always"},
			"mounts": []string{"volume=data,target=/var/lib/redis"}},
		volumes: []string{"data,kind=host,source=" + realDir + "/redis,owner=app"},
		probe:   `timeout 30 redis-cli -h "$1" ping | grep PONG`, store: `redis-cli -h "$1" set k kept`, kept: `timeout 30 redis-cli -h "$1" get k | grep -x kept`,
		entered: "/usr/bin/redis-cli --version", prints: "redis-cli", logger: "redis", logged: "Ready to accept connections", processes: 1},
	{name: "postgres", user: 100, oci: "--config.entrypoint /start --config.user postgres --config.workingdir /var/lib/postgresql --config.volume /var/lib/postgresql/data --config.stopsignal SIGINT",
		app:     m{"mounts": []string{"volume=data,target=/var/lib/postgresql/data"}},
		volumes: []string{"data,kind=host,source=" + realDir + "/postgres,owner=app"},
		probe:   `timeout 30 rkt exec --app=postgres "$1" -- ` + psql + `"select 6 * 7" | grep -x 42`,
		store:   `rkt exec --app=postgres "$1" -- ` + psql + `"create table t as select generate_series(1, 1000) as n"`,
		kept:    `timeout 30 rkt exec --app=postgres "$1" -- ` + psql + `"select sum(n) from t" | grep -x 500500`,
		entered: "/usr/bin/psql --version", prints: "PostgreSQL", logger: "postgres", logged: "database system is ready to accept connections", processes: 6},
	{name: "python", user: 1000, oci: "--config.entrypoint /usr/bin/python3 --config.user 1000:1000",
		app:     m{"exec": []string{"/usr/bin/python3", "-u", "-c", workers}, "mounts": []string{"volume=data,target=/data"}},
		volumes: []string{"data,kind=host,source=" + realDir + "/python,owner=app"},
		probe:   `for i in 1 2 3 4 5 6 7 8; do curl -fsS --max-time 30 "http://$1:8080/12"; done | sort | uniq -c | awk '/144 by/ {n++} END {exit n < 2}'`,
		store:   `true`, kept: `[ $(wc -l <` + realDir + `/python/requests) -ge 3 ]`,
		entered: `/usr/bin/python3 -c 'print("it", "is", 6*7)'`, prints: "it is 42", logger: "python", logged: `"GET /12 HTTP/1.1" 200`, processes: 4},
}

// realImages makes the service's images, an ACI and an OCI layout.
func (f *fixture) realImages(s *realService) map[string]string {
	f.t.Helper()
	aci := f.image(s.name, s.name)
	dir := realDir + "/oci-" + s.name
	f.sh(fmt.Sprintf(`mkdir -p %[1]s/x && cd %[1]s && tar -C x -xf %[2]s rootfs && tar -C x/rootfs -cf x.tar . && umoci init --layout oci && umoci new --image oci:1
		umoci raw add-layer --image oci:1 x.tar >/dev/null 2>&1 && umoci config --image oci:1 %[3]s && rm -rf x x.tar`, dir, aci, strings.ReplaceAll(s.oci, "\n", " ")))
	return map[string]string{"aci": aci, "oci": "oci:" + dir + "/oci:1"}
}

// Services as Debian packages them run as images of both kinds, with users of
// their own and with the host's, under the limits, the capabilities and the
// system calls that everything has; they are entered; they come back with their
// data when the app is killed, and when the pod is restarted.
func TestRealServices(t *testing.T) {
	f := open(t)
	f.sh("rm -rf " + realDir)
	t.Cleanup(func() { f.trySh("rm -rf " + realDir) })
	for i := range realServices {
		s := &realServices[i]
		t.Run(s.name, func(t *testing.T) {
			f := &fixture{Host: f.Host, t: t, since: f.since}
			before := f.snapshot()
			for kind, image := range f.realImages(s) {
				for _, private := range []bool{true, false} {
					if private == (kind == "oci") && os.Getenv("RKT_TEST_FULL") == "" {
						continue // each service in both kinds of image and with both kinds of users, not all four ways
					}
					t.Run(fmt.Sprintf("%s private users %t", kind, private), func(t *testing.T) {
						f := &fixture{Host: f.Host, t: t, since: f.since}
						f.realService(s, image, private)
					})
				}
			}
			f.unchanged(before)
		})
	}
}

func (f *fixture) realService(s *realService, image string, private bool) {
	t := f.t
	name := "real-" + s.name
	f.sh(fmt.Sprintf("rm -rf %[1]s/%[2]s; mkdir -m 700 -p %[1]s/%[2]s", realDir, s.name))
	a := m{"name": s.name, "image": image, "systemd": m{"service": m{"Restart": "on-failure", "RestartSec": "100ms"}}}
	for k, v := range s.app {
		a[k] = v
	}
	pod := m{"apps": append([]m{a}, s.more...), "volumes": s.volumes, "rkt": m{"insecureOptions": []string{"image"}}}
	if !private {
		pod["rkt"].(m)["privateUsers"] = false
	}
	f.declare(name, service(pod, m{"MemoryMax": "512M", "TasksMax": 200}))
	f.start(name)
	sh := func(script string) string { return f.Run(t, "timeout", "30", "bash", "-c", script, "-", name) }
	probe := func(script string) { f.Eventually(t, soon, "bash", "-c", script, "-", name) }
	if probe(s.probe); t.Failed() {
		return
	}
	f.waitLog(name, s.logger, s.logged)

	// the first process, its user, whether it has a filter; how many there are; two limits of the unit
	group := "/sys/fs/cgroup" + f.show("rkt@"+name, "ControlGroup") + "/payload/system.slice/" + s.name + ".service/cgroup.procs"
	facts := strings.Fields(sh(`p=$(head -1 "` + group + `"); echo $p $(awk '$1 ~ /^(Uid|Seccomp):/ {print $2}' /proc/$p/status) $(wc -l <"` + group + `") \
		$(systemctl show --value -p MemoryMax -p TasksMax "rkt@$1")`))
	shift := 0
	if private {
		shift = f.shift(name)
	} else if p := f.podOf(name, "running"); p["private_users"] != nil {
		t.Errorf("the pod has private users: %v", p)
	}
	if len(facts) != 6 {
		t.Fatalf("the app's processes: %q", facts)
	}
	pid, limits := facts[0], facts[4:]
	equal(t, "user and filter of the first process", facts[1:3], []string{strconv.Itoa(shift + s.user), "2"})
	if n, err := strconv.Atoi(facts[3]); err != nil || n < s.processes {
		t.Errorf("%s processes, not %d", facts[3], s.processes)
	}
	sort.Strings(limits)
	equal(t, "limits of the unit", limits, []string{"200", "536870912"})
	for _, way := range []string{`rkt enter --app=` + s.name + ` "$1" `, `rkt exec --app=` + s.name + ` "$1" -- `} {
		contains(t, way, sh(way+s.entered), s.prints)
	}

	if s.store != "" {
		sh(s.store)
	}
	f.sh("kill -9 " + pid)
	probe(`p=$(head -1 "` + group + `" 2>/dev/null) && [ -n "$p" ] && [ "$p" != ` + pid + ` ]`)
	probe(s.probe)
	equal(t, "starts of the unit after the app was killed", f.show("rkt@"+name, "NRestarts"), "0")
	uuid := f.uuid(name)
	if s.kept != "" {
		probe(s.kept)
	}
	f.systemctl("restart", "rkt@"+name)
	if again := f.uuid(name); again == uuid {
		t.Errorf("the restart led to the same pod %s", uuid)
	}
	probe(s.probe)
	if s.kept != "" {
		probe(s.kept)
		// what the app's user made in its volume belongs on disk to the directory's owner
		equal(t, "owners on disk", strings.Fields(f.sh("find "+realDir+"/"+s.name+` -printf '%U:%G\n' | sort -u`)), []string{"0:0"})
	}
	f.stop(name)
	equal(t, "the outcome", f.show("rkt@"+name, "Result"), "success")
	contains(t, "the pod's status", f.sh("rkt list --no-legend"), "exited")
	f.forget(name)
}

// A volume of the image of a database that nobody gave a place has what the
// image has there, belongs to the app, and lives as long as the pod.
// check list: runtime 24
func TestSeededDatabase(t *testing.T) {
	f := open(t)
	f.sh("rm -rf " + realDir)
	t.Cleanup(func() { f.trySh("rm -rf " + realDir) })
	var s *realService
	for i := range realServices {
		if realServices[i].name == "postgres" {
			s = &realServices[i]
		}
	}
	image := f.realImages(s)["oci"]
	for _, private := range []bool{true, false} {
		before := f.snapshot()
		p := m{"apps": []m{{"name": "postgres", "image": image, "systemd": m{"service": m{"Restart": "on-failure"}}}}, "rkt": m{"net": "none", "insecureOptions": "image"}}
		f.declare("seeded", users(p, private))
		f.start("seeded")
		run := func(script string) { f.Eventually(t, soon, "bash", "-c", script, "-", "seeded") }
		run(s.probe)
		equal(t, "the volume", f.sh("timeout 60 rkt exec seeded -- /bin/busybox stat -c '%n %a %u:%g' /var/lib/postgresql/data /var/lib/postgresql/data/seed"),
			"/var/lib/postgresql/data 700 100:102\n/var/lib/postgresql/data/seed 644 100:102\n")
		run(s.store)
		f.sh(`kill -9 $(head -1 "/sys/fs/cgroup$(systemctl show --value -p ControlGroup rkt@seeded)/payload/system.slice/postgres.service/cgroup.procs")`)
		run(s.kept)
		f.forget("seeded")
		f.unchanged(before)
	}
}
