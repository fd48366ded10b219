//go:build boot

package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	importDir      = "/var/tmp/import"
	importRegistry = "127.0.0.1:5008"
	importUnits    = "../../stage0/podimport/sources/testdata/quadlet/"
)

// importImages has a registry of the host stand for those of the world: images of
// Debian's packages have the names that the units of Quadlet use.
func (f *fixture) importImages() {
	f.t.Helper()
	many := f.image("import", "--packages", "nginx,redis-server,redis-tools,mosquitto,prometheus-node-exporter,docker-registry,python3,dash", "--name", "example.com/many", "plain")
	hosts := ""
	for _, host := range []string{"docker.io", "ghcr.io", "quay.io", "registry.example.com"} {
		f.config("registries.d", "import-"+host, m{"rktKind": "registry", "rktVersion": "v1", "prefix": host, "location": importRegistry + "/" + host, "insecure": true, "verify": "none"})
		hosts += " /etc/rkt/registries.d/import-" + host + ".json"
	}
	f.t.Cleanup(func() {
		f.trySh(`systemctl stop test-import-registry; rm -rf ` + importDir + hosts + `
			rkt image list --no-legend --full --fields=id,name | awk '$2 ~ /docker.io|ghcr.io|quay.io|registry.example.com|registry-1/ {print $1}' | xargs -r rkt image rm`)
	})
	serve := `["/usr/bin/python3", "-m", "http.server", "%s"]`
	push := ""
	for _, i := range []struct{ aci, name, config string }{
		{many, "docker.io/library/redis:7", `{"Entrypoint": ["/entrypoint"], "Cmd": ["redis-server"], "WorkingDir": "/data"}`},
		{many, "docker.io/library/nginx:1.27-alpine", `{"Entrypoint": ["/usr/sbin/nginx"], "Cmd": ["-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}}}`},
		{many, "ghcr.io/example/site:3", `{"Cmd": ` + fmt.Sprintf(serve, "8000") + `}`},
		{many, "docker.io/library/eclipse-mosquitto:2", `{"Entrypoint": ["/usr/sbin/mosquitto"], "Cmd": ["-c", "/mosquitto/config/mosquitto.conf"]}`},
		{many, "quay.io/prometheus/node-exporter:v1.8.1", `{"Entrypoint": ["/usr/bin/prometheus-node-exporter"], "User": "65534:65534"}`},
		{many, "docker.io/library/registry:2", `{"Entrypoint": ["/entrypoint"], "Cmd": ["/etc/docker/registry/config.yml"]}`},
		{many, "registry.example.com/team/worker:2", `{"Cmd": ["/app/worker"]}`},
	} {
		push += fmt.Sprintf("push %s %s '%s' &\n", filepath.Base(i.aci), i.name, i.config)
	}
	f.sh(fmt.Sprintf(`set -e; rm -rf %[1]s; mkdir -p %[1]s; cd %[1]s
		printf 'version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %[1]s/registry}}\nhttp: {addr: "%[2]s"}\n' >registry.yml
		systemctl disable --quiet --now docker-registry 2>/dev/null || true
		systemd-run --quiet --collect --unit=test-import-registry docker-registry serve %[1]s/registry.yml 2>/dev/null
		layer() { # ACI: an OCI layout with its root file system as one layer
			n=$(basename $1); mkdir -p $n/x $n/o/blobs/sha256; cd $n; tar -C x -xf $1 rootfs; r=x/rootfs
			mkdir -p $r/app/bin $r/data; chmod 755 $r/app $r/app/bin; echo ok >$r/app/healthz; echo "a page of the app" >$r/app/index.html
			printf '#!/bin/sh\n[ "$1" != redis-server ] || set -- "$@" --protected-mode no\nexec "$@"\n' >$r/entrypoint
			printf '#!/usr/bin/python3\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[2])\n' >$r/app/bin/healthcheck
			printf '#!/usr/bin/python3\nimport sys, time\nprint("worker", *sys.argv[1:], flush=True)\ntime.sleep(1000)\n' >$r/app/worker
			ln -sf docker-registry $r/usr/bin/registry
			mkdir -p $r/var/log/nginx $r/var/lib/nginx; grep -q ^www-data: $r/etc/passwd || { echo www-data:x:33:33::/:/bin/sh >>$r/etc/passwd; echo www-data:x:33: >>$r/etc/group; }
			chmod 755 $r/entrypoint $r/app/bin/healthcheck $r/app/worker
			tar -C $r -cf l .; sha256sum <l | cut -d' ' -f1 >id; gzip -1 l; d=$(sha256sum <l.gz | cut -d' ' -f1); stat -c %%s l.gz >size; mv l.gz o/blobs/sha256/$d; echo $d >digest
			echo '{"imageLayoutVersion":"1.0.0"}' >o/oci-layout; rm -rf x; cd ..; }
		push() { # ACI NAME CONFIG
			t=application/vnd.oci.image; n=$(basename $1); w=$(mktemp -d %[1]s/XXXXXX); mkdir -p $w/blobs/sha256; ln %[1]s/$n/o/blobs/sha256/* $w/blobs/sha256/; cp $n/o/oci-layout $w/
			blob() { d=$(sha256sum <"$1" | cut -d' ' -f1); s=$(stat -c %%s "$1"); mv "$1" "$w/blobs/sha256/$d"; echo "\"digest\":\"sha256:$d\",\"size\":$s"; }
			echo "{\"architecture\":\"$(dpkg --print-architecture)\",\"os\":\"linux\",\"config\":$3,\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$(cat $n/id)\"]}}" >$w/c
			echo "{\"schemaVersion\":2,\"mediaType\":\"$t.manifest.v1+json\",\"config\":{\"mediaType\":\"$t.config.v1+json\",$(blob $w/c)},\"layers\":[{\"mediaType\":\"$t.layer.v1.tar+gzip\",\"digest\":\"sha256:$(cat $n/digest)\",\"size\":$(cat $n/size)}]}" >$w/m
			echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"$t.manifest.v1+json\",$(blob $w/m),\"annotations\":{\"org.opencontainers.image.ref.name\":\"1\"}}]}" >$w/index.json
			skopeo copy -q --dest-tls-verify=false oci:$w:1 docker://%[2]s/$2; rm -rf $w; }
		layer %[3]s
		for ((i = 0; ; i++)); do (exec 3<>/dev/tcp/127.0.0.1/5008) 2>/dev/null && break; [ $i -lt 200 ]; sleep 0.1; done
		%[4]s
		for job in $(jobs -p); do wait $job; done`, importDir, importRegistry, many, push))
}

// TestPodImport imports units of Quadlet of a directory by one command: what was a
// set of podman's services runs under rkt, by the names and ports that it had.
func TestPodImport(t *testing.T) {
	f := open(t)
	f.Alone(t)
	f.importImages() // its cleanup comes after that of the pods
	t.Cleanup(func() {
		f.trySh("systemctl stop 'rkt@*'; cd /etc/rkt/pods && rm -f redis.json web.json site.json mosquitto.json node-exporter.json registry.json worker@.json; " +
			"rm -rf /etc/tmpfiles.d/rkt-volume-* /etc/rkt/net.d/front.conflist /var/lib/rkt-volumes/* /etc/site /srv/www /srv/registry " +
			"/etc/registry /etc/mosquitto/mosquitto.conf /var/lib/rkt/declared/*; systemctl daemon-reload; systemctl reset-failed 'rkt@*'")
		f.trySh("ip link delete rkt-front")
		f.gc()
	})
	dir := importDir + "/units"
	for _, d := range []string{"redis", "nginx", "registry", "worker"} {
		f.importFrom(d, dir)
	}
	f.importFrom("home-assistant", dir, "mosquitto.container", "mosquitto-data.volume")
	f.importFrom("monitoring", dir, "node-exporter.container")
	f.Write(t, dir+"/nginx.conf", 0o644, []byte("server { listen 80; location / { proxy_pass http://systemd-site:8000/; } location /www/ { alias /usr/share/nginx/html/; } }\n"))
	f.sh(`set -e; mkdir -p /etc/site /srv/www /srv/registry /etc/registry /etc/mosquitto; echo MODE=test >/etc/site/env; echo static >/srv/www/page
		printf 'listener 1883\nallow_anonymous true\nuser root\npersistence true\npersistence_location /mosquitto/data/\n' >/etc/mosquitto/mosquitto.conf
		printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: ":5000"}\n' >/etc/registry/config.yml`)

	// What podman's own generator makes of the units, where there is one.
	f.sh(`g=/usr/lib/systemd/system-generators/podman-system-generator; [ ! -e $g ] || QUADLET_UNIT_DIRS=` + dir + ` $g -dryrun >/dev/null`)

	_, report, code := f.trySh("rkt pod import --dry-run --strict " + dir)
	equal(t, "the status of a strict import that drops things", code, 1)
	contains(t, "the report", report, "dropped", "front.network", "web.container", "changed", "podman volume inspect")
	f.sh("! ls /etc/rkt/pods/redis.json 2>/dev/null")
	out, report, code := f.trySh("rkt pod import " + dir)
	if code != 0 {
		t.Fatalf("rkt pod import: %s%s", out, report)
	}
	contains(t, "what was written", out, "/etc/rkt/pods/redis.json", "/etc/rkt/pods/worker@.json", "/etc/rkt/net.d/front.conflist")
	contains(t, "what to do next", report, "systemctl start ")
	f.sh("rkt pod check")
	again, _, code := f.trySh("rkt pod import " + dir)
	equal(t, "the same import once more", fmt.Sprint(code, again), fmt.Sprint(0, out))
	f.sh("sed -i 's/256mb/128mb/' " + dir + "/redis.container")
	_, report, code = f.trySh("rkt pod import " + dir)
	equal(t, "an import over changed files", code, 254)
	contains(t, "its error", report, "nothing was written", "redis.json", "--force")

	f.sh("timeout 60 systemctl start rkt@redis rkt@web rkt@mosquitto rkt@node-exporter rkt@registry rkt@worker@a || { systemctl list-jobs >&2; systemctl --failed --no-pager >&2; for p in site web redis registry mosquitto; do journalctl -n 15 --no-pager -u rkt@$p >&2; done; exit 1; }")
	equal(t, "what web requires is started by it", f.show("rkt@site", "ActiveState"), "active")

	equal(t, "redis by its port", f.tcp(6379, `SET k v\r\nGET k\r\n`, 2), "+OK\r\n$1\r\n")
	equal(t, "the app behind nginx, found by its name", f.sh("for ((i = 0; i < 50; i++)); do curl -fsS http://127.0.0.1/ 2>/dev/null && exit; sleep 0.2; done; journalctl -n 40 --no-pager -u rkt@web -o cat >&2; exit 1"), "a page of the app\n")
	equal(t, "a file of the host", f.sh("curl -fsS http://127.0.0.1/www/page"), "static\n")
	f.sh("curl -fsS http://127.0.0.1:9100/metrics >/var/tmp/metrics; grep -q ^node_ /var/tmp/metrics; rm /var/tmp/metrics")
	equal(t, "the registry", f.sh("curl -fsS http://127.0.0.1:5000/v2/"), "{}")
	f.waitLog("worker@a", "worker", "worker --queue jobs --name worker-a --id worker$")
	contains(t, "mosquitto by its port", f.sh(`exec 3<>/dev/tcp/127.0.0.1/1883; printf '\020\014\0\004MQTT\004\002\0\074\0\0' >&3; head -c 4 <&3 | od -An -tx1`), "20 02 00 00")
	f.sh("ls /var/lib/rkt-volumes/redis /var/lib/rkt-volumes/nginx-cache >/dev/null")
	equal(t, "others cannot look into volumes", f.sh("stat -c %a /var/lib/rkt-volumes"), "700\n")

	// What podman kept in a volume is kept here.
	f.sh("systemctl restart rkt@redis")
	equal(t, "the volume after a restart", f.tcp(6379, `GET k\r\n`, 1), "$1\r\n")
	f.sh("systemctl reload rkt@web; systemctl stop rkt@web rkt@site")
	equal(t, "the end of nginx by SIGQUIT", f.show("rkt@web", "Result"), "success")
}

// importFrom copies units of the converter's tests, whose names are real.
func (f *fixture) importFrom(kind, to string, only ...string) {
	f.t.Helper()
	entries, err := os.ReadDir(importUnits + kind)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() || len(only) > 0 && !strings.Contains(" "+strings.Join(only, " ")+" ", " "+e.Name()+" ") {
			continue
		}
		text, err := os.ReadFile(importUnits + kind + "/" + e.Name())
		if err != nil {
			f.t.Fatal(err)
		}
		f.Write(f.t, to+"/"+e.Name(), 0o644, text)
	}
}

// tcp sends something to a port of the host and returns the first lines of the answer.
func (f *fixture) tcp(port int, send string, lines int) string {
	f.t.Helper()
	return f.sh(fmt.Sprintf(`for ((i = 0; i < 100; i++)); do { exec 3<>/dev/tcp/127.0.0.1/%d; } 2>/dev/null && break; sleep 0.1; done; printf '%s' >&3; timeout 30 head -n %d <&3`, port, send, lines))
}
