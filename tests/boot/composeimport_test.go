//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

const (
	composeDir      = "/var/tmp/compose"
	composeRegistry = "127.0.0.1:5007"
)

// composeImages serves images of Debian's packages on a registry of the host,
// under the names that the projects use.
func (f *fixture) composeImages() {
	f.t.Helper()
	f.t.Cleanup(func() {
		f.trySh(`systemctl stop test-compose-registry; rm -rf ` + composeDir + ` /etc/rkt/registries.d/compose.json
			rkt image list --no-legend --full --fields=id,name | awk '$2 ~ /` + composeRegistry + `/ {print $1}' | xargs -r rkt image rm`)
	})
	f.config("registries.d", "compose", m{"rktKind": "registry", "rktVersion": "v1", "prefix": composeRegistry, "insecure": true, "verify": "none"})
	push := ""
	for _, i := range []struct{ name, config string }{
		{"nginx", `{"Entrypoint": ["/usr/sbin/nginx"], "Cmd": ["-c", "/etc/nginx.conf"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}`},
		{"redis", `{"Entrypoint": ["/usr/bin/redis-server"], "Cmd": ["--version"], "User": "redis", "WorkingDir": "/var/lib/redis"}`},
		{"postgres", `{"Entrypoint": ["/start"], "User": "postgres", "WorkingDir": "/var/lib/postgresql", "StopSignal": "SIGINT"}`},
		{"python", `{"Entrypoint": ["/usr/bin/python3"], "User": "1000:1000"}`},
	} {
		push += fmt.Sprintf("push %s %s '%s' &\n", i.name, f.image(i.name, i.name), i.config)
	}
	// as docker-registry keeps them: a tool that pushes them would take longer than all of the test
	f.sh(fmt.Sprintf(`set -e; rm -rf %[1]s; mkdir -p %[1]s; cd %[1]s
		printf 'version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %[1]s/registry}}\nhttp: {addr: "%[2]s"}\n' >registry.yml
		systemctl disable --quiet --now docker-registry 2>/dev/null || true
		systemd-run --quiet --collect --unit=test-compose-registry docker-registry serve %[1]s/registry.yml 2>/dev/null
		v2=%[1]s/registry/docker/registry/v2
		blob() { # FILE DIR...: keep it, with links; prints what a descriptor says of it
			local f=$1 size d; shift; size=$(stat -c %%s $f); d=$(sha256sum <$f | cut -d' ' -f1)
			mkdir -p $v2/blobs/sha256/${d:0:2}/$d; mv $f $v2/blobs/sha256/${d:0:2}/$d/data
			for l; do mkdir -p $l/sha256/$d; printf sha256:$d >$l/sha256/$d/link; done; echo "\"digest\":\"sha256:$d\",\"size\":$size"; }
		push() { # NAME ACI CONFIG: an image of one layer
			local r=$v2/repositories/svc/$1 t=application/vnd.oci.image l c m; mkdir -p $1/x; cd $1; tar -C x -xf $2 rootfs; tar -C x/rootfs -cf l .; l=$(blob l $r/_layers)
			echo "{\"architecture\":\"$(dpkg --print-architecture)\",\"os\":\"linux\",\"config\":$3,\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"$(grep -o 'sha256:[0-9a-f]*' <<<"$l")\"]}}" >c; c=$(blob c $r/_layers)
			echo "{\"schemaVersion\":2,\"mediaType\":\"$t.manifest.v1+json\",\"config\":{\"mediaType\":\"$t.config.v1+json\",$c},\"layers\":[{\"mediaType\":\"$t.layer.v1.tar\",$l}]}" >m
			m=$(blob m $r/_manifests/revisions $r/_manifests/tags/1/index); m=$(grep -o 'sha256:[0-9a-f]*' <<<"$m"); mkdir -p $r/_manifests/tags/1/current; printf $m >$r/_manifests/tags/1/current/link
			cd ..; rm -rf $1; }
		%[3]s
		for job in $(jobs -p); do wait $job; done
		for ((i = 0; i < 600; i++)); do (exec 3<>/dev/tcp/127.0.0.1/5007) 2>/dev/null && exit; sleep 0.1; done; exit 1`, composeDir, composeRegistry, push))
}

// A shop of three layers: nginx asks a program in Python, that asks redis, by
// another name of it. They have a secret, a configuration and variables.
const composeShop = `
name: shop
services:
  front:
    image: ${REGISTRY}/svc/nginx:1
    ports: ["127.0.0.1:8090:80"]
    volumes:
      - ./nginx.conf:/etc/nginx.conf:ro
      - logs:/logs
    depends_on: [web]
    restart: on-failure
  web:
    image: ${REGISTRY}/svc/python:1
    command: ["-u", /app.py]
    env_file: [app.env]
    environment:
      GREETING: "hello $$HOME"
    configs: [{source: app, target: /app.py}]
    secrets: [{source: token, target: api-token}]
    stop_signal: SIGINT
    mem_limit: 256m
    networks: [default, back]
    depends_on:
      cache: {condition: service_healthy}
  cache:
    image: ${REGISTRY}/svc/redis:1
    command: --bind 0.0.0.0 --protected-mode no --dir /data
    user: "999:999"
    volumes: ["data:/data"]
    networks: {back: {aliases: [store]}}
    healthcheck: {test: [CMD, /usr/bin/redis-cli, ping], interval: 1s}
    read_only: true
volumes: {data: {}, logs: {}}
networks: {back: {}}
configs:
  app:
    content: |
      import http.server, os, socket
      class Handler(http.server.BaseHTTPRequestHandler):
          def do_GET(self):
              s = socket.create_connection((os.environ["STORE"], 6379), 5)
              s.sendall(b"INCR hits\r\n")
              n = s.recv(100).decode().strip()
              names = ",".join(sorted({socket.gethostbyname(x) == s.getpeername()[0] and x or "!" + x for x in ("cache", "store", "shop-cache")}))
              body = "|".join([os.environ["GREETING"], os.environ["QUOTED"], open("/run/secrets/api-token").read().strip(), n, names, socket.gethostname()])
              self.send_response(200)
              self.end_headers()
              self.wfile.write(body.encode())
      http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
secrets: {token: {file: ./token}}
`

// A database, what has to be done with it before it is used, and who uses it.
const composeLedger = `
services:
  db:
    image: ${REGISTRY}/svc/postgres:1
    volumes: [{type: volume, source: data, target: /var/lib/postgresql/data}]
    user: postgres:postgres
    # that of the image trusts its own host alone
    entrypoint: [/bin/sh, -c, "busybox sed 's|-k /tmp|& -c hba_file=/etc/pg_hba.conf|' /start >/tmp/start; exec /bin/sh /tmp/start"]
    configs: [{source: access, target: /etc/pg_hba.conf}]
    healthcheck: {test: "psql -h /tmp -U postgres -c 'select 1'", interval: 1s, start_period: 20s}
    networks: [inside]
  trust:
    image: ${REGISTRY}/svc/postgres:1
    network_mode: service:db
    entrypoint: [/bin/sh, -c, "until psql -h 127.0.0.1 -U postgres -Atc 'select 7'; do busybox sleep 0.1; done; exec busybox sleep 1000"]
    restart: always
  migrate:
    image: ${REGISTRY}/svc/postgres:1
    entrypoint: [/usr/bin/psql, -h, db, -U, postgres, -c, "create table if not exists t as select generate_series(1, 100) as n; insert into t values (1000)"]
    depends_on: {db: {condition: service_healthy}}
    networks: [inside]
  report:
    image: ${REGISTRY}/svc/postgres:1
    entrypoint: [/bin/sh, -c, "psql -h db -U postgres -Atc 'select sum(n) from t'; exec busybox sleep 1000"]
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    networks: [inside]
networks: {inside: {internal: true}}
configs: {access: {content: "local all all trust\nhost all all all trust\n"}}
volumes: {data: {}}
`

// A program under limits of its own, put together of three files.
const (
	composeBoard = `
include: [more/compose.yaml]
services:
  board:
    extends: {file: common.yaml, service: python}
    command: ["-u", -c, "$SCRIPT"]
    ports: ["127.0.0.1:8092:8080"]
    links: ["extra:friend"]
`
	composeCommon = `
services:
  python:
    image: 127.0.0.1:5007/svc/python:1
    user: "1000:1000"
    ulimits: {nofile: 321}
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    read_only: true
    tmpfs: ["/scratch:uid=1000,mode=0700"]
    working_dir: /scratch
    pids_limit: 50
    cpus: 0.5
    hostname: board.example.com
    extra_hosts: ["elsewhere:192.0.2.9"]
    sysctls: {net.ipv4.ip_default_ttl: "77"}
    stop_signal: SIGKILL
`
	composeMore = `
services:
  extra:
    image: 127.0.0.1:5007/svc/python:1
    entrypoint: [/usr/bin/python3, -m, http.server, "--directory", /srv, "8081"]
    volumes: ["./page:/srv/page:ro"]
    healthcheck: {test: [CMD, /usr/bin/python3, -c, "import urllib.request as u; u.urlopen('http://127.0.0.1:8081/page')"], interval: 1s}
`
	boardScript = `
import http.server, os, resource, socket, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = dict(l.split(None, 1) for l in open('/proc/self/status') if len(l.split()) > 1)
        open('/scratch/x', 'w').write('x')
        body = '|'.join([str(os.getuid()), str(resource.getrlimit(resource.RLIMIT_NOFILE)), status['CapBnd:'].strip(), status['NoNewPrivs:'].strip(), os.getcwd(), socket.gethostname(),
            socket.gethostbyname('elsewhere'), open('/proc/sys/net/ipv4/ip_default_ttl').read().strip(), urllib.request.urlopen('http://friend:8081/page').read().decode().strip()])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())
http.server.ThreadingHTTPServer(('', 8080), Handler).serve_forever()
`
)

// TestComposeImport: projects of compose become pods by one command each; the
// pod that is asked for starts the others, in order, and they find each other.
func TestComposeImport(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.composeImages()
	write := func(name, text string) { f.Write(t, composeDir+"/"+name, 0o644, []byte(text)) }
	f.sh("mkdir -p " + composeDir + "/any " + composeDir + "/ledger")
	write("any/compose.yaml", composeShop)
	write("any/.env", "REGISTRY="+composeRegistry+"\n")
	write("any/app.env", "# for the program\nSTORE=store\nQUOTED=\"two words\"\n")
	write("any/token", "s3cret\n")
	write("any/nginx.conf", `daemon off; user www-data; pid /tmp/nginx.pid; error_log stderr notice; events {}
http { access_log /logs/access.log; server { listen 80; location / { proxy_pass http://web:8080; } } }
`)
	write("ledger/docker-compose.yml", composeLedger)
	f.sh("mkdir -p " + composeDir + "/board/more")
	write("board/compose.yaml", composeBoard)
	write("board/common.yaml", composeCommon)
	write("board/more/compose.yaml", composeMore)
	write("board/more/page", "a page\n")
	write("board/.env", "SCRIPT=\""+strings.ReplaceAll(strings.ReplaceAll(boardScript, "\\", "\\\\"), "\n", "\\n")+"\"\n")
	pods := []string{"board", "board-extra", "board-python", "shop-front", "shop-web", "shop-cache", "ledger-db", "ledger-migrate", "ledger-report"}
	t.Cleanup(func() {
		f.trySh("systemctl stop rkt-completed@ledger-migrate")
		f.forget(pods...)
		f.sh(`for l in $(ip -br link show type bridge | awk '/^rkt-/ {print $1}'); do ip link delete $l; done
			rm -rf /etc/rkt/compose /etc/rkt/net.d/{shop,board}_*.conflist /etc/rkt/net.d/ledger_inside.conflist /etc/tmpfiles.d/rkt-volume-{shop,ledger}_*.conf /var/lib/rkt-volumes/shop_* /var/lib/rkt-volumes/ledger_* /var/lib/rkt/cni/{shop,board}_* /var/lib/rkt/cni/ledger_inside`)
		f.unchanged(before)
	})

	_, dry, code := f.trySh("rkt pod import --dry-run " + composeDir + "/any")
	if code != 0 || f.sh("ls /etc/rkt/pods | grep ^shop || true") != "" {
		t.Errorf("a dry run: status %d\n%s", code, dry)
	}
	_, report, code := f.trySh("rkt pod import " + composeDir + "/any && REGISTRY=" + composeRegistry + " rkt pod import " + composeDir + "/ledger && rkt pod import " + composeDir + "/board")
	if code != 0 {
		t.Fatalf("rkt pod import: status %d\n%s", code, report)
	}
	contains(t, "the report", report, "services.web.env_file", "volumes.data", `"store"`, "rkt-completed@ledger-migrate.service")
	if out, stderr, code := f.trySh("rkt pod check --strict " + strings.Join(pods, " ")); code != 0 {
		t.Errorf("rkt pod check: %d %s%s", code, out, stderr)
	}
	equal(t, "modes", f.sh("stat -c '%a' /etc/rkt/compose/shop/web-0.env"), "600\n")

	f.systemctl("start", "rkt@shop-front", "rkt@ledger-report", "rkt@board")
	const ask = `curl -fsS --max-time 30 http://127.0.0.1:8090/`
	equal(t, "the answer through all layers", f.Eventually(t, soon, "bash", "-c", ask), "hello $HOME|two words|s3cret|:1|cache,shop-cache,store|web")
	equal(t, "what the named volume holds", f.sh("rkt exec shop-cache -- /usr/bin/redis-cli save; ls /var/lib/rkt-volumes/shop_data"), "OK\ndump.rdb\n")
	equal(t, "what the board says of itself", f.Eventually(t, soon, "curl", "-fsS", "--max-time", "5", "http://127.0.0.1:8092/"),
		"1000|(321, 321)|0000000000000000|1|/scratch|board.example.com|192.0.2.9|77|a page")
	contains(t, "bounds of the board", f.sh("systemctl -M board show -p TasksMax,CPUQuotaPerSecUSec board.service"), "TasksMax=50", "CPUQuotaPerSecUSec=500ms")
	f.waitLog("ledger-report", "report", "6050")
	f.waitLog("ledger-db", "trust", "7")
	equal(t, "the pod that had to end first", f.show("rkt@ledger-migrate", "ActiveState")+" "+f.show("rkt-completed@ledger-migrate", "ActiveState"), "inactive active")

	// The data outlive the pods.
	f.systemctl("restart", "rkt@shop-cache")
	equal(t, "the answer after a restart", f.Eventually(t, soon, "bash", "-c", ask), "hello $HOME|two words|s3cret|:2|cache,shop-cache,store|web")
}
