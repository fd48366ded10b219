//go:build boot

package crash

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layered makes images of layers out of what an ACI holds: dir/layout of two
// layers with a volume, dir/layered.tar.gz of the same, and dir/large of six
// layers, some of which take a while.
func layered(t *testing.T, aci, dir string) {
	t.Helper()
	base := rootfsLayer(t, aci, filepath.Join(t.TempDir(), "base.tar"))
	volume := map[string]string{"data/": "", "data/sub/": "", "data/sub/seed": "of the image\n", "etc/": "", "etc/.wh.fstab": ""}
	img := assemble(t, base, textLayer(t, volume))
	write(t, filepath.Join(dir, "layout"), img)
	archive(t, filepath.Join(dir, "layout"), filepath.Join(dir, "layered.tar.gz"))
	large := []v1.Layer{base}
	for i := range 5 {
		files := map[string]string{"d/": ""}
		for j := range 200 {
			files["d/"+string(rune('a'+i))+strings.Repeat("x", j)] = strings.Repeat("content of a file ", 100*i+j)
		}
		large = append(large, textLayer(t, files))
	}
	write(t, filepath.Join(dir, "large"), assemble(t, large...))
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func assemble(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img = must[v1.Image](t)(mutate.AppendLayers(img, layers...))
	file := must[*v1.ConfigFile](t)(img.ConfigFile())
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config.Cmd, file.Config.Volumes = []string{"/bin/true"}, map[string]struct{}{"/data": {}}
	return must[v1.Image](t)(mutate.ConfigFile(img, file))
}

func write(t *testing.T, dir string, img v1.Image) {
	t.Helper()
	path := must[layout.Path](t)(layout.Write(dir, empty.Index))
	if err := path.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"})); err != nil {
		t.Fatal(err)
	}
}

func archive(t *testing.T, dir, file string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "-czf", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
}

// rootfsLayer is a layer of what lies below an ACI's rootfs.
func rootfsLayer(t *testing.T, aci, file string) v1.Layer {
	t.Helper()
	in := must[*os.File](t)(os.Open(aci))
	defer in.Close()
	plain := must[*gzip.Reader](t)(gzip.NewReader(in))
	out := must[*os.File](t)(os.Create(file))
	defer out.Close()
	w := tar.NewWriter(out)
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name, below := strings.CutPrefix(h.Name, "rootfs/")
		if !below || name == "" {
			continue
		}
		h.Name, h.Linkname = name, strings.TrimPrefix(h.Linkname, "rootfs/")
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return gzipped(t, file)
}

// textLayer is a layer of files; names that end in a slash are directories.
func textLayer(t *testing.T, files map[string]string) v1.Layer {
	t.Helper()
	file := filepath.Join(t.TempDir(), "layer.tar")
	out := must[*os.File](t)(os.Create(file))
	defer out.Close()
	w := tar.NewWriter(out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return gzipped(t, file)
}

func gzipped(t *testing.T, file string) v1.Layer {
	t.Helper()
	return must[v1.Layer](t)(tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer)))
}
