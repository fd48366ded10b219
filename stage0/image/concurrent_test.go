package image

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/stage0/oci"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// workerFetcher is the fetcher of a process that shares a store.
func workerFetcher(t *testing.T, dir string) *Fetcher {
	t.Helper()
	s, err := store.Open(filepath.Join(dir, "cas"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &Fetcher{Store: s, Insecure: InsecureImage | InsecureHTTP, Platform: oci.HostPlatform()}
	if os.Geteuid() == 0 {
		if f.Trees, err = tree.Open(s, tree.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// workers starts processes that run a test of this file with a store in dir and
// these images, and waits until all ended well.
func workers(t *testing.T, n int, test, dir string, refs []string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start, err := lock.Path(filepath.Join(dir, "start"), lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, n)
	for i := range n {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+test+"$", "-test.timeout=2m", "-test.v")
		cmd.Env = append(os.Environ(), "RKT_TEST_WORKER="+dir, "RKT_TEST_REFS="+strings.Join(refs, "\n"), "RKT_TEST_SEED="+strconv.Itoa(i))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Stderr = nil
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			var lines []string
			for in := bufio.NewScanner(out); in.Scan(); {
				lines = append(lines, in.Text())
			}
			err := cmd.Wait()
			if err != nil || !slices.Contains(lines, "PASS") {
				err = fmt.Errorf("process %d: %w\n%s", i, err, strings.Join(lines, "\n"))
			}
			errs <- err
		}()
	}
	if err := start.Close(); err != nil { // now
		t.Fatal(err)
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// begin waits for the start of all workers; without one, the test is skipped.
func begin(t *testing.T) (dir string, refs []Ref, seed uint64) {
	t.Helper()
	dir = os.Getenv("RKT_TEST_WORKER")
	if dir == "" {
		t.Skip("runs as the child of another test")
	}
	for text := range strings.SplitSeq(os.Getenv("RKT_TEST_REFS"), "\n") {
		ref, err := ParseRef(text)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	seed, err := strconv.ParseUint(os.Getenv("RKT_TEST_SEED"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	start, err := lock.Path(filepath.Join(dir, "start"), lock.Shared)
	if err != nil {
		t.Fatal(err)
	}
	start.Close()
	return dir, refs, seed
}

// TestFetchAtOnce checks that many processes that fetch the same images, whose
// layers come in different orders, all succeed, and that the work is done once.
// check list: 17
func TestFetchAtOnce(t *testing.T) {
	src := t.TempDir()
	a, b, c := layerOf(t, "a", 1, 4, 300<<10), layerOf(t, "b", 2, 4, 300<<10), layerOf(t, "c", 3, 4, 300<<10)
	var layouts []string
	for i, layers := range [][]v1.Layer{{a, b, c}, {c, b, a}, {b, c, a}, {a, c, b}} {
		layouts = append(layouts, writeLayout(t, filepath.Join(src, strconv.Itoa(i)), layers...))
	}
	reg := newTestRegistry(t)
	var served []string
	for i, layers := range [][]v1.Layer{{a, b, c}, {c, b, a}} {
		reg.push(t, "x:"+strconv.Itoa(i), imageOf(t, layers...))
		served = append(served, "docker://"+reg.ref("x:"+strconv.Itoa(i)))
	}
	for name, refs := range map[string][]string{
		"layers":   layouts,
		"registry": served,
		"aci":      {acitest.Build(t, src, acitest.Manifest("example.com/a", "1"), acitest.Reg("f", randomText(1, 2<<20), 0o644))},
	} {
		t.Run(name, func(t *testing.T) {
			for range 5 {
				dir := t.TempDir()
				before := reg.blobs.Load()
				workers(t, 16, "TestFetchWorker", dir, refs)
				if n, want := reg.blobs.Load()-before, int64(3+len(served)); name == "registry" && n != want {
					t.Errorf("%d blobs brought, want %d: every layer and every configuration once", n, want)
				}
				f := workerFetcher(t, dir)
				checkStore(t, f)
				if left, err := os.ReadDir(f.Store.TempDir()); err != nil || len(left) > 0 {
					t.Errorf("left: %v, %v", left, err)
				}
				if records, err := f.Store.Records(); err != nil || len(records) != len(refs) {
					t.Errorf("%d images, %v", len(records), err)
				}
			}
		})
	}
}

// TestFetchWorker fetches and renders one image.
func TestFetchWorker(t *testing.T) {
	dir, refs, seed := begin(t)
	f := workerFetcher(t, dir)
	img, err := f.Fetch(t.Context(), refs[seed%uint64(len(refs))], FetchOptions{})
	if err == nil && f.Trees != nil {
		_, err = f.Trees.Render(t.Context(), img.Key)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestAllAtOnce has processes fetch, render, remove, collect and check the same
// images for some seconds. Nothing fails but for want of an image that another
// process removed.
func TestAllAtOnce(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	a, b, c := layerOf(t, "a", 1, 4, 20<<10), layerOf(t, "b", 2, 4, 20<<10), layerOf(t, "c", 3, 4, 20<<10)
	refs := []string{
		writeLayout(t, filepath.Join(src, "1"), a, b, c),
		writeLayout(t, filepath.Join(src, "2"), a, c),
		writeLayout(t, filepath.Join(src, "3"), c, b, a),
		acitest.Build(t, src, acitest.Manifest("example.com/a", "1"), acitest.Reg("f", randomText(1, 100<<10), 0o644)),
		acitest.Build(t, src, acitest.Manifest("example.com/b", "1"), acitest.Reg("f", "x", 0o644)),
	}
	workers(t, 6, "TestAllWorker", dir, refs)
	f := workerFetcher(t, dir)
	checkStore(t, f)
	for _, text := range refs {
		ref, err := ParseRef(text)
		if err != nil {
			t.Fatal(err)
		}
		img, err := f.Fetch(t.Context(), ref, FetchOptions{})
		if err == nil && f.Trees != nil {
			_, err = f.Trees.Render(t.Context(), img.Key)
		}
		if err != nil {
			t.Error(err)
		}
	}
	checkStore(t, f)
	records, err := f.Store.Records()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := f.Store.Remove(r.Key); err != nil {
			t.Error(err)
		}
	}
	if f.Trees != nil {
		if _, _, err := f.Trees.Collect(t.Context(), func(string) bool { return false }, false); err != nil {
			t.Error(err)
		}
	}
	later, err := store.Open(f.Store.Dir(), store.Options{Now: func() time.Time { return time.Now().Add(48 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := later.Clean(t.Context(), time.Hour); err != nil {
		t.Error(err)
	}
	err = filepath.WalkDir(f.Store.Dir(), func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(f.Store.Dir(), path)
		if err == nil && !d.IsDir() && !strings.HasPrefix(rel, "ready-") && rel != "treestorelocks/all" {
			t.Errorf("left of a store without images: %s", rel)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestAllWorker does anything for a while.
func TestAllWorker(t *testing.T) {
	dir, refs, seed := begin(t)
	f := workerFetcher(t, dir)
	r := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // not a secret
	var keys []string
	done := map[string]int{}
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); {
		var err error
		what := ""
		switch n := r.IntN(20); {
		case n < 8:
			what = "fetch"
			var img Image
			if img, err = f.Fetch(t.Context(), refs[r.IntN(len(refs))], FetchOptions{}); err == nil && !slices.Contains(keys, img.Key) {
				keys = append(keys, img.Key)
			}
		case n < 12 && len(keys) > 0 && f.Trees != nil:
			what = "render"
			_, err = f.Trees.Render(t.Context(), keys[r.IntN(len(keys))])
		case n < 15 && len(keys) > 0:
			what = "remove"
			err = f.Store.Remove(keys[r.IntN(len(keys))])
		case n < 17 && f.Trees != nil:
			what = "collect"
			_, _, err = f.Trees.Collect(t.Context(), func(string) bool { return r.IntN(2) == 0 }, false)
			if errors.Is(err, tree.ErrBusy) {
				err = nil
			}
		case n < 18:
			what = "clean"
			if _, err = f.Store.Clean(t.Context(), time.Minute); err == nil && f.Trees != nil {
				err = errors.Join(f.Trees.Clean(t.Context()), f.Trees.Settle())
			}
		case n < 19:
			what = "check"
			_, err = f.Store.Fsck(t.Context(), store.FsckOptions{}, func(store.Finding) {})
		default:
			what = "list"
			_, err = f.Store.Records()
		}
		done[what]++
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	t.Log(done)
}

// checkStore checks that all that is visible is whole.
func checkStore(t *testing.T, f *Fetcher) {
	t.Helper()
	if _, err := f.Store.Fsck(t.Context(), store.FsckOptions{}, func(found store.Finding) {
		if !found.Leftover {
			t.Errorf("fsck: %+v", found)
		}
	}); err != nil {
		t.Error(err)
	}
	if f.Trees == nil {
		return
	}
	list, err := f.Trees.List()
	if err != nil {
		t.Error(err)
	}
	for _, tr := range list {
		if err := f.Trees.Verify(t.Context(), tr); err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	}
}
