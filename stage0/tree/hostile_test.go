package tree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/hostile"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// What a case may take. The memory is that of the whole test program, with what
// the collector has not got to on a busy machine.
const (
	caseTime   = 60 * time.Second
	caseMemory = 128 << 20
)

// Environment of the worker that unpacks the corpus.
const (
	corpusEnv = "HOSTILE_CORPUS" // the directory
	heavyEnv  = "HOSTILE_HEAVY"  // where there is room for the heavy cases
	lightEnv  = "HOSTILE_LIGHT"  // only the cases to which the file system matters
)

// corpusCase is a case on disk, so that its makers' memory does not count.
type corpusCase struct {
	Name    string
	ACI     bool
	Want    hostile.Want
	List    []string
	Heavy   bool
	Files   []string
	Layered appc.Layered
}

// TestCorpus unpacks the corpus of hostile archives as root and as an ordinary
// user. check list: 58, 60, 62, 66, 67, 70
func TestCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	users := []int{os.Geteuid()}
	if users[0] == 0 && os.Getenv(lightEnv) == "" {
		users = append(users, 65534)
	}
	for _, uid := range users {
		t.Run(fmt.Sprintf("uid %d", uid), func(t *testing.T) { runCorpus(t, uid) })
	}
}

// runCorpus has the corpus unpacked by a process of its own.
func runCorpus(t *testing.T, uid int) {
	base, heavy := t.TempDir(), ""
	if os.Getenv(lightEnv) == "" { // else this file system is to be tested
		base, heavy = scratch(t, 1<<30), scratch(t, 8<<30)
	} else if err := os.Chmod(filepath.Dir(base), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	decoys(t, filepath.Join(base, "canary"))
	writeCorpus(t, base, uid == 0)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestCorpusWorker$", "-test.timeout=8m", "-test.parallel=3", "-test.v")
	cmd.Dir, cmd.Env = base, append(os.Environ(), corpusEnv+"="+base, "TMPDIR="+base, heavyEnv+"="+heavy)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)} //nolint:gosec // small
		chownAll(t, base, uid)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func chownAll(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// decoys makes what nothing may touch.
func decoys(t testing.TB, dir string) {
	t.Helper()
	for _, d := range []string{"", "d", "d/e", "b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{"secret": 0o644, "manifest": 0o600, "d/secret": 0o755, "d/e/x": 0o4755 &^ 0o4000, "x": 0o666} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("decoy "+name), mode); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		sys.Fsetxattr(int(f.Fd()), "user.decoy", []byte("y")) //nolint:errcheck // where it can
		f.Close()
	}
	for name, target := range map[string]string{"l": "d", "abs": dir + "/d"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "x"), filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
}

// fingerprint describes all below dir: names, modes, owners, times, attributes,
// links and contents. A change that was undone shows in the change time.
func fingerprint(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	err := walk(dir, func(e entry) error {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(dir, e.rel), &st); err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s %o %d:%d %d %v %v", e.rel, st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim, st.Ctim)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			data, err := os.ReadFile(filepath.Join(dir, e.rel))
			if err != nil {
				return err
			}
			attrs, err := xattrs(e)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %s %v", data, attrs)
		case syscall.S_IFLNK:
			target, err := os.Readlink(filepath.Join(dir, e.rel))
			if err != nil {
				return err
			}
			out.WriteString(" " + target)
		}
		out.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func writeCorpus(t *testing.T, base string, heavy bool) {
	t.Helper()
	var all []corpusCase
	seen := map[[32]byte]string{}
	for i, c := range hostile.Cases(filepath.Join(base, "canary")) {
		if c.Heavy && !heavy || (c.Heavy || !c.Disk) && os.Getenv(lightEnv) != "" {
			continue
		}
		cc := corpusCase{Name: c.Name, ACI: c.Kind == hostile.ACI, Want: c.Want, List: c.List, Heavy: c.Heavy}
		cc.Layered = appc.Layered{Manifest: digestOf([]byte("m")), Config: digestOf([]byte("c")), ManifestType: "x"}
		for j, l := range c.Layers {
			data := l.Data()
			sum := sha256.Sum256(data)
			if seen[sum] == "" {
				seen[sum] = filepath.Join(base, fmt.Sprintf("archive-%d-%d", i, j))
				if err := os.WriteFile(seen[sum], data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			ref := appc.LayerRef{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data)) + l.Extra}
			ref.DiffID = ref.Digest
			if l.DiffID != "" {
				ref.DiffID = l.DiffID
			} else if l.Plain != nil && !cc.ACI {
				ref.DiffID = digestOf(l.Plain())
			}
			if l.Digest != "" {
				ref.Digest = l.Digest
			}
			cc.Files = append(cc.Files, seen[sum])
			cc.Layered.Layers = append(cc.Layered.Layers, ref)
		}
		all = append(all, cc)
	}
	var data bytes.Buffer
	if err := gob.NewEncoder(&data).Encode(all); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "corpus"), data.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCorpusWorker unpacks a corpus; TestCorpus runs it.
func TestCorpusWorker(t *testing.T) {
	base := os.Getenv(corpusEnv)
	if base == "" {
		t.Skip("run by TestCorpus")
	}
	if os.Geteuid() == 0 {
		if err := sys.Mount("", "/", "", syscall.MS_SLAVE|syscall.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(base, "corpus"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var cases []corpusCase
	if err := gob.NewDecoder(f).Decode(&cases); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			w := &worker{t: t, base: base, dir: filepath.Join(base, fmt.Sprintf("w%d", i)), c: c}
			if c.Heavy {
				w.dir = filepath.Join(os.Getenv(heavyEnv), filepath.Base(w.dir))
			} else {
				t.Parallel() // after the heavy ones
			}
			w.run()
		})
	}
	t.Cleanup(func() { // the light cases, several at a time
		if peak := peakMemory(t); peak > caseMemory {
			t.Errorf("%d MiB of memory", peak>>20)
		}
	})
	resetPeak(t)
}

// worker unpacks one case.
type worker struct {
	t         *testing.T
	base, dir string
	c         corpusCase
}

func (w *worker) run() {
	before := fingerprint(w.t, filepath.Join(w.base, "canary"))
	names := w.siblings()
	if w.c.Heavy {
		debug.FreeOSMemory()
		resetPeak(w.t)
	}
	var lists [][]string
	modes := []bool{true}
	if !w.c.Heavy && os.Getenv(lightEnv) == "" {
		modes = []bool{true, false}
	}
	for _, streamed := range modes {
		lists = append(lists, w.unpack(streamed))
		if after := fingerprint(w.t, filepath.Join(w.base, "canary")); after != before {
			w.t.Errorf("the decoys changed: %s", cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")))
		}
		if diff := cmp.Diff(names, w.siblings()); diff != "" {
			w.t.Errorf("something appeared, or went, beside the store: %s", diff)
		}
	}
	if len(lists) == 2 {
		if diff := cmp.Diff(lists[0], lists[1]); diff != "" {
			w.t.Errorf("rendered while importing and later, the trees differ: %s", diff)
		}
	}
}

// siblings are the names beside the store.
func (w *worker) siblings() []string {
	names, err := os.ReadDir(w.base)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, n := range names {
		if !strings.HasPrefix(n.Name(), "w") && !strings.HasPrefix(n.Name(), "TestCorpusWorker") {
			out = append(out, n.Name())
		}
	}
	return out
}

// unpack imports and renders the case, streamed while it comes or later out of
// the store. The result is nil if it was refused.
func (w *worker) unpack(streamed bool) []string {
	t := w.t
	s, err := store.Open(filepath.Join(w.dir, "cas"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(w.dir); err != nil {
			t.Errorf("cannot be removed: %v", err)
			exec.Command("chmod", "-R", "u+rwX", w.dir).Run() //nolint:errcheck // it fails above
			os.RemoveAll(w.dir)
		}
	}()
	warnings := 0
	trees, err := Open(s, Options{Warn: func(text string) {
		if warnings++; warnings == 200 {
			t.Error("hundreds of warnings")
		}
		if len(text) > 1000 || strings.ContainsAny(text, "\x1b\x07") {
			t.Errorf("warning %.1000q", text)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), caseTime)
	defer cancel()
	start := time.Now()
	var tree *Tree
	if w.c.ACI {
		tree, err = w.image(ctx, s, trees, streamed)
	} else {
		tree, err = w.layers(ctx, s, trees, streamed)
	}
	if took := time.Since(start); ctx.Err() != nil || took > caseTime {
		t.Errorf("took %v", took)
	} else if took > 3*time.Second {
		t.Logf("took %v", took)
	}
	if w.c.Heavy {
		if peak := peakMemory(t); peak > caseMemory {
			t.Errorf("%d MiB of memory", peak>>20)
		}
	}
	if err != nil {
		if text := err.Error(); len(text) > 6000 || strings.ContainsAny(text, "\x1b\x07") {
			t.Errorf("error of %d bytes: %.1000q", len(text), text)
		}
		if w.c.Want == hostile.Harmless {
			t.Errorf("refused: %v", err)
		}
		w.nothingLeft(s, trees)
		return nil
	}
	if w.c.Want == hostile.Refused {
		t.Error("accepted")
	}
	if w.c.Heavy {
		return nil
	}
	list := w.check(tree)
	if err := trees.Verify(ctx, tree); err != nil {
		t.Error(err)
	}
	return list
}

// check compares what the tree shows with what it should.
func (w *worker) check(tree *Tree) []string {
	t := w.t
	if w.c.Want == hostile.Bounded { // what it is made of may be too deep for paths
		if err := Copy(t.Context(), tree.Lowers(), filepath.Join(t.TempDir(), "copy")); err != nil {
			t.Error(err)
		}
		return nil
	}
	list := mergedListing(t, tree)
	if w.c.List == nil {
		compareOverlay(t, tree, list)
		return list
	}
	if diff := cmp.Diff(w.c.List, list); diff != "" {
		t.Errorf("merged: %s", diff)
	}
	compareOverlay(t, tree, w.c.List)
	return list
}

// nothingLeft checks that a refused image left nothing but partial files.
func (w *worker) nothingLeft(s *store.Store, trees *Trees) {
	if records, err := s.Records(); err != nil || len(records) > 0 {
		w.t.Errorf("left records: %v %v", records, err)
	}
	ids, err := trees.ids()
	if err != nil {
		w.t.Error(err)
	}
	for _, id := range ids {
		if !trees.rendered(id) { // good layers below a bad one stay
			w.t.Errorf("left tree %q", id)
		}
	}
	if dirs, _ := filepath.Glob(filepath.Join(trees.dir, ".*")); len(dirs) > 0 {
		w.t.Errorf("left %q", dirs)
	}
	if w.c.ACI {
		for _, pattern := range []string{"tmp/*", "blob/*/*/*", "imageManifest/*/*/*"} {
			if left, _ := filepath.Glob(filepath.Join(s.Dir(), pattern)); len(left) > 0 {
				w.t.Errorf("left %q", left)
			}
		}
	}
}

func (w *worker) image(ctx context.Context, s *store.Store, trees *Trees, streamed bool) (*Tree, error) {
	f, err := os.Open(w.c.Files[0])
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if !streamed {
		r, err := s.Import(ctx, f, store.ImportOptions{})
		if err != nil {
			return nil, err
		}
		tree, err := trees.Render(ctx, r.Key)
		if err != nil { // an image that is never rendered harms nobody
			err = errors.Join(err, s.Remove(r.Key))
		}
		return tree, err
	}
	st, err := trees.Stage()
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			w.t.Error(err)
		}
	}()
	r, err := s.Import(ctx, f, store.ImportOptions{Visit: st})
	if err != nil {
		return nil, err
	}
	if err := st.Adopt(ctx, r.Key); err != nil {
		return nil, errors.Join(err, s.Remove(r.Key))
	}
	return trees.Render(ctx, r.Key)
}

func (w *worker) layers(ctx context.Context, s *store.Store, trees *Trees, streamed bool) (*Tree, error) {
	hold, err := trees.Hold()
	if err != nil {
		w.t.Fatal(err)
	}
	defer hold.Close()
	for i := range w.c.Layered.Layers {
		if err := w.layer(ctx, s, trees, i, streamed); err != nil {
			return nil, err
		}
	}
	for _, doc := range []string{"m", "c"} {
		if err := s.PutDocument(digestOf([]byte(doc)), []byte(doc)); err != nil {
			w.t.Fatal(err)
		}
	}
	value, err := json.Marshal(w.c.Layered)
	if err != nil {
		w.t.Fatal(err)
	}
	manifest, err := json.Marshal(map[string]any{
		"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/layered",
		"annotations": []map[string]string{{"name": appc.LayersAnnotation, "value": string(value)}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := s.ImportLayered(ctx, manifest, &w.c.Layered, store.ImportOptions{})
	if err != nil {
		return nil, err
	}
	tree, err := trees.Render(ctx, r.Key)
	if err != nil {
		err = errors.Join(err, s.Remove(r.Key))
	}
	return tree, err
}

// layer imports layer i the way it is fetched.
func (w *worker) layer(ctx context.Context, s *store.Store, trees *Trees, i int, streamed bool) (err error) {
	ref := w.c.Layered.Layers[i]
	if _, err := s.Layer(ref.Digest); err == nil {
		return nil
	}
	data, err := os.Open(w.c.Files[i])
	if err != nil {
		w.t.Fatal(err)
	}
	defer data.Close()
	tmp, err := lock.Path(s.LayerTemp(ref.Digest), lock.Exclusive)
	if err != nil {
		w.t.Fatal(err)
	}
	defer tmp.Close()
	if _, err := io.Copy(tmp, data); err != nil {
		w.t.Fatal(err)
	}
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		w.t.Fatal(err)
	}
	want := store.Layer{Digest: ref.Digest, DiffID: ref.DiffID, Size: ref.Size}
	defer func() {
		if _, lerr := s.Layer(ref.Digest); err != nil && lerr == nil && strings.HasPrefix(w.c.Name, "lie/") {
			w.t.Error("a refused layer is in the store")
		}
	}()
	if !streamed {
		_, err := s.ImportLayer(ctx, tmp, data, want, nil)
		return err
	}
	st, err := trees.StageLayer(&w.c.Layered, i)
	if err != nil || st == nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if _, err := s.ImportLayer(ctx, tmp, data, want, st.Entry); err != nil {
		return err
	}
	if err = st.Commit(); Late(err) {
		return st.Replay(ctx, want)
	}
	return err
}

// resetPeak makes peakMemory count from now.
func resetPeak(t *testing.T) {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Logf("the peak of memory cannot be reset: %v", err)
	}
}

// peakMemory is the largest resident set.
func peakMemory(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(data, []byte("VmHWM:"))
	var kib int64
	if _, err := fmt.Sscanf(string(rest), "%d kB", &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestFileSystems runs the tests of unpacking on file systems of their own.
// check list: 67, 68, 70
func TestFileSystems(t *testing.T) {
	needRoot(t)
	if testing.Short() || os.Getenv(lightEnv) != "" {
		t.Skip("takes long")
	}
	tests := []string{"TestCorpus", "TestMetadata", "TestRender", "TestLayers", "TestLayersShared", "TestRepairLayer"}
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			mkfs, err := exec.LookPath("mkfs." + kind)
			if err != nil {
				t.Skipf("mkfs.%s is not installed", kind)
			}
			if _, err := os.Stat("/dev/loop-control"); err != nil {
				t.Skip("there are no loop devices")
			}
			flag := map[string]string{"ext4": "-Fq", "xfs": "-fq", "btrfs": "-fq"}[kind]
			// The mounts and the loop device go with the namespace.
			script := `set -e
mount --make-rslave /
mount -t tmpfs -o size=1500M tmpfs "$1"
truncate -s 1400M "$1/image"
mkdir "$1/mnt"
"$2" "$3" "$1/image" >/dev/null
mount -o loop "$1/image" "$1/mnt" || exit 77
chmod 1777 "$1/mnt"
TMPDIR="$1/mnt" exec "$4" "-test.run=^($5)$" -test.timeout=5m`
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-c", script, "sh", dir, mkfs, flag, exe, strings.Join(tests, "|"))
			cmd.Env = append(os.Environ(), lightEnv+"=1")
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 77 {
				t.Skipf("cannot mount %s: %s", kind, out)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if !slices.Contains(strings.Split(strings.TrimSpace(string(out)), "\n"), "PASS") {
				t.Errorf("no tests ran: %s", out)
			}
		})
	}
}
