package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage1/filter"
)

// TestImage: the image has what the contract and the pod need, and the same
// input gives the same bytes.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"s1", "s2"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var images [2][]byte
	for i := range images {
		out := filepath.Join(dir, "out.aci")
		if err := run("nspawn", out, "1.2.3", filepath.Join(dir, "s1"), filepath.Join(dir, "s2"), "amd64"); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		images[i] = b
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("two images of the same input differ")
	}
	z, err := gzip.NewReader(bytes.NewReader(images[0]))
	if err != nil {
		t.Fatal(err)
	}
	type entry struct {
		h    *tar.Header
		data []byte
	}
	got := map[string]entry{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		got[strings.TrimSuffix(h.Name, "/")] = entry{h, b}
	}
	m, _, err := appc.ParseImageManifest(got["manifest"].data)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{abi.AnnotationRun, abi.AnnotationEnter, abi.AnnotationGC, abi.AnnotationStop,
		abi.AnnotationAttach, abi.AnnotationAppAdd, abi.AnnotationAppStart, abi.AnnotationAppStop, abi.AnnotationAppRm} {
		v, ok := m.Annotations.Get(a)
		if e, has := got["rootfs"+v]; !ok || !has || e.h.Linkname != "../init" {
			t.Errorf("entrypoint %s is %q, in the image: %t", a, v, has)
		}
	}
	for _, f := range []string{"pod", "app"} {
		if p, err := filter.Parse(got["rootfs/rkt/filters/"+f+".bpf"].data); err != nil || len(p) < 100 {
			t.Errorf("filter %s: %d instructions, %v", f, len(p), err)
		}
	}
	if e := got["rootfs/rkt-stage2"]; string(e.data) != "s2" || e.h.Mode != 0o755 {
		t.Errorf("rkt-stage2: %q", e.data)
	}
	if e, ok := got["rootfs/tmp"]; !ok || e.h.Mode != 0o1777 {
		t.Error("no /tmp for all")
	}
	if e := got["rootfs/var/run"]; e.h == nil || e.h.Linkname != "../run" {
		t.Error("/var/run is not /run: machined would not find the bus")
	}
	for name := range got {
		// on systemd 257 a mount unit holds a pod's start back for most of a second
		if strings.HasSuffix(name, ".mount") || strings.HasSuffix(name, ".automount") {
			t.Errorf("the image has the mount unit %s", name)
		}
	}
}

// TestFly: the image of the fly flavour names its own entrypoints.
func TestFly(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "s1"), []byte("s1"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "fly.aci")
	if err := run("fly", out, "1.2.3", filepath.Join(dir, "s1"), "", "amd64"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names[h.Name] = true
		if h.Name == "manifest" {
			b, err := io.ReadAll(r)
			if err != nil || !bytes.Contains(b, []byte(`"coreos.com/rkt/stage1-fly"`)) || !bytes.Contains(b, []byte(`"/ex/fly-run"`)) {
				t.Errorf("manifest %s, %v", b, err)
			}
		}
	}
	for _, n := range []string{"rootfs/init", "rootfs/ex/fly-run", "rootfs/ex/fly-enter", "rootfs/ex/fly-gc", "rootfs/ex/fly-stop"} {
		if !names[n] {
			t.Errorf("the image lacks %q: %v", n, names)
		}
	}
	if err := run("kvm", out, "1.2.3", filepath.Join(dir, "s1"), "", "amd64"); err == nil {
		t.Error("an unknown flavour is made")
	}
}
