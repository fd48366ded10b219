//go:build boot

package boot

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

const (
	regDir    = "/var/tmp/reg"
	plainHost = "127.0.0.1:5000"
	tlsHost   = "localhost:5443"
)

// registries serves images that the tools of Debian made of its nginx.
func registries(t *testing.T) *fixture {
	t.Helper()
	f := open(t)
	aci := f.image("nginx", "--packages", "nginx", "--name", "example.com/nginx", "plain")
	script, err := os.ReadFile("registry.sh")
	if err != nil {
		t.Fatal(err)
	}
	f.Write(t, "/root/registry.sh", 0o755, script)
	t.Cleanup(func() {
		f.trySh(`systemctl stop test-registry-plain test-registry-tls
			rkt image list --no-legend --full --fields=id,name | awk '$2 ~ /127.0.0.1|localhost|^reg|nginx|^oci|^zstd/ {print $1}' | xargs -r rkt image rm
			rm -rf ` + regDir + ` /etc/rkt/registries.d /etc/rkt/auth.d /etc/containers/certs.d/localhost:5443`)
	})
	if out, stderr, code := f.trySh("/root/registry.sh " + aci + " >/tmp/registry.log 2>&1 || { tail -20 /tmp/registry.log; exit 1; }"); code != 0 {
		t.Fatalf("registry.sh: %s%s", out, stderr)
	}
	return f
}

func (f *fixture) config(dir, name string, v any) {
	f.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	f.sh("mkdir -p /etc/rkt/" + dir)
	f.Write(f.t, "/etc/rkt/"+dir+"/"+name+".json", 0o600, b)
}

// nginxPod is a declared pod of an image of registry.sh, on the host's network.
func nginxPod(ref string) m {
	return m{"apps": []m{{"name": "web", "image": ref}}, "rkt": m{"net": "host"}}
}

// serves checks that the pod of that name runs nginx as its image says: the
// page out of a volume seeded from the image, the user and its groups, the
// working directory, the log by path. check list: 59, 60, 61, 65
func (f *fixture) serves(name string) {
	f.t.Helper()
	page := f.Eventually(f.t, soon, "curl", "-fsS", "http://127.0.0.1:8080/")
	equal(f.t, "the page", page, "a page of the image\n")
	uuid := f.uuid(name)
	volume := "/var/lib/rkt/pods/run/" + uuid + "/sharedVolumes/web-volume-usr-share-nginx-html"
	equal(f.t, "the seeded volume", f.sh("stat -c '%a %u:%g' "+volume), "750 33:33\n")
	pid := strings.TrimSpace(f.sh("cat /sys/fs/cgroup'" + f.show("rkt@"+name, "ControlGroup") + "'/payload/system.slice/web.service/cgroup.procs | head -1"))
	equal(f.t, "user and groups", f.sh(`awk '$1 ~ /^(Uid|Gid|Groups):/ {print $1, $2, $3}' /proc/`+pid+`/status`), "Uid: 33 33\nGid: 33 33\nGroups: 33 77\n")
	equal(f.t, "the working directory", f.sh("readlink /proc/"+pid+"/cwd"), "/made/here\n")
	root := "/proc/" + pid + "/root"
	equal(f.t, "an opaque directory", f.sh("ls "+root+"/old"), "g\n")
	equal(f.t, "a whiteout", f.sh("ls "+root+"/removed 2>&1 || true"), "ls: cannot access '"+root+"/removed': No such file or directory\n")
	f.waitLog(name, "web", `"GET / HTTP/1.1" 200`)
}

// TestRegistry pulls from Debian's docker-registry, and runs what was pulled.
// check list: 63, 64
func TestRegistry(t *testing.T) {
	f := registries(t)
	before := f.snapshot()

	out, stderr, code := f.trySh("rkt fetch docker://" + plainHost + "/team/nginx:1")
	if code != 254 || out != "" {
		t.Errorf("plain http without being asked for: %d %s%s", code, out, stderr)
	}
	// Nothing vouches for a tag; the message says how to pin it.
	_, stderr, code = f.trySh("rkt --insecure-options=http fetch docker://" + plainHost + "/team/nginx:1")
	if code != 254 {
		t.Error("an unverified image was stored")
	}
	contains(t, "the refusal", stderr, "nothing vouches", "@sha256:", "rkt trust --prefix=127.0.0.1:5000/team/nginx")
	digest := strings.TrimSpace(f.sh(`skopeo inspect --tls-verify=false docker://` + plainHost + `/team/nginx:1 | jq -r .Digest`))
	pinned := "docker://" + plainHost + "/team/nginx:1@" + digest
	byDigest := f.sh("rkt --insecure-options=http fetch --full " + pinned + " 2>/dev/null")
	byTag := f.sh("rkt --insecure-options=http,image fetch --full docker://" + plainHost + "/team/nginx:1 2>/dev/null")
	equal(t, "the ID by tag and by digest", byTag, byDigest)
	contains(t, "image list", f.sh("rkt image list"), "127.0.0.1", "nginx:1")

	f.config("registries.d", "local", m{"rktKind": "registry", "rktVersion": "v1", "prefix": plainHost, "insecure": true, "verify": "none"})
	// The layers are compressed otherwise, what they hold is the same.
	f.sh("rkt fetch docker://" + plainHost + "/team/nginx:zstd 2>/dev/null")
	multi := f.sh("rkt fetch docker://" + plainHost + "/team/multi:1 2>/dev/null")
	if multi == "" {
		t.Error("no image of an index")
	}
	_, stderr, code = f.trySh("rkt fetch --platform=linux/s390x docker://" + plainHost + "/team/multi:1")
	if code != 254 {
		t.Error("an image for another platform was stored")
	}
	contains(t, "the missing platform", stderr, "linux/arm64", "linux/amd64")

	// A private authority and a password.
	ref := "docker://" + tlsHost + "/team/nginx:1@" + digest
	_, stderr, code = f.trySh("rkt fetch " + ref)
	if code != 254 || !strings.Contains(stderr, "certificate") {
		t.Errorf("an unknown authority: %d %s", code, stderr)
	}
	f.sh("mkdir -p /etc/containers/certs.d/localhost:5443; cp " + regDir + "/ca.pem /etc/containers/certs.d/localhost:5443/ca.crt")
	_, stderr, code = f.trySh("rkt fetch " + ref)
	if code != 254 || !strings.Contains(stderr, "401") && !strings.Contains(stderr, "nauthorized") && !strings.Contains(stderr, "credentials") {
		t.Errorf("no password: %d %s", code, stderr)
	}
	f.config("auth.d", "tester", m{"rktKind": "dockerAuth", "rktVersion": "v1", "registries": []string{tlsHost}, "credentials": m{"user": "tester", "password": "secret"}})
	f.sh("rkt fetch " + ref)
	f.sh("rm /etc/rkt/auth.d/tester.json; skopeo login --authfile /root/auth.json -u tester -p secret --cert-dir /etc/containers/certs.d/localhost:5443 " + tlsHost)
	f.sh("REGISTRY_AUTH_FILE=/root/auth.json rkt fetch --pull-policy=update docker://" + tlsHost + "/team/nginx:1 --insecure-options=image 2>/dev/null || REGISTRY_AUTH_FILE=/root/auth.json rkt --insecure-options=image fetch docker://" + tlsHost + "/team/nginx:1")

	// A declared pod, fetched by its own start.
	f.sh("rkt image list --no-legend --full --fields=id,name | awk '$2 ~ /127.0.0.1/ {print $1}' | xargs rkt image rm")
	f.declare("regweb", nginxPod("docker://"+plainHost+"/team/nginx:1"))
	f.start("regweb")
	f.serves("regweb")
	f.stop("regweb")
	equal(t, "the outcome of a stop by SIGQUIT", f.show("rkt@regweb", "Result"), "success")
	// Once resolved, a start asks nobody.
	f.sh("systemctl stop test-registry-plain")
	f.start("regweb")
	f.serves("regweb")
	f.stop("regweb")

	f.forget("regweb")
	f.gc()
	equal(t, "the host afterwards", f.snapshot(), before)

	// On a network of its own, by the port that the image exposes. (Port forwarding
	// leaves its empty chains to the host.)
	p := nginxPod("docker://" + plainHost + "/team/nginx:1")
	p["rkt"] = m{"net": "default"}
	p["ports"] = []any{"8080-tcp:18080"}
	f.declare("regport", p)
	f.start("regport")
	page := f.Eventually(t, soon, "curl", "-fsS", "http://127.0.0.1:18080/")
	equal(t, "the page by the forwarded port", page, "a page of the image\n")
	f.forget("regport")
}

// TestGroupMember checks that members of the group fetch, list and remove
// images without root, also those of root. check list: 25
//
// check list: pod-lifecycle 17
func TestGroupMember(t *testing.T) {
	f := registries(t)
	f.sh("useradd -G rkt -s /bin/sh member; chmod -R a+rX " + regDir)
	t.Cleanup(func() { f.trySh("userdel -r member") })
	member := func(script string) string {
		return f.Run(t, "setpriv", "--reuid=member", "--regid=member", "--init-groups", "env", "HOME=/home/member", "sh", "-c", "umask 077; "+script)
	}
	ref := "oci:" + regDir + "/oci:1"
	f.sh("umask 077; rkt --insecure-options=image fetch oci:" + regDir + "/zstd")
	id := strings.TrimSpace(member("rkt --insecure-options=image fetch --full " + ref + " 2>/dev/null"))
	contains(t, "the list of a member", member("rkt image list --full"), id)
	equal(t, "what root fetches after a member", strings.TrimSpace(f.sh("rkt --insecure-options=image fetch --full "+ref+" 2>/dev/null")), id)
	if n := f.sh("ls -d /var/lib/rkt/cas/tree/deps-*" + " | wc -l"); n == "0\n" {
		t.Error("root's fetch unpacked nothing")
	}
	member("rkt image rm " + id)
	lacks(t, "the list after a removal", f.sh("rkt image list --full"), id)
}

// TestImageArchives runs images as umoci, skopeo and buildah write them.
// check list: 64
func TestImageArchives(t *testing.T) {
	f := registries(t)
	before := f.snapshot()
	for _, c := range []struct{ name, ref string }{
		{"umoci", "oci:" + regDir + "/oci:1"},
		{"zstd", "oci:" + regDir + "/zstd"},
		{"skopeo", "oci-archive:" + regDir + "/nginx-oci.tar"},
		{"docker", "docker-archive:" + regDir + "/nginx-docker.tar"},
		{"bare", regDir + "/nginx-oci.tar"},
		{"buildah", "oci-archive:" + regDir + "/nginx-buildah.tar"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fixture{Host: f.Host, t: t, since: f.since}
			name := "arc" + c.name
			p := nginxPod(c.ref)
			p["rkt"].(m)["insecureOptions"] = []string{"image"}
			f.declare(name, p)
			f.start(name)
			if c.name == "buildah" { // it has no third layer
				f.Eventually(t, soon, "curl", "-fsS", "http://127.0.0.1:8080/")
			} else {
				f.serves(name)
			}
			f.stop(name)
			equal(t, "the outcome", f.show("rkt@"+name, "Result"), "success")
		})
	}
	f.gc()
	equal(t, "the host afterwards", f.snapshot(), before)
}
