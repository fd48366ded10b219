package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
)

// States of a Finding.
const (
	FindingFound    = "found"
	FindingRepaired = "repaired"
	FindingRemoved  = "removed"
	FindingInUse    = "in use" // somebody holds it: nothing was done
	FindingFailed   = "failed" // mending it failed
)

// Finding is something that a check of the store came upon.
type Finding struct {
	// Kind is record, manifest, blob, layer, document, index, source or temporary.
	Kind    string `json:"kind"`
	Object  string `json:"object"` // key, digest or path
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
	// Leftover means that it harms nobody and only takes room: an interrupted
	// fetch leaves such things, and cleaning removes them.
	Leftover bool   `json:"leftover"`
	State    string `json:"state"`
}

// Mended says whether nothing is left to be done.
func (f Finding) Mended() bool { return f.State == FindingRepaired || f.State == FindingRemoved }

// FsckOptions say how a store is checked.
type FsckOptions struct {
	Quick  bool // read no blobs and layers to their end
	Repair bool // mend what can be mended, remove what cannot
}

// Checked is what a check looked at.
type Checked struct {
	Images int `json:"images"`
	Layers int `json:"layers"`
}

const (
	refetch  = "the image is removed; fetch it again"
	tempAge  = 24 * time.Hour // a partial download can be resumed
	smallAge = time.Minute    // what writers of small files leave
)

// checker is one check.
type checker struct {
	*Store
	ctx    context.Context // of the one Fsck call that made it
	o      FsckOptions
	report func(Finding)
	layers map[string]error // checked, by digest
	n      Checked
}

// Fsck checks every record against the bytes it stands for, the other way
// round, and whatever else is in the store, and reports what it finds. Its
// error says that it could not go on. Nothing that is in use is touched.
func (s *Store) Fsck(ctx context.Context, o FsckOptions, report func(Finding)) (Checked, error) {
	c := &checker{Store: s, ctx: ctx, o: o, report: report, layers: map[string]error{}}
	keys, err := s.keys()
	if err != nil {
		return c.n, fmt.Errorf("checking the image store: %w", err)
	}
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return c.n, context.Cause(ctx)
		}
		c.image(key)
	}
	for _, f := range []func() error{c.orphans, c.names, c.remotes, c.objects, c.temporary} {
		if err := f(); err != nil {
			return c.n, fmt.Errorf("checking the image store: %w", err)
		}
	}
	c.n.Layers = len(c.layers)
	return c.n, nil
}

// found reports a finding after mending it, where that is wanted. state is
// what mend makes of it when it succeeds.
func (c *checker) found(f Finding, state string, mend func() error) {
	f.State = FindingFound
	if c.o.Repair && mend != nil {
		err := mend()
		switch {
		case err == nil:
			f.State = state
		case errors.Is(err, lock.ErrLocked):
			f.State = FindingInUse
		default:
			f.State = FindingFailed
			f.Problem += fmt.Sprintf(" (mending it: %v)", err)
		}
	}
	c.report(f)
}

// alone runs f while nobody uses the image.
func (c *checker) alone(key string, f func() error) error {
	l, err := lock.TryPath(c.lockPath(key), lock.Exclusive)
	if err != nil {
		return err
	}
	return errors.Join(f(), l.Close())
}

// drop removes an image with all that belongs to it alone. A record that says
// nothing goes without its help.
func (c *checker) drop(key string) error {
	if err := c.alone(key, func() error { return nil }); err != nil {
		return err
	}
	if _, err := c.Record(key); err == nil {
		return c.Remove(key)
	}
	return c.alone(key, func() error {
		return removeAll(c.recordPath(key), c.manifestPath(key), c.blobPath(key))
	})
}

// image checks one image, which nobody removes meanwhile.
func (c *checker) image(key string) {
	l, err := c.Lock(key, lock.Shared)
	if err == nil {
		defer func() { _ = l.Close() }() // a read lock
	}
	release := func() {
		if l != nil {
			_ = l.Close() // what follows wants it alone
		}
	}
	r, err := c.readRecord(key)
	if errors.Is(err, ErrNotFound) {
		return // removed since the listing
	}
	c.n.Images++
	if err == nil && (len(r.ID) != len(appc.HashPrefix)+128 || appc.Key(r.ID) != key) {
		err = fmt.Errorf("the record names the ID %q", r.ID)
	}
	if err != nil {
		release()
		c.found(Finding{Kind: "record", Object: key, Problem: err.Error(), Remedy: "the record is made again from the image; it counts as unsigned then"},
			FindingRepaired, func() error { return c.remake(key) })
		return
	}
	fresh, err := c.readBlob(r)
	if c.ctx.Err() != nil {
		return
	}
	if err != nil {
		release()
		c.found(Finding{Kind: "blob", Object: key, Problem: fmt.Sprintf("image %q: %v", displayName(r), err), Remedy: refetch},
			FindingRemoved, func() error { return c.drop(key) })
		return
	}
	m, ok := c.manifest(r, fresh, release)
	if !ok {
		return
	}
	if !c.contents(r, m, release) {
		return
	}
	c.fields(r, m, release)
}

func displayName(r Record) string {
	if v := r.Labels["version"]; v != "" {
		return r.Name + ":" + v
	}
	return r.Name
}

// readBlob reads the image's own file, or only looks for it.
func (c *checker) readBlob(r Record) (*unpacked, error) {
	f, err := os.Open(c.blobPath(r.Key))
	if err != nil {
		return nil, fmt.Errorf("its file is missing: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() != r.stored() {
		return nil, fmt.Errorf("its file has %d bytes, not %d", st.Size(), r.stored())
	}
	if c.o.Quick {
		return nil, nil
	}
	u, err := c.reread(c.ctx, f)
	if err != nil {
		return nil, fmt.Errorf("its file is damaged: %w", err)
	}
	if u.id != r.ID {
		return nil, fmt.Errorf("its file is damaged: the content has the ID %q", u.id)
	}
	return &u, nil
}

// manifest checks the manifest beside the image's file.
func (c *checker) manifest(r Record, fresh *unpacked, release func()) (*schema.ImageManifest, bool) {
	data, err := os.ReadFile(c.manifestPath(r.Key))
	var m *schema.ImageManifest
	if err == nil {
		m, _, err = appc.ParseImageManifest(data)
	}
	if err == nil && fresh != nil && !bytes.Equal(data, fresh.manifest) {
		err = errors.New("it is not the one in the image")
	}
	if err == nil {
		return m, true
	}
	release()
	c.found(Finding{Kind: "manifest", Object: r.Key, Problem: fmt.Sprintf("image %q: %v", displayName(r), err), Remedy: "the manifest is taken from the image again"},
		FindingRepaired, func() error { return c.alone(r.Key, func() error { return c.remakeManifest(r) }) })
	return nil, false
}

func (c *checker) remakeManifest(r Record) error {
	f, err := os.Open(c.blobPath(r.Key))
	if err != nil {
		return err
	}
	defer f.Close()
	u, err := c.reread(c.ctx, f)
	if err != nil {
		return err
	}
	if u.id != r.ID {
		return fmt.Errorf("the image is damaged: its content has the ID %q", u.id)
	}
	path := c.manifestPath(r.Key)
	if err := c.mkdir("imageManifest/sha512/" + digits(r.Key)[:2]); err != nil {
		return err
	}
	failpoint.Hit("store/fsck-manifest")
	return atomicfile.WriteFile(path, u.manifest, fileMode)
}

// remake makes an image's record again.
func (c *checker) remake(key string) error {
	if err := c.alone(key, func() error { return removeAll(c.recordPath(key)) }); err != nil {
		return err
	}
	failpoint.Hit("store/fsck-record")
	info, err := os.Stat(c.blobPath(key))
	if err == nil {
		_, err = c.rebuild(c.ctx, key, c.blobPath(key), info)
	}
	if err != nil && c.ctx.Err() == nil {
		return errors.Join(fmt.Errorf("%w; the image is removed, fetch it again", err),
			c.alone(key, func() error { return removeAll(c.manifestPath(key), c.blobPath(key)) }))
	}
	return err
}

// contents checks an image's layers and documents.
func (c *checker) contents(r Record, m *schema.ImageManifest, release func()) bool {
	layered, err := appc.Layers(m)
	if err != nil || layered == nil {
		return err == nil
	}
	for _, ref := range layered.Layers {
		err := c.layer(ref)
		if c.ctx.Err() != nil {
			return false
		}
		if err == nil {
			continue
		}
		release()
		c.found(Finding{Kind: "layer", Object: ref.Digest, Problem: fmt.Sprintf("image %q: %v", displayName(r), err), Remedy: refetch},
			FindingRemoved, func() error {
				// Its bytes go whoever else needs them: those images are found, too.
				return errors.Join(c.drop(r.Key), c.dropObject(ref.Digest))
			})
		return false
	}
	for _, d := range []string{layered.Manifest, layered.Config} {
		if _, err := c.Document(d); err != nil {
			release()
			c.found(Finding{Kind: "document", Object: d, Problem: fmt.Sprintf("image %q: %v", displayName(r), err), Remedy: refetch},
				FindingRemoved, func() error { return errors.Join(c.drop(r.Key), c.dropObject(d)) })
			return false
		}
	}
	return true
}

// dropObject removes a damaged layer or document.
func (c *checker) dropObject(digest string) error {
	l, err := lock.TryPath(c.layerLock(digest), lock.Exclusive)
	if err != nil {
		return err
	}
	return errors.Join(removeAll(c.objectPath(digest), c.layerPath(digest), l.Name()), l.Close())
}

// layer checks a layer once.
func (c *checker) layer(ref appc.LayerRef) error {
	err, done := c.layers[ref.Digest]
	if !done {
		err = c.checkLayer(ref)
		c.layers[ref.Digest] = err
	}
	return err
}

func (c *checker) checkLayer(ref appc.LayerRef) error {
	l, err := c.Layer(ref.Digest)
	if _, statErr := os.Stat(c.objectPath(ref.Digest)); errors.Is(err, ErrNotFound) && statErr == nil {
		c.found(Finding{Kind: "layer", Object: ref.Digest, Problem: "it has no record that fits it", Remedy: "the record is made again from its bytes"},
			FindingRepaired, func() error {
				l, err = c.rebuildLayer(c.ctx, ref)
				return err
			})
		if !c.o.Repair {
			return nil // reported
		}
	}
	if err != nil {
		return err
	}
	if l.DiffID != ref.DiffID || l.Size != ref.Size {
		return fmt.Errorf("layer %q is recorded with the diff ID %q and %d bytes, not %q and %d", ref.Digest, l.DiffID, l.Size, ref.DiffID, ref.Size)
	}
	if c.o.Quick {
		return nil
	}
	return c.ReplayLayer(c.ctx, l, nil)
}

// fields compares a record with the manifest and finds it in the index.
func (c *checker) fields(r Record, m *schema.ImageManifest, release func()) {
	layered, _ := appc.Layers(m) // checked before
	want := r
	want.Name, want.Labels = m.Name.String(), appc.Labels(m)
	same := r.Name == want.Name && len(r.Labels) == len(want.Labels)
	for k, v := range want.Labels {
		same = same && r.Labels[k] == v
	}
	if layered != nil {
		same = same && len(layered.Layers) == len(r.Layers) && len(r.Documents) == 2
		want.Documents, want.Layers = []string{layered.Manifest, layered.Config}, nil
		want.Size, want.Compressed = int64(0), r.Stored
		for i, ref := range layered.Layers {
			same = same && i < len(r.Layers) && r.Layers[i].Digest == ref.Digest
			if l, err := c.Layer(ref.Digest); err == nil {
				want.Layers = append(want.Layers, l)
				want.Size += l.Plain
				want.Compressed += l.Size
			}
		}
		want.Size += r.stored()
	}
	if !same {
		release()
		c.found(Finding{Kind: "record", Object: r.Key, Problem: fmt.Sprintf("image %q: the record differs from the manifest", displayName(r)), Remedy: "the record is written again"},
			FindingRepaired, func() error {
				return c.alone(r.Key, func() error { return errors.Join(c.index(want.Name, r.Key), c.putRecord(want)) })
			})
		return
	}
	if _, err := os.Stat(c.namePath(r.Name, r.Key)); errors.Is(err, fs.ErrNotExist) {
		release()
		c.found(Finding{Kind: "index", Object: r.Key, Problem: fmt.Sprintf("image %q cannot be found by its name", displayName(r)), Remedy: "it is listed under its name again"},
			FindingRepaired, func() error { return c.alone(r.Key, func() error { return c.index(r.Name, r.Key) }) })
	}
}

// isTemp says whether a file is what a killed writer of a small file left.
func isTemp(name string) bool { return strings.HasPrefix(name, ".") }
