//go:build boot

package boot

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// aceModule is the package of the validators of the App Container Executor; the
// test makes its images of what the module cache holds.
const aceModule = "github.com/appc/spec"

// aceImages builds the validators and packs them as their authors do: the
// program and the working directory of the main app.
func (f *fixture) aceImages() map[string]string {
	f.t.Helper()
	run := func(args ...string) string {
		cmd := exec.CommandContext(f.t.Context(), "go", args...)
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			f.t.Fatalf("go %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out))
	}
	dir := f.t.TempDir()
	bin, work := filepath.Join(dir, "ace-validator"), filepath.Join(dir, "work")
	run("build", "-trimpath", "-o", bin, aceModule+"/ace")
	if err := os.Mkdir(work, 0o755); err != nil {
		f.t.Fatal(err)
	}
	sources := filepath.Join(run("list", "-f", "{{.Dir}}", aceModule+"/schema"), "..", "ace")
	all := map[string]string{}
	for _, kind := range []string{"main", "sidekick"} {
		text, err := os.ReadFile(filepath.Join(sources, "image_manifest_"+kind+".json.in"))
		if err != nil {
			f.t.Fatal(err)
		}
		manifest := strings.NewReplacer("@ACI_OS@", "linux", "@ACI_ARCH@", "amd64").Replace(string(text))
		if !json.Valid([]byte(manifest)) {
			f.t.Fatalf("the manifest of %s is no JSON:\n%s", kind, manifest)
		}
		all[kind] = f.image("ace-"+kind, "plain", "--file", bin+":/ace-validator", "--file", work+":/opt/acvalidator", "--manifest", manifest)
	}
	return all
}

// The validators of the App Container Executor, two apps that share an empty
// volume, find all as the specification says: the event handlers and their order,
// PATH, the working directory, the environment, the mount points, the name.
//
// What they ask of the metadata service (the pod's manifest, UUID and
// annotations, the apps' manifests, image IDs and annotations, signing) needs
// AC_METADATA_URL, which a pod has only once it is registered with that service.
//
// check list: runtime 19
func TestACEValidators(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	images := f.aceImages()
	for _, c := range []string{"", "--private-users", "--no-overlay", "--private-users --no-overlay"} {
		t.Run("run "+c, func(t *testing.T) {
			out, errs, _ := f.trySh(fmt.Sprintf("timeout 60 rkt --insecure-options=image run --net=none %s --uuid-file-save=/run/ace.uuid --volume database,kind=empty %s %s", c, images["main"], images["sidekick"]))
			validated(t, out+errs)
			// what handlers say may lack the unit in the journal, so that rkt does not show it; what they made tells
			status := f.sh("rkt status --uuid-file=/run/ace.uuid")
			contains(t, "the statuses", status, "app-ace-validator-main=1\n", "app-ace-validator-sidekick=0\n")
			made := f.sh(`find /var/lib/rkt/pods/run/$(cat /run/ace.uuid)/ \( -path '*/upper/ace-validator-main/*' -o -path '*/ace-validator-main/rootfs/*' \) -type f \
				| grep -Eo '/(prestart|main|poststop)$' | sort`)
			equal(t, "what the three stages of main made", made, "/main\n/poststop\n/prestart\n")
			f.sh("rkt rm --uuid-file=/run/ace.uuid; rm -f /run/ace.uuid")
		})
	}
	f.unchanged(before)
}

// validated checks what the apps of the validators wrote.
func validated(t *testing.T, out string) {
	t.Helper()
	var found []string
	for _, line := range strings.Split(out, "\n") {
		if _, what, ok := strings.Cut(line, "==> "); ok {
			found = append(found, strings.TrimSpace(what))
		}
	}
	contains(t, "the validators' output", out, "main FAIL", "sidekick OK")
	// main ends its look at the metadata service with its first finding, so that this is all it says without one.
	equal(t, "what the validators object to", found, []string{"AC_METADATA_URL is not set"})
	t.Logf("not validated without the metadata service: pod manifest, UUID, annotations; app manifests, image IDs, annotations; sign and verify")
}
