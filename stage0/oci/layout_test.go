package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// files is the content of a layout or an archive by name; a value that begins
// with "->" is a symbolic link, with "=>" a hard link.
type files map[string]string

func (f files) blob(content []byte) {
	f["blobs/sha256/"+strings.TrimPrefix(Digest(content), "sha256:")] = string(content)
}

func (f files) writeDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range f {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(p, []byte(content), 0o644)
		if target, ok := strings.CutPrefix(content, "->"); ok {
			_ = os.Remove(p)
			err = os.Symlink(target, p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (f files) tar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(f[name])), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(f[name], "->"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		} else if target, ok := strings.CutPrefix(f[name], "=>"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, target, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, f[name]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeFile(t testing.TB, name string, content []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gunzip(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }

// addImage puts an image with n layers into a layout and returns its entry.
func addImage(t testing.TB, f files, arch, name string, n int) obj {
	t.Helper()
	c := goodConfig(n)
	c["architecture"], c["author"] = arch, name
	config := doc(t, c)
	manifest := doc(t, goodManifest(t, config, n))
	f.blob(config)
	f.blob(manifest)
	for i := range n {
		f.blob([]byte(fmt.Sprint("layer", i)))
	}
	e := obj{"mediaType": TypeManifest, "digest": Digest(manifest), "size": len(manifest)}
	if name != "" {
		e["annotations"] = obj{annotationRefName: name}
	}
	return e
}

func newLayout(t testing.TB, f files, entries ...obj) {
	t.Helper()
	f[layoutFile] = `{"imageLayoutVersion":"1.0.0"}`
	f[layoutIndex] = string(doc(t, index(entries...)))
}

var amd64 = Platform{OS: "linux", Architecture: "amd64"}

// check list: 64
func TestLayoutsAndArchivesHoldTheSameImages(t *testing.T) {
	f := files{}
	one := addImage(t, f, "amd64", "docker.io/library/redis:7", 2)
	arm := addImage(t, f, "arm64", "multi", 1)
	arm["platform"] = platform("linux", "arm64", "")
	amd := addImage(t, f, "amd64", "multi", 3)
	amd["platform"] = platform("linux", "amd64", "")
	unnamed := addImage(t, f, "amd64", "", 1)
	nested := doc(t, index(arm, amd))
	f.blob(nested)
	list := obj{"mediaType": TypeIndex, "digest": Digest(nested), "size": len(nested), "annotations": obj{annotationRefName: "list"}}
	newLayout(t, f, one, arm, amd, unnamed, list)
	dir := f.writeDir(t)
	plain := writeFile(t, "x.tar", f.tar(t))
	packed := writeFile(t, "x.tar.gz", gz(t, f.tar(t)))
	tmp := t.TempDir()
	for _, c := range []struct {
		text   string
		p      Platform
		layers int
		want   string // digest, or part of the error
	}{
		{":docker.io/library/redis:7", amd64, 2, one["digest"].(string)},
		{":redis:7", amd64, 2, one["digest"].(string)},
		{":@0", amd64, 2, one["digest"].(string)},
		{":@3", amd64, 1, unnamed["digest"].(string)},
		{":multi", amd64, 3, amd["digest"].(string)},
		{":multi", Platform{OS: "linux", Architecture: "arm64"}, 1, arm["digest"].(string)},
		{":list", amd64, 3, amd["digest"].(string)},
		{"@" + Digest(nested), amd64, 3, amd["digest"].(string)},
		{"@" + arm["digest"].(string), Platform{OS: "linux", Architecture: "arm64"}, 1, arm["digest"].(string)},
		{"@" + arm["digest"].(string), amd64, 0, "no image for linux/amd64: there is one for linux/arm64"},
		{":multi", Platform{OS: "linux", Architecture: "s390x"}, 0, "there is one for linux/amd64, linux/arm64"},
		{":@9", amd64, 0, "no image @9: it holds 5"},
		{":other", amd64, 0, `holds no image "other": "docker.io/library/redis:7", "multi" (linux/arm64)`},
		{"@" + digestOf("none"), amd64, 0, "holds no image sha256:"},
		{"", amd64, 0, "several images, name one"},
	} {
		for _, path := range []string{dir, plain, packed} {
			ref, err := ParseLayoutRef(path + c.text)
			if err != nil {
				t.Fatal(err)
			}
			var l *Layout
			if path == dir {
				l, err = OpenLayout(ref)
			} else {
				l, err = OpenArchive(t.Context(), ref, ArchiveOptions{TempDir: tmp, Decompress: gunzip})
			}
			if err != nil {
				t.Fatal(err)
			}
			img, err := l.Image(t.Context(), c.p)
			switch {
			case c.layers == 0:
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: error %v, want %q", ref, err, c.want)
				}
			case err != nil || img.ManifestDigest != c.want || len(img.Layers) != c.layers:
				t.Errorf("%s: %+v, %v", ref, img, err)
			default:
				readBlobs(t, l, img)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func readBlobs(t *testing.T, s Source, img *Image) {
	t.Helper()
	for _, layer := range img.Layers {
		for _, offset := range []int64{0, 2, layer.Size} {
			r, err := s.Blob(t.Context(), layer.Descriptor, offset)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := r.(io.ReaderAt); !ok {
				t.Error("a blob on disk is no io.ReaderAt")
			}
			b, err := io.ReadAll(r)
			if err != nil || int64(len(b)) != layer.Size-offset || offset == 0 && Digest(b) != layer.Digest {
				t.Errorf("blob %v from %d: %q, %v", layer, offset, b, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		lie := layer.Descriptor
		lie.Size++
		if _, err := s.Blob(t.Context(), lie, 0); err == nil {
			t.Error("a blob of another size is opened")
		}
	}
}

// check list: 62
func TestLayoutsThatLieAreRefused(t *testing.T) {
	secret := writeFile(t, "secret", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	for _, c := range []struct {
		name   string
		change func(f files, e obj)
		err    string
	}{
		{"no oci-layout", func(f files, _ obj) { delete(f, layoutFile) }, "not an OCI image layout"},
		{"version 2", func(f files, _ obj) { f[layoutFile] = `{"imageLayoutVersion":"2.0.0"}` }, "not supported"},
		{"large oci-layout", func(f files, _ obj) { f[layoutFile] = strings.Repeat(" ", 5000) }, "more than 4096"},
		{"link out of the layout", func(f files, _ obj) { f[layoutFile] = "->" + secret }, "oci-layout"},
		{"relative link out", func(f files, _ obj) { f[layoutFile] = "->../../../../../../../.." + secret }, "oci-layout"},
		{"link loop", func(f files, _ obj) { f[layoutFile] = "->" + layoutFile }, "oci-layout"},
		{"no index", func(f files, _ obj) { delete(f, layoutIndex) }, "index.json"},
		{"empty index", func(f files, _ obj) { f[layoutIndex] = string(doc(t, index())) }, "holds no image"},
		{"missing manifest", func(f files, e obj) { delete(f, "blobs/sha256/"+e["digest"].(string)[7:]) }, "no such file|does not exist"},
		{"changed manifest", func(f files, e obj) {
			name := "blobs/sha256/" + e["digest"].(string)[7:]
			f[name] = strings.Replace(f[name], "sha256:", "sha256:", 1)[:len(f[name])-1] + " "
		}, "tampered"},
		{"longer manifest", func(f files, e obj) { f["blobs/sha256/"+e["digest"].(string)[7:]] += " " }, "its descriptor says"},
		{"index of itself", func(f files, e obj) {
			f.blob([]byte("{}"))
			e["digest"], e["size"] = digestOf("{}"), 2
			f[layoutIndex] = string(doc(t, index(e)))
		}, "schemaVersion"},
	} {
		f := files{}
		e := addImage(t, f, "amd64", "", 1)
		newLayout(t, f, e)
		c.change(f, e)
		check := func(l *Layout, err error) {
			t.Helper()
			if err == nil {
				_, err = l.Image(t.Context(), amd64)
				_ = l.Close()
			}
			ok := false
			for _, want := range strings.Split(c.err, "|") {
				ok = ok || err != nil && strings.Contains(err.Error(), want)
			}
			if !ok {
				t.Errorf("%s: error %v, want %q", c.name, err, c.err)
			}
		}
		check(OpenLayout(LayoutRef{Path: f.writeDir(t)}))
		check(OpenArchive(t.Context(), LayoutRef{Path: writeFile(t, "x.tar", f.tar(t))}, ArchiveOptions{}))
	}
}

func TestLayoutFilesThatAreNoFilesDoNotBlock(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, layoutFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLayout(LayoutRef{Path: dir}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("FIFO: %v", err)
	}
	if _, err := OpenArchive(t.Context(), LayoutRef{Path: filepath.Join(dir, layoutFile)}, ArchiveOptions{}); err == nil {
		t.Error("a FIFO is opened as an archive")
	}
	if _, err := OpenArchive(t.Context(), LayoutRef{Path: dir}, ArchiveOptions{}); err == nil || !strings.Contains(err.Error(), "oci:PATH") {
		t.Errorf("directory: %v", err)
	}
}

func TestArchivesThatLieAreRefused(t *testing.T) {
	good := files{}
	newLayout(t, good, addImage(t, good, "amd64", "", 1))
	whole := good.tar(t)
	var twice bytes.Buffer
	w := tar.NewWriter(&twice)
	for range 2 {
		_ = w.WriteHeader(&tar.Header{Name: "oci-layout", Typeflag: tar.TypeReg})
	}
	_ = w.Close()
	var many bytes.Buffer
	w = tar.NewWriter(&many)
	for i := range maxMembers + 1 {
		_ = w.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg})
	}
	_ = w.Close()
	bomb := func(io.Reader) (io.ReadCloser, error) { return io.NopCloser(zeros{}), nil }
	for _, c := range []struct {
		name       string
		data       []byte
		decompress func(io.Reader) (io.ReadCloser, error)
		err        string
	}{
		{"cut in a member", whole[:600], nil, "unexpected EOF"},
		{"cut in a header", whole[:1100], nil, "unexpected EOF"},
		{"member twice", twice.Bytes(), nil, "in the archive twice"},
		{"too many members", many.Bytes(), nil, "more than 65536 members"},
		{"no archive", []byte("hello"), nil, "not a tar archive"},
		{"empty", nil, nil, "not a tar archive"},
		{"not compressed", []byte("hello"), gunzip, "gzip|EOF"},
		{"bomb", []byte("hello"), bomb, "unpacks to more than"},
	} {
		_, err := OpenArchive(t.Context(), LayoutRef{Path: writeFile(t, "x", c.data)}, ArchiveOptions{TempDir: t.TempDir(), Decompress: c.decompress, MaxUnpacked: 1 << 20})
		ok := false
		for _, want := range strings.Split(c.err, "|") {
			ok = ok || err != nil && strings.Contains(err.Error(), want)
		}
		if !ok {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenArchive(ctx, LayoutRef{Path: writeFile(t, "x", whole)}, ArchiveOptions{}); err == nil {
		t.Error("a cancelled context does not matter")
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func dockerFiles(t testing.TB, n int) files {
	f := files{}
	c := goodConfig(0)
	ids, layers := []string{}, []string{}
	for i := range n {
		content := fmt.Sprint("plain tar ", i)
		ids = append(ids, digestOf(content))
		name := strings.Repeat(fmt.Sprint(i), 64) + "/layer.tar"
		f[name] = content
		layers = append(layers, name)
	}
	// docker links layers with the same content.
	link := strings.Repeat("e", 64) + "/layer.tar"
	f[link] = "->../" + strings.Repeat("0", 64) + "/layer.tar"
	ids, layers = append(ids, ids[0]), append(layers, link)
	hard := strings.Repeat("f", 64) + "/layer.tar"
	f[hard] = "=>" + link
	ids, layers = append(ids, ids[0]), append(layers, hard)
	c["rootfs"] = obj{"type": "layers", "diff_ids": ids}
	config := doc(t, c)
	name := Digest(config)[7:] + ".json"
	f[name] = string(config)
	f[dockerManifest] = string(doc(t, []obj{{"Config": name, "RepoTags": []string{"redis:7", "localhost:5000/r:x"}, "Layers": layers}}))
	return f
}

// check list: 64
func TestDockerArchives(t *testing.T) {
	f := dockerFiles(t, 2)
	for _, path := range []string{writeFile(t, "x.tar", f.tar(t)), writeFile(t, "x.tar.gz", gz(t, f.tar(t)))} {
		var digests []string
		for _, text := range []string{"", ":redis:7", ":docker.io/library/redis:7", ":localhost:5000/r:x", ":@0"} {
			ref, err := ParseDockerArchiveRef(path + text)
			if err != nil {
				t.Fatal(err)
			}
			a, err := OpenDockerArchive(t.Context(), ref, ArchiveOptions{TempDir: t.TempDir(), Decompress: gunzip})
			if err != nil {
				t.Fatal(err)
			}
			img, err := a.Image(t.Context(), amd64)
			if err != nil || len(img.Layers) != 4 || img.Layers[1].Digest != digestOf("plain tar 1") || img.Layers[3].Digest != img.Layers[0].Digest {
				t.Fatalf("%s: %+v, %v", text, img, err)
			}
			if want := ref.Name; want != "" && img.Tag != want || want == "" && img.Tag != "registry-1.docker.io/library/redis:7" {
				t.Errorf("%s: tag %q", text, img.Tag)
			}
			readBlobs(t, a, img)
			digests = append(digests, img.ManifestDigest)
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
		if slices.Sort(digests); digests[0] != digests[4] {
			t.Errorf("the manifest is not always the same: %v", digests)
		}
	}
}

// check list: 62
func TestDockerArchivesThatLieAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		change     func(f files, m []obj) []obj
		err        string
	}{
		{"no manifest", "", func(f files, _ []obj) []obj { delete(f, dockerManifest); return nil }, "docker save did not make it"},
		{"no image", "", func(files, []obj) []obj { return []obj{} }, "no image"},
		{"unknown name", ":other", nil, "holds no image"},
		{"unknown number", ":@1", nil, "no image @1"},
		{"two images", "", func(_ files, m []obj) []obj { return append(m, m[0]) }, "2 images, name one"},
		{"config out of the archive", "", func(_ files, m []obj) []obj { m[0]["Config"] = "../../etc/passwd"; return m }, "does not exist"},
		{"absolute config", "", func(_ files, m []obj) []obj { m[0]["Config"] = "/etc/passwd"; return m }, "does not exist"},
		{"changed config", "", func(f files, m []obj) []obj { f[m[0]["Config"].(string)] += " "; return m }, "tampered"},
		{"no config", "", func(_ files, m []obj) []obj { delete(m[0], "Config"); return m }, "names no configuration"},
		{"other spelling", "", func(_ files, m []obj) []obj { m[0]["layers"] = []string{}; return m }, "must be spelt"},
		{"missing layer", "", func(_ files, m []obj) []obj { m[0]["Layers"] = []string{"a", "b", "c", "d"}; return m }, "does not exist"},
		{"fewer layers", "", func(_ files, m []obj) []obj { m[0]["Layers"] = []string{"a"}; return m }, "has 1 layers, the configuration 4"},
		{"layer is a link out", "", func(f files, m []obj) []obj {
			f["a"] = "->/etc/passwd"
			m[0]["Layers"] = []string{"a", "a", "a", "a"}
			return m
		}, "does not exist"},
		{"layer is a link loop", "", func(f files, m []obj) []obj {
			f["a"], f["b"] = "->b", "->a"
			m[0]["Layers"] = []string{"a", "a", "a", "a"}
			return m
		}, "more than 8 links"},
		{"layers of another type", "", func(_ files, m []obj) []obj { m[0]["Layers"] = obj{}; return m }, "not a list"},
	} {
		f := dockerFiles(t, 2)
		var m []obj
		if c.change != nil {
			var name string
			layers := []string{}
			for n := range f {
				if strings.HasSuffix(n, ".json") && n != dockerManifest {
					name = n
				} else if n != dockerManifest {
					layers = append(layers, n)
				}
			}
			slices.Sort(layers)
			if m = c.change(f, []obj{{"Config": name, "Layers": layers}}); m != nil {
				f[dockerManifest] = string(doc(t, m))
			}
		}
		ref, err := ParseDockerArchiveRef(writeFile(t, "x.tar", f.tar(t)) + c.text)
		if err != nil {
			t.Fatal(err)
		}
		a, err := OpenDockerArchive(t.Context(), ref, ArchiveOptions{})
		if err == nil {
			_, err = a.Image(t.Context(), amd64)
			_ = a.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
	}
}

func TestSniff(t *testing.T) {
	layout := files{}
	newLayout(t, layout, addImage(t, layout, "amd64", "", 1))
	aci := files{"manifest": "{}", "rootfs/x": ""}
	docker := dockerFiles(t, 1)
	for _, c := range []struct {
		name string
		path string
		want Kind
	}{
		{"layout", layout.writeDir(t), KindLayout},
		{"directory", t.TempDir(), KindUnknown},
		{"oci archive", writeFile(t, "x", layout.tar(t)), KindArchive},
		{"compressed oci archive", writeFile(t, "x", gz(t, layout.tar(t))), KindArchive},
		{"docker archive", writeFile(t, "x", docker.tar(t)), KindDockerArchive},
		{"compressed docker archive", writeFile(t, "x", gz(t, docker.tar(t))), KindDockerArchive},
		{"aci", writeFile(t, "x", aci.tar(t)), KindACI},
		{"compressed aci", writeFile(t, "x", gz(t, aci.tar(t))), KindACI},
		{"other tar", writeFile(t, "x", files{"a": "b"}.tar(t)), KindUnknown},
		{"text", writeFile(t, "x", []byte("hello")), KindUnknown},
		{"empty", writeFile(t, "x", nil), KindUnknown},
	} {
		if got, err := Sniff(c.path, gunzip); got != c.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	if _, err := Sniff(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("what is not there is sniffed at")
	}
}

func FuzzArchive(f *testing.F) {
	layout := files{}
	newLayout(f, layout, addImage(f, layout, "amd64", "x", 1))
	f.Add(layout.tar(f))
	f.Add(dockerFiles(f, 1).tar(f))
	f.Add(gz(f, layout.tar(f)))
	path := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		o := ArchiveOptions{TempDir: filepath.Dir(path), Decompress: gunzip, MaxUnpacked: 1 << 20}
		if _, err := Sniff(path, gunzip); err != nil {
			t.Error(err)
		}
		check := func(s Source, err error) {
			if err != nil {
				return
			}
			defer s.Close()
			img, err := s.Image(t.Context(), amd64)
			if err != nil {
				return
			}
			for _, l := range img.Layers {
				if r, err := s.Blob(t.Context(), l.Descriptor, 0); err == nil {
					if n, err := io.Copy(io.Discard, r); n != l.Size || err != nil {
						t.Errorf("layer %+v: %d bytes, %v", l, n, err)
					}
					_ = r.Close()
				}
			}
		}
		l, err := OpenArchive(t.Context(), LayoutRef{Path: path}, o)
		check(l, err)
		d, err := OpenDockerArchive(t.Context(), LayoutRef{Path: path}, o)
		check(d, err)
	})
}
