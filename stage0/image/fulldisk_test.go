package image

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/stage0/oci"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// randomText is text that no compression makes smaller by much.
func randomText(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // not a secret
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// layerOf is a plain layer of n files of size bytes in a directory.
func layerOf(t *testing.T, name string, seed uint64, n, size int) v1.Layer {
	t.Helper()
	files := []acitest.File{acitest.Dir(name, 0o755)}
	for i := range n {
		files = append(files, acitest.Reg(fmt.Sprintf("%s/%d", name, i), randomText(seed+uint64(i), size), 0o644)) //nolint:gosec // small
	}
	for i := range files {
		files[i].Header.Name = strings.TrimPrefix(files[i].Header.Name, "rootfs/")
	}
	return static.NewLayer(acitest.Entries(t, files...), types.OCIUncompressedLayer)
}

// imageOf is an image of these layers.
func imageOf(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), layers...)
	if err != nil {
		t.Fatal(err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Config.Cmd = "linux", runtime.GOARCH, []string{"/bin/x"}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// writeLayout writes a layout of one image of these layers and returns the
// reference that names it by digest.
func writeLayout(t *testing.T, dir string, layers ...v1.Layer) string {
	t.Helper()
	img := imageOf(t, layers...)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir + "@" + digest.String()
}

// TestFullDisk fetches images into a file system that is full at many points
// on the way: the error tells it, nothing is lost, what is left is bounded and
// can be cleaned, and the fetch succeeds when there is room again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	for _, kind := range []string{"ext4", "tmpfs", "inodes"} {
		t.Run(kind, func(t *testing.T) {
			if _, err := exec.LookPath("mkfs.ext4"); err != nil && kind != "tmpfs" {
				t.Skip("mkfs.ext4 is not installed")
			}
			// The mounts and the loop device go with the namespace.
			const script = `set -e
mount --make-rprivate /
mount -t tmpfs -o size=200M tmpfs "$1"
mkdir "$1/data"
case $2 in
tmpfs) mount -t tmpfs -o size=40M tmpfs "$1/data" ;;
inodes) truncate -s 80M "$1/image"; mkfs.ext4 -Fq -m 0 -N 700 "$1/image"; mount -o loop "$1/image" "$1/data" || exit 77 ;;
*) truncate -s 48M "$1/image"; mkfs.ext4 -Fq -m 0 "$1/image"; mount -o loop "$1/image" "$1/data" || exit 77 ;;
esac
RKT_TEST_SMALL_DISK="$1" exec "$3" '-test.run=^TestSmallDisk$' -test.v`
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", t.TempDir(), kind, exe)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 77 {
				t.Skipf("no loop devices: %s", out)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

// smallDisk is a small file system that holds a store.
type smallDisk struct {
	*env
	trees     *tree.Trees
	data      string
	inodes    bool
	unrelated []Image // there before; nothing may happen to them
}

// free is what is left: bytes or inodes.
func (d *smallDisk) free(t *testing.T) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.data, &st); err != nil {
		t.Fatal(err)
	}
	if d.inodes {
		return int64(st.Ffree) //nolint:gosec // small
	}
	return int64(st.Bavail) * st.Bsize //nolint:gosec // small
}

// fill leaves n bytes, or inodes, free.
func (d *smallDisk) fill(t *testing.T, n int64) (empty func()) {
	t.Helper()
	ballast := filepath.Join(d.data, "ballast")
	if err := os.Mkdir(ballast, 0o700); err != nil {
		t.Fatal(err)
	}
	if d.inodes {
		for i := d.free(t); i > n; i-- {
			if err := os.WriteFile(fmt.Sprintf("%s/%d", ballast, i), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	} else if more := d.free(t) - n; more > 0 {
		f, err := os.Create(filepath.Join(ballast, "x"))
		if err == nil {
			// The file system's own blocks are not told beforehand.
			for err = syscall.ENOSPC; errors.Is(err, syscall.ENOSPC) && more > 0; more -= 32 << 10 {
				err = syscall.Fallocate(int(f.Fd()), 0, 0, more) //nolint:gosec // small
			}
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.RemoveAll(ballast); err != nil {
			t.Fatal(err)
		}
	}
}

func (d *smallDisk) get(t *testing.T, ref string) (Image, error) {
	t.Helper()
	img, err := d.fetch(t, ref, FetchOptions{})
	if err != nil {
		return img, err
	}
	_, err = d.trees.Render(t.Context(), img.Key)
	return img, err
}

// check checks that everything that is visible is whole.
func (d *smallDisk) check(t *testing.T) {
	t.Helper()
	records, err := d.f.Store.Records()
	if err != nil {
		t.Error(err)
	}
	for _, img := range d.unrelated {
		if !slices.ContainsFunc(records, func(r store.Record) bool { return r.Key == img.Key }) {
			t.Errorf("image %q is lost", img.Name)
		}
		found, err := d.trees.Find(img.Key)
		if err == nil {
			err = d.trees.Verify(t.Context(), found)
		}
		if err != nil && !errors.Is(err, syscall.ENOSPC) { // verifying writes, too
			t.Errorf("image %q: %v", img.Name, err)
		}
	}
	if _, err := d.f.Store.Fsck(t.Context(), store.FsckOptions{}, func(f store.Finding) {
		if !f.Leftover {
			t.Errorf("fsck: %+v", f)
		}
	}); err != nil {
		t.Error(err)
	}
}

// clean does what image gc does, later.
func (d *smallDisk) clean(t *testing.T) {
	t.Helper()
	s, err := store.Open(d.f.Store.Dir(), store.Options{Now: func() time.Time { return time.Now().Add(48 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Clean(t.Context(), time.Hour); err != nil {
		t.Error("cleaning the full disk:", err)
	}
	if err := d.trees.Clean(t.Context()); err != nil {
		t.Error("cleaning the full disk:", err)
	}
	if _, _, err := d.trees.Collect(t.Context(), func(id string) bool {
		return slices.ContainsFunc(d.unrelated, func(i Image) bool {
			tr, err := d.trees.Find(i.Key)
			return err == nil && tr.ID == id
		})
	}, false); err != nil {
		t.Error("collecting on the full disk:", err)
	}
}

// TestSmallDisk runs on the file system that TestFullDisk made.
func TestSmallDisk(t *testing.T) {
	dir := os.Getenv("RKT_TEST_SMALL_DISK")
	if dir == "" {
		t.Skip("runs as the child of TestFullDisk")
	}
	d := &smallDisk{env: newEnv(t), data: filepath.Join(dir, "data")}
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.data, &st); err != nil {
		t.Fatal(err)
	}
	d.inodes = st.Files > 0 && st.Files < 1000
	s, err := store.Open(filepath.Join(d.data, "cas"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d.trees, err = tree.Open(s, tree.Options{}); err != nil {
		t.Fatal(err)
	}
	d.f.Store, d.f.Trees, d.f.Insecure, d.f.Platform = s, d.trees, InsecureImage, oci.HostPlatform()

	// Many small files for the inodes, large ones for the bytes.
	n, size := 6, 500<<10
	if d.inodes {
		n, size = 60, 100
	}
	base := layerOf(t, "base", 1, n/2, size)
	src := t.TempDir()
	aci := acitest.Build(t, src, acitest.Manifest("example.com/small", "1"), acitest.Reg("f", "x", 0o644))
	for _, ref := range []string{aci, writeLayout(t, filepath.Join(src, "small"), base)} {
		img, err := d.get(t, ref)
		if err != nil {
			t.Fatal(err)
		}
		d.unrelated = append(d.unrelated, img)
	}
	layers := []v1.Layer{base}
	var files []acitest.File
	for i := range 3 {
		layers = append(layers, layerOf(t, fmt.Sprintf("dir%d", i), uint64(1000*(i+1)), n, size)) //nolint:gosec // small
	}
	for i := range 3 * n {
		files = append(files, acitest.Reg(fmt.Sprintf("f%d", i), randomText(uint64(5000+i), size), 0o644)) //nolint:gosec // small
	}
	for name, ref := range map[string]string{
		"layers": writeLayout(t, filepath.Join(src, "large"), layers...),
		"aci":    acitest.Build(t, src, acitest.Manifest("example.com/large", "1"), files...),
	} {
		t.Run(name, func(t *testing.T) { d.levels(t, ref) })
	}
}

// levels fetches with ever more room.
func (d *smallDisk) levels(t *testing.T, ref string) {
	before := d.free(t)
	img, err := d.get(t, ref)
	if err != nil {
		t.Fatal("there is not enough room for the test", err)
	}
	need := before - d.free(t)
	d.forget(t, img)
	failed := 0
	for step := range 21 {
		room := need * int64(step) / 20
		if step == 0 && d.inodes {
			room = 2
		}
		empty := d.fill(t, room)
		_, err := d.get(t, ref)
		if err != nil {
			failed++
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), filepath.Base(ref)) && !strings.Contains(err.Error(), "rendering image") {
				t.Errorf("%d of %d: the error does not tell what happened: %v", room, need, err)
			}
			if step < 3 || step%6 == 0 {
				t.Logf("%d of %d free: %v", room, need, err)
			}
		}
		d.check(t)
		records, _ := d.f.Store.Records()
		here := len(records) > len(d.unrelated) // only its tree or its source did not fit
		if step%2 == 0 && err != nil && !here { // else the next command meets what is left
			d.clean(t)
			if free := d.free(t); free+slack(d) < room {
				t.Errorf("%d of %d: cleaning leaves %d of %d", room, need, free, room)
			}
			d.check(t)
		}
		empty()
		img, err := d.get(t, ref)
		if err != nil {
			t.Fatalf("%d of %d: there is room again: %v", room, need, err)
		}
		d.check(t)
		d.forget(t, img)
		if free := d.free(t); free+slack(d) < before {
			t.Errorf("%d of %d: %d were free before, now %d", room, need, before, free)
		}
	}
	if failed < 8 {
		t.Errorf("only %d fetches failed", failed)
	}
}

// slack is what directories may take.
func slack(d *smallDisk) int64 {
	if d.inodes {
		return 64
	}
	return 512 << 10
}

func (d *smallDisk) forget(t *testing.T, img Image) {
	t.Helper()
	if err := d.f.Store.Remove(img.Key); err != nil {
		t.Error(err)
	}
	d.clean(t)
}
