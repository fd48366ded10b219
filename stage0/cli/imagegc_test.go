package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// host is a data directory with images and pods.
type host struct {
	*app
	t    *testing.T
	st   *stores
	root string // of the pod files
	out  bytes.Buffer
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{t: t, root: filepath.Join(dir, "root")}
	h.app = &app{System: System{Stdout: &h.out, Stderr: &h.out, EUID: 0}, log: journal.NewLogger("test", "", false),
		dir: filepath.Join(dir, "data"), systemConfig: dir, localConfig: dir}
	h.log.SetOutput(&h.out)
	var err error
	if h.st, err = h.stores(); err != nil {
		t.Fatal(err)
	}
	return h
}

// put stores an image that was used last days ago.
func (h *host) put(name string, days int, extra ...string) store.Record {
	h.t.Helper()
	data := acitest.Tar(h.t, acitest.Manifest(name, "1", extra...), acitest.Reg("f", strings.Repeat(name, 1000), 0o644))
	r, err := h.st.store.Import(h.t.Context(), bytes.NewReader(data), store.ImportOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	h.age(r.Key, days)
	return r
}

func (h *host) age(key string, days int) {
	h.t.Helper()
	at := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(h.st.store.Dir(), "records", "images", key+".json"), at, at); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) write(path, text string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// pod makes a pod of an image in a phase; its tree is rendered.
func (h *host) pod(phase string, r store.Record) (dir, tree string) {
	h.t.Helper()
	t, err := h.st.trees.Render(h.t.Context(), r.Key)
	if err != nil {
		h.t.Fatal(err)
	}
	dir = filepath.Join(h.dir, "pods", phase, pod.NewUUID())
	h.write(filepath.Join(dir, podfs.PodManifest), fmt.Sprintf(
		`{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{"id":%q}}]}`, r.Key))
	h.write(filepath.Join(dir, podfs.AppsInfo, "a", podfs.TreeStoreIDFile), t.ID)
	return dir, t.ID
}

func (h *host) gc(o gcOptions) *gcJSON {
	h.t.Helper()
	o.pods = podfile.SearchOptions{Root: h.root}
	out, err := h.imageGC(h.t.Context(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// names are the images in the store.
func (h *host) names() []string {
	h.t.Helper()
	records, err := h.st.store.Records()
	if err != nil {
		h.t.Fatal(err)
	}
	out := []string{}
	for _, r := range records {
		out = append(out, strings.TrimPrefix(r.Name, "example.com/"))
	}
	slices.Sort(out)
	return out
}

func names(images []gcImage) []string {
	out := []string{}
	for _, i := range images {
		out = append(out, strings.TrimSuffix(strings.TrimPrefix(i.Name, "example.com/"), ":1"))
	}
	return out
}

// noBudget takes all that nothing refers to.
func noBudget() gcOptions { return gcOptions{budget: -1} }

// TestImageGCProtectsPods checks what pods keep, in every phase of their life.
// check list: 50
//
// check list: pod-lifecycle 15
func TestImageGCProtectsPods(t *testing.T) {
	h := newHost(t)
	var trees []string
	for _, phase := range []string{podfs.Prepare, podfs.Prepared, podfs.Run, podfs.ExitedGarbage} {
		_, tree := h.pod(phase, h.put("example.com/"+phase, 9))
		trees = append(trees, tree)
	}
	_, gone := h.pod(podfs.Garbage, h.put("example.com/garbage", 9))
	base := h.put("example.com/base", 9)
	h.pod(podfs.Run, h.put("example.com/top", 9, `"dependencies":[{"imageName":"example.com/base"}]`))
	// A pod whose stage1 tree is all that leads to the image.
	stage1 := h.put("example.com/stage1", 9)
	dir, id := h.pod(podfs.Run, stage1)
	h.write(filepath.Join(dir, podfs.Stage1TreeID), id)
	if err := os.RemoveAll(filepath.Join(dir, podfs.AppsInfo)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, podfs.PodManifest)); err != nil {
		t.Fatal(err)
	}
	h.put("example.com/unused", 9)
	if _, err := h.st.trees.Render(t.Context(), base.Key); err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{"prepare", "prepared", "run", "exited-garbage", "garbage", "base", "top", "stage1", "unused"} {
		rec, err := h.st.store.Find("example.com/"+r, nil)
		if err != nil {
			t.Fatal(err)
		}
		h.age(rec.Key, 9)
	}
	want := []string{"base", "exited-garbage", "prepare", "prepared", "run", "stage1", "top"}
	o := gcOptions{grace: 24 * time.Hour, budget: 0, dry: true}
	out := h.gc(o)
	if got := names(out.Images); !slices.Contains(got, "unused") || !slices.Contains(got, "garbage") || len(got) != 2 {
		t.Errorf("a dry run names %q", got)
	}
	if len(h.names()) != 9 {
		t.Error("a dry run removes images")
	}
	o.dry = false
	out = h.gc(o)
	if diff := cmp.Diff(want, h.names()); diff != "" {
		t.Error(diff)
	}
	if out.Kept != len(want) || out.Protected != len(want) || out.ImageBytes <= 0 || out.TreeBytes <= 0 {
		t.Errorf("%+v", out)
	}
	for _, id := range trees {
		if _, err := h.st.trees.Get(id); err != nil {
			t.Errorf("the tree of a pod is gone: %v", err)
		}
	}
	if _, err := h.st.trees.Get(gone); err == nil {
		t.Error("the tree of garbage is kept")
	}
	if err := os.RemoveAll(filepath.Join(h.dir, "pods")); err != nil {
		t.Fatal(err)
	}
	h.gc(noBudget())
	if got := h.names(); len(got) != 0 {
		t.Errorf("without pods %q stay", got)
	}
	if left, err := h.st.trees.List(); err != nil || len(left) != 0 {
		t.Errorf("without pods trees stay: %v %v", left, err)
	}
}

// TestImageGCProtectsDeclared checks what pod files keep, whether they ran or
// not, and what a file does that cannot be read.
func TestImageGCProtectsDeclared(t *testing.T) {
	h := newHost(t)
	byName, byID := h.put("example.com/byname", 9), h.put("example.com/byid", 9)
	bySource, byPath, template := h.put("example.com/bysource", 9), h.put("example.com/bypath", 9), h.put("example.com/template", 9)
	h.put("example.com/broken", 9)
	h.put("example.com/unused", 9)
	stage1 := h.put("example.com/stage1", 9)
	h.write(filepath.Join(h.localConfig, "stage1.d", "x.json"),
		`{"rktKind":"stage1","rktVersion":"v1","name":"example.com/stage1","version":"1"}`)
	for source, key := range map[string]string{"cimd:docker:v=0:registry-1.docker.io/library/web:2": bySource.Key, "file:/srv/web.aci": byPath.Key} {
		if err := h.st.store.PutRemote(store.Remote{Source: source, Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	pods := filepath.Join(h.root, "etc/rkt/pods")
	declare := func(name, image string) {
		h.write(filepath.Join(pods, name+".json"), fmt.Sprintf(`{"apps":[{"name":"a","image":%q}]}`, image))
	}
	declare("one", "example.com/byname:1")
	declare("two", byID.Key[:20])
	declare("three", "docker://web:2")
	declare("four", "/srv/web.aci")
	declare("five@", "example.com/template")
	h.write(filepath.Join(pods, "broken.json"), `{"apps":[{"name":"a","image":"example.com/broken"`)
	h.write(filepath.Join(pods, "masked.json"), "")
	if _, err := h.st.trees.Render(t.Context(), byName.Key); err != nil {
		t.Fatal(err)
	}
	h.age(byName.Key, 9)
	out := h.gc(noBudget())
	if diff := cmp.Diff([]string{"byid", "byname", "bypath", "bysource", "stage1", "template"}, h.names()); diff != "" {
		t.Error(diff)
	}
	if len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "broken.json") {
		t.Errorf("notes: %q", out.Notes)
	}
	if _, err := h.st.trees.Find(byName.Key); err != nil {
		t.Errorf("the tree of a declared pod is gone: %v", err)
	}
	_, _ = template, stage1
	// A file nobody can read may mean any image: then none goes.
	h.put("example.com/unused", 9)
	if err := os.Mkdir(filepath.Join(pods, "unreadable.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out = h.gc(noBudget()); len(out.Images) != 0 || len(out.Notes) != 2 || !strings.Contains(out.Notes[1], "unreadable.json") {
		t.Errorf("%+v", out)
	}
}

// TestImageGCGraceAndBudget checks who goes first.
func TestImageGCGraceAndBudget(t *testing.T) {
	h := newHost(t)
	h.put("example.com/base", 20)
	h.put("example.com/day1", 1, `"dependencies":[{"imageName":"example.com/base"}]`)
	h.put("example.com/day3", 3)
	h.put("example.com/day5", 5)
	h.put("example.com/day7", 7)
	o := gcOptions{grace: 4 * 24 * time.Hour, budget: -1}
	out := h.gc(o)
	if diff := cmp.Diff([]string{"day7", "day5"}, names(out.Images)); diff != "" {
		t.Error("not oldest first:", diff)
	}
	if diff := cmp.Diff([]string{"base", "day1", "day3"}, h.names()); diff != "" {
		t.Error("what a young image depends on:", diff)
	}
	n, err := usage(h.st)
	if err != nil {
		t.Fatal(err)
	}
	o.budget, o.dry = n-1, true
	if diff := cmp.Diff([]string{"day3"}, names(h.gc(o).Images)); diff != "" {
		t.Error(diff)
	}
	o.dry = false
	if out = h.gc(o); out.Used >= n || len(out.Images) != 1 || !strings.Contains(out.Images[0].Reason, "larger than") {
		t.Errorf("%+v", out)
	}
	o.budget = 0
	if diff := cmp.Diff([]string{"day1", "base"}, names(h.gc(o).Images)); diff != "" {
		t.Error("an image goes before what it depends on:", diff)
	}
}

// TestImageGCWaits checks that nothing is collected while a pod is prepared.
func TestImageGCWaits(t *testing.T) {
	h := newHost(t)
	h.put("example.com/unused", 9)
	path := filepath.Join(h.dir, "locks", "prepareLock")
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	l, err := lock.Path(path, lock.Shared)
	if err != nil {
		t.Fatal(err)
	}
	h.dropTrees(t.Context(), h.st) // gives up at once
	done := make(chan *gcJSON)
	go func() {
		out, err := h.imageGC(t.Context(), noBudget())
		if err != nil {
			t.Error(err)
		}
		done <- out
	}()
	if got := h.names(); len(got) != 1 {
		t.Errorf("%q stay", got)
	}
	l.Close()
	if out := <-done; len(out.Images) != 1 {
		t.Errorf("%+v", out)
	}
}

func TestSizeValue(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "17": 17, "2K": 2048, "3M": 3 << 20, "20G": 20 << 30, "1TiB": 1 << 40, "5kB": 5 << 10} {
		var v sizeValue
		if err := v.Set(in); err != nil || v.n != want || !v.set {
			t.Errorf("%q = %d, %v", in, v.n, err)
		}
	}
	for _, bad := range []string{"", "G", "-1", "1.5G", "9999999999G", "12X", "1GG"} {
		if err := new(sizeValue).Set(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestImageRmDropsTrees checks that what is unpacked goes with its image, unless
// a pod uses it.
// check list: 45, 49
func TestImageRmDropsTrees(t *testing.T) {
	h := newHost(t)
	used, unused, other := h.put("example.com/used", 1), h.put("example.com/unused", 1), h.put("example.com/other", 1)
	_, id := h.pod(podfs.Run, used)
	for _, r := range []store.Record{unused, other} {
		if _, err := h.st.trees.Render(t.Context(), r.Key); err != nil {
			t.Fatal(err)
		}
	}
	if r, _ := h.st.store.Record(other.Key); r.TreeSize == 0 {
		t.Error("the tree does not count")
	}
	cmd := h.imageRmCmd()
	cmd.SetContext(t.Context())
	if err := cmd.RunE(cmd, []string{used.Key, unused.Key, "example.com/unused"}); err != nil {
		t.Fatal(err, h.out.String())
	}
	trees, err := h.st.trees.List()
	if err != nil || len(trees) != 2 {
		t.Errorf("%d trees stay: %v", len(trees), err)
	}
	if _, err := h.st.trees.Get(id); err != nil {
		t.Errorf("the tree of a pod is gone: %v", err)
	}
	h.gc(gcOptions{grace: 99 * 24 * time.Hour, budget: -1})
	if r, _ := h.st.store.Record(other.Key); r.TreeSize != 0 {
		t.Error("the size still counts a tree that is gone")
	}
}

// TestImageListMany measures the list of 1,000 images, some with many layers.
// check list: 44
func TestImageListMany(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(h.st.store.Dir(), "records", "images")
	for i := range 1000 {
		key := fmt.Sprintf("sha512-%064x", i)
		r := store.Record{Key: key, ID: key + strings.Repeat("0", 64), Name: fmt.Sprintf("example.com/i%d", i), Labels: map[string]string{"version": "1", "os": "linux"}}
		for j := range 10 {
			d := fmt.Sprintf("sha256:%064x", j)
			r.Layers = append(r.Layers, store.Layer{Digest: d, DiffID: d, Size: 1, Plain: 1})
		}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		h.write(filepath.Join(dir, key+".json"), string(data))
	}
	h.write(filepath.Join(dir, fmt.Sprintf("sha512-%064x.json", 5000)), "{")
	start := time.Now()
	cmd := h.imageListCmd()
	if err := cmd.RunE(cmd, nil); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(h.out.String(), "example.com/i"); n != 1000 {
		t.Errorf("%d images", n)
	}
	if !strings.Contains(h.out.String(), fmt.Sprintf("%064x", 5000)) {
		t.Error("the broken record is not reported")
	}
	t.Logf("%v", time.Since(start))
}
