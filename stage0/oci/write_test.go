package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/appc"
)

// packedImage is an image of two gzip layers, one of them twice, with its content.
func packedImage(t testing.TB) (*Image, map[string][]byte) {
	t.Helper()
	blobs := map[string][]byte{}
	var layers []Layer
	var ids []string
	for i := range 3 {
		plain := files{fmt.Sprint("file", i%2): strings.Repeat("x", 1000)}.tar(t)
		packed := gz(t, plain)
		blobs[Digest(plain)], blobs[Digest(packed)] = plain, packed
		layers = append(layers, Layer{Descriptor{MediaType: TypeLayerGzip, Digest: Digest(packed), Size: int64(len(packed))}, Digest(plain)})
		ids = append(ids, Digest(plain))
	}
	cfg := goodConfig(0)
	cfg["rootfs"] = obj{"type": "layers", "diff_ids": ids}
	img, err := Assemble(doc(t, cfg), layers)
	if err != nil {
		t.Fatal(err)
	}
	return img, blobs
}

func TestAssembleChecksDiffIDs(t *testing.T) {
	img, _ := packedImage(t)
	img.Layers[0].DiffID = digestOf("x")
	if _, err := Assemble(img.Config, img.Layers); err == nil {
		t.Error("a wrong diff ID is accepted")
	}
}

func TestWhatIsWrittenReadsTheSame(t *testing.T) {
	img, blobs := packedImage(t)
	open := func(d Descriptor) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blobs[d.Digest])), nil }
	var a, b bytes.Buffer
	for _, w := range []io.Writer{&a, &b} {
		if err := WriteOCIArchive(t.Context(), w, img, open, "x:1"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("written twice, it differs")
	}
	ref, err := ParseLayoutRef(writeFile(t, "x.tar", a.Bytes()) + ":x:1")
	if err != nil {
		t.Fatal(err)
	}
	l, err := OpenArchive(t.Context(), ref, ArchiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	again, err := l.Image(t.Context(), amd64)
	if err != nil || again.Tag != "x:1" {
		t.Fatalf("%+v, %v", again, err)
	}
	again.Tag = ""
	if diff := cmp.Diff(img, again); diff != "" {
		t.Error(diff)
	}
	readBlobs(t, l, again)

	redis, err := ParseReference("redis:7")
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, known := range []bool{true, false} {
		plain := func(l Layer) (io.ReadCloser, int64, error) {
			size := int64(-1)
			if known {
				size = int64(len(blobs[l.DiffID]))
			}
			return io.NopCloser(bytes.NewReader(blobs[l.DiffID])), size, nil
		}
		var out bytes.Buffer
		if err := WriteDockerArchive(t.Context(), &out, img, plain, []Reference{redis, {Host: "a.b", Repository: "c"}}); err != nil {
			t.Fatal(err)
		}
		if want != nil && !bytes.Equal(want, out.Bytes()) {
			t.Error("written twice, it differs")
		}
		want = out.Bytes()
	}
	ref, err = ParseDockerArchiveRef(writeFile(t, "x.tar", want) + ":redis:7")
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenDockerArchive(t.Context(), ref, ArchiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	docker, err := d.Image(t.Context(), amd64)
	if err != nil || !bytes.Equal(docker.Config, img.Config) || docker.Layers[2].DiffID != img.Layers[0].DiffID {
		t.Fatalf("%+v, %v", docker, err)
	}
	readBlobs(t, d, docker)
}

// check list: 62
func TestDamagedLayersAreNotWritten(t *testing.T) {
	img, blobs := packedImage(t)
	for _, change := range []func([]byte) []byte{
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { return append(bytes.Clone(b), 0) },
		func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b },
	} {
		open := func(d Descriptor) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(change(blobs[d.Digest]))), nil
		}
		if err := WriteOCIArchive(t.Context(), io.Discard, img, open, ""); err == nil {
			t.Error("a damaged layer is written")
		}
		plain := func(l Layer) (io.ReadCloser, int64, error) {
			return io.NopCloser(bytes.NewReader(change(blobs[l.DiffID]))), -1, nil
		}
		if err := WriteDockerArchive(t.Context(), io.Discard, img, plain, nil); err == nil {
			t.Error("a damaged layer is written")
		}
	}
	fails := errors.New("no")
	if err := WriteOCIArchive(t.Context(), io.Discard, img, func(Descriptor) (io.ReadCloser, error) { return nil, fails }, ""); !errors.Is(err, fails) {
		t.Error(err)
	}
	if err := WriteDockerArchive(t.Context(), io.Discard, img, func(Layer) (io.ReadCloser, int64, error) { return nil, -1, fails }, nil); !errors.Is(err, fails) {
		t.Error(err)
	}
}

func TestFromACI(t *testing.T) {
	const native = `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/web","labels":[{"name":"os","value":"linux"},
		{"name":"arch","value":"armv7l"},{"name":"version","value":"1.0"}],"annotations":[{"name":"authors","value":"A"},
		{"name":"created","value":"2026-01-02T03:04:05Z"},{"name":"homepage","value":"https://example.com"}],
		"app":{"exec":["/bin/web","-x"],"user":"web","group":"33","workingDirectory":"/srv","environment":[{"name":"A","value":"b"}],
		"mountPoints":[{"name":"data","path":"/data"}],"ports":[{"name":"http","protocol":"tcp","port":80},{"name":"r","protocol":"udp","port":100,"count":5}],
		"isolators":[{"name":"resource/memory","value":{"limit":"1G"}}],"userLabels":{"a":"b"}}}`
	m, _, err := appc.ParseImageManifest([]byte(native))
	if err != nil {
		t.Fatal(err)
	}
	data, warnings, err := FromACI(m, digestOf("root"))
	if err != nil {
		t.Fatal(err)
	}
	got := string(data) + "\n" + fmt.Sprintln(warnings)
	golden(t, "testdata/fromaci", []byte(got))

	for _, bad := range []struct{ old, new string }{
		{`"armv7l"`, `"armv7b"`}, {`{"name":"os","value":"linux"},`, ``}, {`"user":"web"`, `"user":"/bin/web"`},
	} {
		m, _, err := appc.ParseImageManifest([]byte(strings.Replace(native, bad.old, bad.new, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := FromACI(m, digestOf("root")); err == nil {
			t.Errorf("%s is accepted", bad.new)
		}
	}
}

func TestConversionThereAndBack(t *testing.T) {
	dirs, err := filepath.Glob("testdata/convert/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if filepath.Base(dir) == "odd" {
			continue // what was left out is gone
		}
		config, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		img, err := imageOf(t, config, nil)
		if err != nil {
			t.Fatal(err)
		}
		data, _, err := Convert(img, Naming{Name: "x", Repository: "x"})
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := appc.ParseImageManifest(data)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, l := range img.Layers {
			ids = append(ids, l.DiffID)
		}
		back, _, err := FromACI(m, ids...)
		if err != nil {
			t.Fatal(err)
		}
		want, err1 := ParseConfig(config)
		got, err2 := ParseConfig(back)
		want.Comment = "" // App Container has no word for it
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if want.Author == "" {
			got.Author = ""
		}
		if want.Run != nil && len(want.Run.ExposedPorts) == 0 {
			want.Run.ExposedPorts, got.Run.ExposedPorts = nil, nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", dir, diff)
		}
	}
}
