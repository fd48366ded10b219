//go:build boot

// Package crash kills rkt with SIGKILL between any two steps that change the
// disk and asserts that the next command works and that gc leaves no trace.
// Its host has a package built with the tag "failpoint" (packaging/deb --tags
// failpoint): there RKT_FAILPOINT names the instruction at which rkt dies.
package crash

import (
	_ "embed"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/tests/host"
)

//go:embed crash.sh
var script []byte

const there = "/root/crash.sh"

// cases are the commands of crash.sh that pass each failpoint. The points
// themselves are read from the sources: one that is not here is tried with
// every command, and has to be passed by one.
var cases = map[string][]string{
	"app/added":              {"app_add", "app_add_private"},
	"app/created":            {"app_add"},
	"app/manifest":           {"app_add", "app_add_copy"},
	"app/mounted":            {"app_add", "app_add_copy", "app_add_private"},
	"app/rm-files":           {"app_rm", "app_rm_ended"},
	"app/rm-manifest":        {"app_rm", "app_rm_ended"},
	"app/rm-stopped":         {"app_rm", "app_rm_copy"},
	"app/rm-unmounted":       {"app_rm", "app_rm_copy"},
	"app/tree":               {"app_add", "app_add_copy"},
	"apply/committed":        {"pod_apply"},
	"apply/file":             {"pod_apply"},
	"apply/placed":           {"pod_apply"},
	"apply/recorded":         {"pod_apply"},
	"apply/removed":          {"pod_apply"},
	"apply/staged":           {"pod_apply"},
	"atomicfile/renamed":     {"fetch", "trust", "prepare", "unit", "fetch_registry", "image_gc"},
	"atomicfile/written":     {"fetch", "trust", "prepare", "unit", "pod_apply", "update", "unit_net", "fetch_url", "fetch_layout", "fsck_record", "image_gc"},
	"cli/gc-image":           {"image_gc"},
	"cli/gc-trees":           {"image_gc"},
	"declared/current":       {"update", "update_bad", "pod_fetch"},
	"declared/generation":    {"update", "pod_fetch"},
	"declared/history":       {"update", "pod_fetch"},
	"gc/marked":              {"gc", "unit_stop", "gc_prepared", "rm"},
	"gc/part-removed":        {"gc", "rm"},
	"gc/released":            {"gc", "unit_stop", "rm"},
	"gc/sweep-released":      {"gc", "rm", "gc_prepared"},
	"image/admitting":        {"fetch"},
	"image/downloaded":       {"fetch_url"},
	"image/recorded":         {"fetch_url"},
	"image/imported":         {"fetch_url"},
	"image/layer":            {"fetch_layout", "fetch_archive", "fetch_registry", "fetch_shared"},
	"image/layer-downloaded": {"fetch_layout", "fetch_archive", "fetch_registry"},
	"image/stored-layered":   {"fetch_layout", "fetch_registry", "run_layered"},
	"image/validators":       {"fetch_url"},
	"keystore/added":         {"trust"},
	"keystore/removed":       {"trust_remove"},
	"nat/added":              {"unit_join", "run_join"},
	"nat/deleted":            {"gc_plugin"},
	"nat/recorded":           {"unit_join", "run_join"},
	"network/added":          {"unit_join", "run_join"},
	"network/claimed":        {"unit_net", "run_net"},
	"network/deleted":        {"gc_plugin"},
	"network/joined":         {"unit_join", "run_join"},
	"network/joining":        {"unit_net", "run_net"},
	"network/netns-made":     {"unit_net", "run_net"},
	"network/netns-noted":    {"unit_net", "run_net"},
	"network/netns-recorded": {"unit_net", "run_net"},
	"network/netns-removed":  {"gc_plugin"},
	"network/orphan-netns":   {"gc_orphan"},
	"network/orphan-rules":   {"gc_orphan"},
	"network/outcome":        {"unit_join", "run_join"},
	"network/published":      {"unit_join", "run_join"},
	"network/recorded":       {"unit_join", "run_join"},
	"network/unregistered":   {"gc_plugin"},
	"oci/unpack":             {"fetch_archive", "image_import"},
	"pod/embryo":             {"unit", "prepare"},
	"pod/locked":             {"unit", "prepare"},
	"pod/prepared":           {"prepare"},
	"pod/preparing":          {"unit", "prepare"},
	"pod/run":                {"unit", "run", "run_prepared"},
	"pod/synced":             {"prepare", "prepare_copy"},
	"prepare/copied":         {"prepare_copy", "unit_copy", "run_layered_copy"},
	"prepare/id-range":       {"unit", "prepare_private"},
	"prepare/manifest":       {"unit", "prepare"},
	"prepare/mounted":        {"unit", "run_prepared"},
	"prepare/mounted-stage1": {"unit", "run"},
	"prepare/seeded":         {"run_layered", "run_layered_copy"},
	"prepare/trees":          {"unit", "prepare_copy"},
	"run/mounted":            {"unit", "run", "unit_copy"},
	"stage1/applied":         {"unit", "unit_net"},
	"stage1/exec":            {"unit", "unit_net", "run", "run_copy", "run_net"},
	"stage1/recorded":        {"unit", "run_net"},
	"store/clean":            {"gc_store", "gc_layered"},
	"store/document":         {"fetch_layout", "fetch_registry"},
	"store/fsck-manifest":    {"fsck_manifest"},
	"store/fsck-record":      {"fsck_record"},
	"store/indexed":          {"fetch", "fetch_layout"},
	"store/layer-recorded":   {"fetch_layout", "image_import", "run_layered"},
	"store/layer-renamed":    {"fetch_layout", "fetch_archive", "fetch_shared", "fetch_registry"},
	"store/layer-synced":     {"fetch_layout", "fetch_registry", "fetch_shared"},
	"store/manifest":         {"fetch", "fetch_registry"},
	"store/remote":           {"fetch_url", "fetch_layout"},
	"store/remove-file":      {"image_rm", "image_rm_layered", "image_gc"},
	"store/remove-object":    {"image_rm_layered", "gc_layered", "image_gc"},
	"store/remove-record":    {"image_rm", "image_rm_layered", "image_gc"},
	"store/renamed":          {"fetch", "fetch_url", "fetch_layout"},
	"store/synced":           {"fetch", "fetch_layout"},
	"tree/adopted":           {"fetch", "fetch_url"},
	"tree/extracted":         {"fetch_layout", "prepare_unrendered", "render_layered"},
	"tree/layer-extracted":   {"fetch_layout", "fetch_shared", "render_layered"},
	"tree/rendered":          {"fetch", "prepare_unrendered", "fetch_layout", "render_layered"},
	"tree/staged":            {"fetch", "fetch_url"},
	"tree/synced":            {"image_gc"},
	"tree/unmarked":          {"fetch", "fetch_layout", "image_gc"},
	"update/committed":       {"update"},
	"update/judged":          {"update", "update_bad"},
	"update/restoring":       {"update_bad", "update_interrupted"},
	"update/reverted":        {"update_bad"},
	"update/trial":           {"update", "update_bad"},
}

// notReached is the exit status of crash.sh for a command that was not killed.
const notReached = 3

// registry is one on the host itself; serve starts it and fills it.
const registry = `version: 0.1
storage: {filesystem: {rootdirectory: /var/tmp/registry}}
http: {addr: "127.0.0.1:8098"}
`

const serve = `
systemctl disable --quiet --now docker-registry 2>/dev/null || true
systemctl is-active --quiet crash-registry || systemd-run --quiet --collect --unit=crash-registry docker-registry serve /root/registry.yml
for i in $(seq 100); do curl -sf http://127.0.0.1:8098/v2/ >/dev/null && break; sleep 0.1; done
skopeo copy -q --dest-tls-verify=false oci:/var/tmp/img/layout:1 docker://127.0.0.1:8098/layered:1
`

func open(t *testing.T) *host.Host {
	h := host.Open(t)
	dir := t.TempDir()
	suite := h.Suite()
	if suite == "" {
		suite = "bookworm"
	}
	mk := exec.CommandContext(t.Context(), "../images/mkimage", "--suite", suite, "busybox", filepath.Join(dir, "busybox.aci"))
	if out, err := mk.CombinedOutput(); err != nil {
		t.Fatalf("mkimage: %v\n%s", err, out)
	}
	layered(t, filepath.Join(dir, "busybox.aci"), dir)
	h.Run(t, "rm", "-rf", "/var/tmp/img")
	h.Copy(t, dir, "/var/tmp/img")
	h.Write(t, "/root/registry.yml", 0o644, []byte(registry))
	h.Sh(t, serve)
	h.Write(t, there, 0o755, script)
	h.Run(t, "rkt", "trust", "--prefix=example.com", "--skip-fingerprint-review", "/var/tmp/img/busybox.aci.pub")
	// The first pod with a network makes the bridge and the chains that stay.
	h.Run(t, "rkt", "run", "--net=default", "/var/tmp/img/busybox.aci", "--exec", "/bin/true")
	h.Run(t, "rkt", "gc", "--grace-period=0", "--expire-prepared=0")
	return h
}

func TestFailpoints(t *testing.T) {
	h := open(t)
	if _, _, code := h.Try("env", "RKT_FAILPOINT=pod/locked", "rkt", "prepare", "/var/tmp/img/busybox.aci"); code != 128+9 {
		t.Fatal("the host's rkt has no failpoints: install the package of packaging/deb --tags failpoint")
	}
	points := failpoints(t)
	for name := range cases {
		if !slices.Contains(points, name) {
			t.Errorf("no source has the failpoint %q of the table", name)
		}
	}
	references(t, h)
	share := shares(h.Suite())
	for _, point := range points {
		commands, known := cases[point]
		if !known {
			commands = all()
		}
		t.Run(strings.ReplaceAll(point, "/", "."), func(t *testing.T) {
			if known && os.Getenv("RKT_TEST_FULL") == "" {
				if commands = share[point]; len(commands) == 0 {
					t.Skip("the store knows nothing of systemd: killed on the other Debian, and everywhere with RKT_TEST_FULL=1")
				}
			}
			passed := 0
			for _, c := range commands {
				out, errs, code := h.Try("bash", there, c, point)
				switch {
				case code == 0:
					passed++
				case code != notReached:
					t.Errorf("killed in %s: status %d\n%s%s", c, code, out, errs)
				case known:
					t.Errorf("%s does not pass this point any more\n%s%s", c, out, errs)
				}
			}
			if passed == 0 && !t.Failed() {
				t.Error("no command passes this failpoint: add one to crash.sh")
			}
		})
	}
}

// shares are the commands of each failpoint that one suite kills, so that every
// command is killed on one of them, and on each of them one at every failpoint
// that is about more than the store.
func shares(suite string) map[string][]string {
	mine := 0
	if suite == "trixie" {
		mine = 1
	}
	share, turn := map[string][]string{}, 0
	for _, point := range slices.Sorted(maps.Keys(cases)) {
		of := len(cases[point]) - len(slices.DeleteFunc(slices.Clone(cases[point]), ofStore))
		for _, c := range cases[point] {
			only := of == len(cases[point])-1 && !ofStore(c)
			if only || turn%2 == mine {
				share[point] = append(share[point], c)
			}
			if !only {
				turn++
			}
		}
	}
	return share
}

// TestShares checks that nothing is left out.
func TestShares(t *testing.T) {
	bookworm, trixie := shares("bookworm"), shares("trixie")
	for point, commands := range cases {
		for _, c := range commands {
			if !slices.Contains(bookworm[point], c) && !slices.Contains(trixie[point], c) {
				t.Errorf("no suite kills %s at %q", c, point)
			}
		}
		if slices.ContainsFunc(commands, func(c string) bool { return !ofStore(c) }) && (len(bookworm[point]) == 0 || len(trixie[point]) == 0) {
			t.Errorf("%q is passed on one suite only", point)
		}
	}
}

// references lets the commands note what the store holds when nothing is killed.
func references(t *testing.T, h *host.Host) {
	h.Sh(t, "rm -f /run/crash-stored-*")
	for _, c := range all() {
		if slices.Contains(killers, c) {
			continue
		}
		if out, errs, code := h.Try("bash", there, c, ""); code != 0 {
			t.Errorf("%s, nothing killed: status %d\n%s%s", c, code, out, errs)
		}
	}
}

// ofStore says that a command works on images alone, whatever the host's systemd.
func ofStore(command string) bool {
	verb, _, _ := strings.Cut(command, "_")
	return slices.Contains([]string{"fetch", "image", "fsck", "trust", "render"}, verb)
}

// killers are the commands that make no sense without being killed.
var killers = []string{"run_join", "unit_join", "unit", "unit_copy", "unit_net", "unit_stop", "gc_plugin", "gc_orphan", "gc_store", "update_bad", "update_interrupted"}

// all are the commands of crash.sh.
func all() []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^case_([a-z_]+)\(`).FindAllSubmatch(script, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// failpoints reads the names of all failpoints from the sources.
func failpoints(t *testing.T) []string {
	t.Helper()
	hit := regexp.MustCompile(`\bfailpoint\.Hit\("([^"]*)"\)`)
	var names []string
	for _, dir := range []string{"stage0", "stage1", "internal", "generator", "journal", "machined"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range hit.FindAllSubmatch(text, -1) {
				names = append(names, string(m[1]))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestRandomKills kills the main process of a starting service, and fetches,
// whenever.
//
// check list: pod-lifecycle 2, 8
func TestRandomKills(t *testing.T) {
	h := open(t)
	seed := time.Now().UnixNano() % 32768
	if s, err := strconv.ParseInt(os.Getenv("RKT_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("RKT_TEST_SEED=%d", seed)
	for _, rounds := range []string{"rounds", "fetch_rounds"} {
		out, errs, code := h.TryFor(5*time.Minute, "bash", there, rounds, "30", strconv.FormatInt(seed, 10))
		if code != 0 {
			t.Errorf("%s: status %d", rounds, code)
		}
		t.Logf("%s:\n%s%s", rounds, out, errs)
	}
}
