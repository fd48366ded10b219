package podimport

import (
	"encoding/json"
	"hash/fnv"
	"regexp"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// VolumesDir is where named volumes of other runtimes become directories. What
// is in it is kept until somebody removes it; only root gets into it, since files
// of a pod may have the set-user-ID bit.
const VolumesDir = "/var/lib/rkt-volumes"

// Keep makes a named volume a directory of the host, and returns its path. The
// directory is made by a file of tmpfiles.d, see Result.Kept: StateDirectory= of
// the pod's unit would give all that is in it to root at each start.
func Keep(_ *podjson.Pod, name string) string { return VolumesDir + "/" + FileName(name) }

// Kept adds the files of tmpfiles.d that make the directories of named volumes,
// once. Whose they are and their mode are the apps' business from then on.
func (r *Result) Kept() {
	re := regexp.MustCompile(`source"?[=:]"?` + VolumesDir + `/([^/",=]+)`)
	have := map[string]bool{}
	for _, p := range r.Pods {
		text, err := json.Marshal(p.File.Volumes)
		if err != nil {
			continue // it is told when the pod is checked
		}
		for _, m := range re.FindAllStringSubmatch(string(text), -1) {
			if name := m[1]; !have[name] && FileName(name) == name {
				have[name] = true
				r.Files = append(r.Files, File{Path: TmpfilesDir + "/rkt-volume-" + name + ".conf", Mode: 0o644, From: p.From,
					Text: "d " + VolumesDir + " 0700 root root -\nd " + VolumesDir + "/" + name + " :0755 :root :root -\n"})
			}
		}
	}
}

// TmpfilesDir is where the administrator's files of tmpfiles.d(5) are.
const TmpfilesDir = "/etc/tmpfiles.d"

// FileName makes a name fit for a file, a network or a pod: letters, digits and
// "-_.", a letter or digit at both ends.
func FileName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)) {
			return r
		}
		return '-'
	}, s)
	for strings.Contains(s, "..") {
		s = strings.ReplaceAll(s, "..", ".")
	}
	s = strings.Trim(s, "-_.")
	if len(s) > 60 {
		s = strings.Trim(s[:60], "-_.")
	}
	if s == "" {
		return "x"
	}
	return s
}

// ACName makes a name fit for an app, a volume or a port of a pod file.
func ACName(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') {
			c = '-'
		}
		if c != '-' || len(b) > 0 && b[len(b)-1] != '-' {
			b = append(b, c)
		}
	}
	if s = strings.Trim(string(b), "-"); s == "" {
		return "x"
	}
	return s
}

// Image is the reference of a pod file for an image as Docker and Podman name
// it, and whether something had to be assumed: a short name stands for Docker
// Hub here, which podman may look up elsewhere.
func Image(ref string) (full string, assumed bool) {
	ref = strings.TrimSpace(ref)
	for _, transport := range []string{"docker://", "oci:", "oci-archive:", "docker-archive:"} {
		if strings.HasPrefix(ref, transport) {
			return ref, false
		}
	}
	if strings.HasPrefix(ref, "/") {
		return ref, false
	}
	host, rest, ok := strings.Cut(ref, "/")
	switch {
	case !ok:
		return "docker://docker.io/library/" + tagged(ref), true
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return "docker://docker.io/" + tagged(ref), true
	case (host == "docker.io" || host == "index.docker.io") && !strings.Contains(rest, "/"):
		return "docker://docker.io/library/" + tagged(rest), false
	}
	return "docker://" + tagged(ref), false
}

// tagged says the default tag.
func tagged(ref string) string {
	if strings.Contains(ref, "@") || strings.Contains(ref[strings.LastIndexByte(ref, '/')+1:], ":") {
		return ref
	}
	return ref + ":latest"
}

// Subnet chooses a network's addresses by its name: the same name gets the same
// ones everywhere. v6 is a unique local prefix.
func Subnet(name string) (v4, v6 string) {
	h := fnv.New64a()
	h.Write([]byte(name))
	n := h.Sum64()
	// 10.128.0.0/9 without what other runtimes begin with
	hex := strconv.FormatUint(n|1<<63, 16)
	return "10." + strconv.Itoa(128+int((n>>8)%120)) + "." + strconv.Itoa(int(n%256)) + ".0/24",
		"fd" + hex[:2] + ":" + hex[2:6] + ":" + hex[6:10] + ":" + hex[10:14] + "::/64"
}

// PodName makes a name one that a pod can have.
func PodName(s string) string {
	s = FileName(s)
	if podfile.CheckName(s) != nil {
		s = FileName("pod-" + s)
	}
	return s
}
