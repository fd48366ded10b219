// Command mkstage1 makes a stage1 image as an ACI: of the nspawn flavour the
// programs, the units and the compiled system call filters, of fly the programs. The same input
// gives the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sort"
	"time"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/stage1/filtergen"
	"github.com/rkt-systemd/rkt/stage1/rootfs"
)

func main() {
	out := flag.String("o", "stage1-nspawn.aci", "file to write")
	version := flag.String("version", buildinfo.Version, "version label")
	stage1 := flag.String("stage1", "", "the built rkt-stage1")
	stage2 := flag.String("stage2", "", "the built rkt-stage2")
	arch := flag.String("arch", runtime.GOARCH, "architecture, as Go names it")
	flavor := flag.String("flavor", "nspawn", "nspawn or fly")
	flag.Parse()
	if err := run(*flavor, *out, *version, *stage1, *stage2, *arch); err != nil {
		fmt.Fprintln(os.Stderr, "mkstage1:", err)
		os.Exit(1)
	}
}

type entry struct {
	mode   int64
	data   []byte
	link   string
	isLink bool
	isDir  bool
}

// fly makes the image of the fly flavour: the programs, and nothing to boot.
func fly(out, version, stage1, arch string) error {
	tree := map[string]entry{}
	for _, d := range []string{"", "etc", "ex", "opt", "opt/stage2", "rkt", "rkt/status", "rkt/env"} {
		tree[d] = entry{mode: 0o755, isDir: true}
	}
	b, err := os.ReadFile(stage1)
	if err != nil {
		return err
	}
	tree["init"] = entry{mode: 0o755, data: b}
	annotations := []pair{{abi.AnnotationVer, fmt.Sprint(abi.Version)}}
	for _, a := range [][2]string{{abi.AnnotationRun, "fly-run"}, {abi.AnnotationEnter, "fly-enter"}, {abi.AnnotationGC, "fly-gc"}, {abi.AnnotationStop, "fly-stop"}} {
		tree["ex/"+a[1]] = entry{link: "../init", isLink: true}
		annotations = append(annotations, pair{a[0], "/ex/" + a[1]})
	}
	m, err := manifest(buildinfo.FlyName, version, arch, annotations)
	if err != nil {
		return err
	}
	return write(out, m, tree)
}

func run(flavor, out, version, stage1, stage2, arch string) error {
	switch flavor {
	case "nspawn":
	case "fly":
		return fly(out, version, stage1, arch)
	default:
		return fmt.Errorf("unknown flavor %q", flavor)
	}
	tree := map[string]entry{}
	for _, d := range []string{"", "dev", "etc", "ex", "opt", "opt/stage2", "proc", "rkt", "rkt/apps", "rkt/env", "rkt/filters", "rkt/iottymux", "rkt/kubernetes", "rkt/kubernetes/log", "rkt/status",
		"rkt/volumes", "root", "run", "sys", "usr", "var", "var/lib", "var/log"} {
		tree[d] = entry{mode: 0o755, isDir: true}
	}
	tree["tmp"] = entry{mode: 0o1777, isDir: true}
	for name, target := range map[string]string{
		// the host's systemd and its libraries, bound at /usr
		"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
		// machined looks for the bus below /var/run
		"var/run": "../run",
	} {
		tree[name] = entry{link: target, isLink: true}
	}
	for name, file := range map[string]string{"init": stage1, "rkt-stage2": stage2} {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		tree[name] = entry{mode: 0o755, data: b}
	}
	for _, n := range []string{"run", "enter", "gc", "stop", "attach", "app-add", "app-start", "app-stop", "app-rm", "network", "plan"} {
		tree["ex/"+n] = entry{link: "../init", isLink: true}
	}
	for name, p := range map[string]filtergen.Policy{"pod": filtergen.Pod(), "app": filtergen.App()} {
		prog, err := filtergen.Compile(p)
		if err != nil {
			return err
		}
		tree["rkt/filters/"+name+".bpf"] = entry{mode: 0o644, data: prog.Marshal()}
	}
	err := fs.WalkDir(rootfs.Files, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case d.IsDir():
			tree[name] = entry{mode: 0o755, isDir: true}
			return nil
		}
		b, err := fs.ReadFile(rootfs.Files, name)
		tree[name] = entry{mode: 0o644, data: b}
		return err
	})
	if err != nil {
		return err
	}
	m, err := manifest(buildinfo.Stage1Name, version, arch, []pair{{abi.AnnotationRun, "/ex/run"}, {abi.AnnotationEnter, "/ex/enter"},
		{abi.AnnotationGC, "/ex/gc"}, {abi.AnnotationStop, "/ex/stop"}, {abi.AnnotationAttach, "/ex/attach"},
		{abi.AnnotationAppAdd, "/ex/app-add"}, {abi.AnnotationAppStart, "/ex/app-start"}, {abi.AnnotationAppStop, "/ex/app-stop"}, {abi.AnnotationAppRm, "/ex/app-rm"}, {abi.AnnotationNetwork, "/ex/network"}, {abi.AnnotationPlan, "/ex/plan"},
		{abi.AnnotationVer, fmt.Sprint(abi.Version)}, {abi.AnnotationPrivateUsers, "true"}})
	if err != nil {
		return err
	}
	return write(out, m, tree)
}

// pair is a label or an annotation of a manifest.
type pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func manifest(name, version, arch string, annotations []pair) ([]byte, error) {
	m := struct {
		ACKind      string `json:"acKind"`
		ACVersion   string `json:"acVersion"`
		Name        string `json:"name"`
		Labels      []pair `json:"labels"`
		Annotations []pair `json:"annotations"`
	}{"ImageManifest", "0.8.11", name, []pair{{"version", version}, {"os", "linux"}, {"arch", appc.ToAppcArch(arch, "7")}}, annotations}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	_, _, err = appc.ParseImageManifest(b)
	return b, err
}

func write(out string, manifest []byte, tree map[string]entry) error {
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := tar.NewWriter(z)
	put := func(name string, e entry) error {
		h := &tar.Header{Name: name, Mode: e.mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		switch {
		case e.isDir:
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		case e.isLink:
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		default:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.data))
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(e.data)
		return err
	}
	if err := put("manifest", entry{mode: 0o644, data: manifest}); err != nil {
		return err
	}
	names := make([]string, 0, len(tree))
	for n := range tree {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if err := put(path.Join("rootfs", n), tree[n]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(out, buf.Bytes(), 0o644)
}
