package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// flat is a merged root file system in memory and the archives that hold the
// contents of its files. It can be written once.
type flat struct {
	root    *flatNode
	sources []replay
}

// replay reads an archive again and calls f for every entry, counted from 0.
type replay func(ctx context.Context, f func(i int, body io.Reader) error) error

// sink is given files in an order that makes them whole: directories and what
// has no content first, by path, then files in the order of their archives,
// each followed by its other names as hard links. rel "" is the root.
type sink func(rel string, h *tar.Header, body io.Reader) error

// write gives all files to a sink.
func (f *flat) write(ctx context.Context, out sink) error {
	pending := make([]map[int][]*flatNode, len(f.sources))
	if err := f.structure("", f.root, pending, out); err != nil {
		return err
	}
	for i, read := range f.sources {
		// Copies of a file have the same content; an archive is read once for each.
		for len(pending[i]) > 0 {
			err := read(ctx, func(entry int, body io.Reader) error {
				nodes := pending[i][entry]
				if len(nodes) == 0 {
					return nil
				}
				if pending[i][entry] = nodes[1:]; len(nodes) == 1 {
					delete(pending[i], entry)
				}
				return nodes[0].write(out, body)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// write gives a regular file and its other names to a sink.
func (n *flatNode) write(out sink, body io.Reader) error {
	if err := out(n.names[0], n.header(n.names[0]), body); err != nil {
		return err
	}
	for _, name := range n.names[1:] {
		if err := out(name, n.link(name), nil); err != nil {
			return err
		}
	}
	return nil
}

// link describes a further name of a file.
func (n *flatNode) link(rel string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeLink, Name: rel, Linkname: n.names[0], Format: tar.FormatPAX}
}

// structure writes what has no content and notes the rest as pending.
func (f *flat) structure(rel string, n *flatNode, pending []map[int][]*flatNode, out sink) error {
	n.names = append(n.names, rel)
	switch {
	case n.typ == tar.TypeReg && n.size > 0:
		if len(n.names) == 1 {
			if pending[n.source] == nil {
				pending[n.source] = map[int][]*flatNode{}
			}
			pending[n.source][n.entry] = append(pending[n.source][n.entry], n)
		}
		return nil
	case len(n.names) > 1:
		return out(rel, n.link(rel), nil)
	}
	if err := out(rel, n.header(rel), bytes.NewReader(nil)); err != nil {
		return err
	}
	if !n.isDir() {
		return nil
	}
	names := make([]string, 0, len(n.children))
	for name := range n.children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := f.structure(path.Join(rel, name), n.children[name], pending, out); err != nil {
			return err
		}
	}
	return nil
}

// flatten puts an image's root file system together, with its layers or its
// dependencies. All that it reads is compared with its digests.
func (t *Trees) flatten(ctx context.Context, key string) (*flat, error) {
	_, layers, err := t.plan(key)
	if err != nil {
		return nil, err
	}
	if layered := layers[len(layers)-1].layered; layered != nil {
		return t.flattenLayers(ctx, layered)
	}
	return t.flattenACIs(ctx, layers)
}

func (t *Trees) flattenLayers(ctx context.Context, layered *appc.Layered) (*flat, error) {
	f := &flat{root: newFlatDir(0, defaultDir())}
	r := newFlatReader(t.o.Limits)
	var lower *flatNode
	for i, ref := range layered.Layers {
		want := store.Layer{Digest: ref.Digest, DiffID: ref.DiffID, Size: ref.Size}
		r.source, r.layer = i, i
		l := newFlatLayer(r, lower)
		err := t.store.ReplayLayer(ctx, want, l.Entry)
		if err == nil {
			f.root, err = l.finish()
		}
		if errors.Is(err, errLateWhiteout) { // now its whiteouts are known
			l.restart()
			if err = t.store.ReplayLayer(ctx, want, l.Entry); err == nil {
				f.root, err = l.finish()
			}
		}
		if err != nil {
			return nil, err
		}
		lower = f.root
		f.sources = append(f.sources, t.replayLayer(want))
	}
	return f, nil
}

func (t *Trees) replayLayer(want store.Layer) replay {
	return func(ctx context.Context, f func(int, io.Reader) error) error {
		n := -1
		return t.store.ReplayLayer(ctx, want, func(_ *tar.Header, body io.Reader) error {
			n++
			return f(n, body)
		})
	}
}

func (t *Trees) flattenACIs(ctx context.Context, layers []layer) (*flat, error) {
	f := &flat{root: newFlatDir(0, defaultDir())}
	a := &flatACI{flatReader: newFlatReader(t.o.Limits), root: f.root}
	for i, l := range layers {
		alias := map[string]string{}
		if len(l.lists) > 0 {
			var err error
			if alias, err = t.aliases(ctx, l); err != nil {
				return nil, err
			}
		}
		a.source, a.n = i, 0
		_, err := t.readACI(ctx, l.key, func(rel string, h *tar.Header, _ io.Reader) error {
			return a.entry(rel, h, l.lists, alias)
		})
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", l.key, err)
		}
		f.sources = append(f.sources, func(ctx context.Context, f func(int, io.Reader) error) error {
			n := -1
			_, err := t.readACI(ctx, l.key, func(_ string, _ *tar.Header, body io.Reader) error {
				n++
				return f(n, body)
			})
			return err
		})
	}
	return f, nil
}

// readACI reads an image's own archive and compares it with its ID, and its
// manifest, which is returned, with the one that plans are made from.
func (t *Trees) readACI(ctx context.Context, key string, f func(rel string, h *tar.Header, body io.Reader) error) ([]byte, error) {
	b, err := t.store.ReadBlob(key)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	h := newAsyncHash(sha512.New())
	defer h.close()
	in := io.TeeReader(b, h)
	var manifest []byte
	read := func(body io.Reader) (err error) {
		manifest, err = io.ReadAll(io.LimitReader(body, appc.MaxManifest))
		return err
	}
	if err := eachEntry(ctx, in, read, f); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, err
	}
	if id := appc.HashPrefix + hex.EncodeToString(h.sum()); appc.Key(id) != key {
		return nil, fmt.Errorf("the stored image is damaged: its content has the ID %q", id)
	}
	stored, err := t.store.ManifestBytes(key)
	if err == nil && !bytes.Equal(stored, manifest) {
		err = errors.New("the stored manifest is not the image's own (rkt image fsck --repair mends that)")
	}
	return manifest, err
}

// tarSink writes files into an archive; prefix is put before their names.
func tarSink(w *tar.Writer, prefix string, check func(rel string) error) sink {
	return func(rel string, h *tar.Header, body io.Reader) error {
		if check != nil {
			if err := check(rel); err != nil {
				return err
			}
		}
		h.Name = prefix + rel
		if _, err := store.CleanName(h.Name); err != nil && rel != "" {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if h.Name = strings.TrimSuffix(h.Name, "/") + "/"; h.Name == "/" {
				h.Name = "./"
			}
		case tar.TypeLink:
			h.Linkname = prefix + h.Linkname
		}
		if err := w.WriteHeader(h); err != nil || h.Size == 0 {
			return err
		}
		_, err := io.Copy(w, body)
		return err
	}
}

// WriteLayer writes an image's root file system, dependencies applied, as the
// plain tar of one layer (OCI image layer filesystem changeset). The same image
// gives the same bytes.
func (t *Trees) WriteLayer(ctx context.Context, w io.Writer, key string) error {
	f, err := t.flatten(ctx, key)
	if err != nil {
		return fmt.Errorf("flattening image %q: %w", key, err)
	}
	tw := tar.NewWriter(w)
	err = f.write(ctx, tarSink(tw, "", func(rel string) error {
		if strings.HasPrefix(path.Base(rel), whiteoutPrefix) {
			return fmt.Errorf("file %q: in a layer its name would mean that a file was removed", rel)
		}
		return nil
	}))
	if err != nil {
		return fmt.Errorf("flattening image %q: %w", key, err)
	}
	return tw.Close()
}

// WriteACI writes an image as one ACI that needs nothing else, neither layers
// nor dependencies, and returns its ID. The same image gives the same bytes.
func (t *Trees) WriteACI(ctx context.Context, w io.Writer, key string) (id string, err error) {
	wrap := func(err error) error { return fmt.Errorf("flattening image %q: %w", key, err) }
	manifest, err := t.readACI(ctx, key, func(string, *tar.Header, io.Reader) error { return nil })
	if err != nil {
		return "", wrap(err)
	}
	if manifest, err = standalone(manifest); err != nil {
		return "", wrap(err)
	}
	f, err := t.flatten(ctx, key)
	if err != nil {
		return "", wrap(err)
	}
	var h hash.Hash = sha512.New()
	tw := tar.NewWriter(io.MultiWriter(w, h))
	err = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: manifestFile, Mode: 0o644, Size: int64(len(manifest)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = tw.Write(manifest)
	}
	if err == nil {
		err = f.write(ctx, tarSink(tw, rootfsDir+"/", nil))
	}
	if err == nil {
		err = tw.Close()
	}
	if err != nil {
		return "", wrap(err)
	}
	return appc.HashPrefix + hex.EncodeToString(h.Sum(nil)), nil
}

// standalone takes layers, dependencies and the white list, which is applied,
// out of an image manifest; all else stays.
func standalone(manifest []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(manifest))
	d.UseNumber()
	m := map[string]any{}
	if err := d.Decode(&m); err != nil {
		return nil, err
	}
	delete(m, "dependencies")
	delete(m, "pathWhitelist")
	if list, ok := m["annotations"].([]any); ok {
		m["annotations"] = slices.DeleteFunc(list, func(v any) bool {
			a, ok := v.(map[string]any)
			return ok && a["name"] == appc.LayersAnnotation
		})
	}
	out, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if _, _, err := appc.ParseImageManifest(out); err != nil {
		return nil, err
	}
	return out, nil
}

// Extract writes an image's manifest and root file system into dir, an empty
// directory: with deps what an app sees, without the image's own files alone.
// It needs no tree and, owners and devices apart, no privileges.
func (t *Trees) Extract(ctx context.Context, key, dir string, deps bool) error {
	if err := t.extractTo(ctx, key, dir, deps); err != nil {
		return fmt.Errorf("extracting image %q: %w", key, err)
	}
	return nil
}

func (t *Trees) extractTo(ctx context.Context, key, dir string, deps bool) error {
	_, layers, err := t.plan(key)
	if err != nil && deps {
		return err
	}
	if err != nil || !deps && layers[len(layers)-1].layered == nil {
		layers = []layer{{key: key}} // a missing dependency is nothing to it
	}
	x, err := t.newRootfs(dir)
	if err != nil {
		return err
	}
	defer x.close()
	var manifest []byte
	if layered := layers[len(layers)-1].layered; layered != nil {
		manifest, err = t.readACI(ctx, key, func(string, *tar.Header, io.Reader) error { return nil })
		if err != nil {
			return err
		}
		f, err := t.flattenLayers(ctx, layered)
		if err == nil {
			err = f.write(ctx, x.sink())
		}
		if err != nil {
			return err
		}
	} else {
		for _, l := range layers {
			if manifest, err = t.extract(ctx, x, l); err != nil {
				return fmt.Errorf("image %q: %w", l.key, err)
			}
		}
	}
	if err := x.finish(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, manifestFile), manifest, 0o644)
}

// sink extracts what a merged root file system consists of.
func (x *extractor) sink() sink {
	return func(rel string, h *tar.Header, body io.Reader) error {
		if h.Typeflag == tar.TypeLink {
			return x.link(rel, h.Linkname)
		}
		return x.entry(rel, h, body)
	}
}

// Images are the keys of an image and of all that it depends on.
func (t *Trees) Images(key string) ([]string, error) {
	_, layers, err := t.plan(key)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", key, err)
	}
	keys := make([]string, 0, len(layers))
	for _, l := range layers {
		if !slices.Contains(keys, l.key) {
			keys = append(keys, l.key)
		}
	}
	return keys, nil
}

// Finding is something wrong with rendered trees.
type Finding struct {
	ID      string // of the tree or layer
	Problem string
}

// Check looks for trees that were never completed or that lack a layer: they
// count for nothing and only take room. It does not look at their content.
func (t *Trees) Check() ([]Finding, error) {
	ids, err := t.ids()
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, id := range ids {
		tree := &Tree{ID: id, dir: filepath.Join(t.dir, id)}
		if !marked(tree.dir) {
			out = append(out, Finding{id, "it was never completed, or not written to disk before the machine went down"})
			continue
		}
		if isLayerID(id) {
			continue
		}
		if err := t.readLayers(tree); err != nil {
			out = append(out, Finding{id, err.Error()})
		}
	}
	stages, err := filepath.Glob(filepath.Join(t.dir, stagePrefix+"*"))
	for _, s := range stages {
		out = append(out, Finding{filepath.Base(s), "it is being made, or a crash left it"})
	}
	return out, err
}

// Usage is the bytes of the files of all trees and layers, each counted once.
func (t *Trees) Usage() (int64, error) {
	ids, err := t.ids()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, id := range ids {
		if _, err := os.Stat(filepath.Join(t.dir, id, rootfsDir)); err != nil {
			continue // made of layers
		}
		n, err := readSize(filepath.Join(t.dir, id))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
