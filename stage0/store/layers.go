package store

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// Layer is a layer of images, kept once whatever the number of images.
type Layer struct {
	Digest string `json:"digest"` // of the bytes as stored
	DiffID string `json:"diffID"` // of the plain tar
	Size   int64  `json:"size"`   // as stored
	Plain  int64  `json:"plain"`  // of the plain tar
}

const digestPrefix = "sha256:"

func (s *Store) objectPath(digest string) string {
	d := strings.TrimPrefix(digest, digestPrefix)
	return s.path("objects", "sha256", d[:2], d)
}

func (s *Store) layerPath(digest string) string {
	return s.path("records", "layers", strings.TrimPrefix(digest, digestPrefix)+".json")
}

func (s *Store) layerLock(digest string) string {
	return s.path("layerlocks", strings.TrimPrefix(digest, digestPrefix))
}

// HoldLayers keeps layers and documents, there or not yet there, from being
// removed until release is called: an image that needs them is being made.
func (s *Store) HoldLayers(digests []string) (release func() error, err error) {
	var held []*os.File
	release = func() error {
		var errs []error
		for _, f := range held {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	for _, d := range digests {
		if err := appc.CheckDigest(d); err != nil {
			return nil, errors.Join(err, release())
		}
		f, err := lock.Path(s.layerLock(d), lock.Shared)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("locking layer %q: %w", d, err), release())
		}
		held = append(held, f)
	}
	return release, nil
}

// Layer is what the store knows of a layer; ErrNotFound if it is not there whole.
func (s *Store) Layer(digest string) (Layer, error) {
	if err := appc.CheckDigest(digest); err != nil {
		return Layer{}, err
	}
	missing := fmt.Errorf("layer %q: %w", digest, ErrNotFound)
	data, err := os.ReadFile(s.layerPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return Layer{}, missing
	}
	if err != nil {
		return Layer{}, err
	}
	var l Layer
	if json.Unmarshal(data, &l) != nil || l.Digest != digest || appc.CheckDigest(l.DiffID) != nil {
		return Layer{}, missing // fetched again, it is written anew
	}
	if st, err := os.Stat(s.objectPath(digest)); err != nil || st.Size() != l.Size {
		return Layer{}, missing
	}
	return l, nil
}

// LayerTemp is the partial file of a layer; whoever writes it holds an
// exclusive lock on it.
func (s *Store) LayerTemp(digest string) string {
	return s.path("tmp", "layer-"+strings.TrimPrefix(digest, digestPrefix))
}

// LayerVisitor is shown the entries of a layer while it is imported.
type LayerVisitor func(h *tar.Header, body io.Reader) error

// ImportLayer reads a layer from r, which yields what is in tmp or being
// written there, to its end. It compares digest and size with want's, the
// digest of the plain tar with want's DiffID, shows the entries to visit, if
// not nil, and then moves tmp into the store. tmp is locked by the caller; when
// ImportLayer fails with a *ContentError, its content is worth nothing.
func (s *Store) ImportLayer(ctx context.Context, tmp *os.File, r io.Reader, want Layer, visit LayerVisitor) (Layer, error) {
	l, err := s.readLayer(ctx, r, want, visit, tmp)
	if err != nil {
		return Layer{}, fmt.Errorf("layer %q: %w", want.Digest, err)
	}
	if err := s.commitLayer(tmp, l); err != nil {
		return Layer{}, fmt.Errorf("storing layer %q: %w", want.Digest, err)
	}
	return l, nil
}

// ContentError means that content is not what was promised, or not acceptable.
type ContentError struct{ Err error }

func (e *ContentError) Error() string { return e.Err.Error() }

// Unwrap is the reason.
func (e *ContentError) Unwrap() error { return e.Err }

func contentErr(format string, args ...any) error {
	return &ContentError{fmt.Errorf(format, args...)}
}

// readLayer reads a layer once: digests, decompression and entries side by
// side. File is where r's bytes are, to be read again in doubt.
func (s *Store) readLayer(ctx context.Context, r io.Reader, want Layer, visit LayerVisitor, file *os.File) (Layer, error) {
	in := &countingReader{ctx: ctx, r: r}
	rawHash := sha256.New()
	raw := io.TeeReader(in, rawHash)
	br := bufio.NewReaderSize(raw, headSize)
	head, err := br.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return Layer{}, err
	}
	if len(head) == 0 { // docker makes such layers
		return Layer{}, contentErr("the layer is empty")
	}
	plain, _, err := Decompress(br)
	if err != nil {
		return Layer{}, &ContentError{err}
	}
	l := Layer{Digest: want.Digest, DiffID: want.DiffID, Size: want.Size}
	sum := sha256.New()
	err = through(ctx, plain, s.check(in), func(b []byte) error {
		l.Plain += int64(len(b))
		sum.Write(b)
		return nil
	}, func(r io.Reader) error { return s.layerEntries(r, visit) })
	if err != nil {
		in.stop()
	}
	if cerr := plain.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		_, err = io.Copy(io.Discard, br)
	}
	if in.err != nil {
		return Layer{}, in.err
	}
	if ctx.Err() != nil {
		return Layer{}, context.Cause(ctx)
	}
	var visitErr *visitError
	if errors.As(err, &visitErr) {
		// The entries are the enemy's, the disk's errors are ours: digests decide
		// about the content the next time.
		return Layer{}, visitErr.err
	}
	if err != nil {
		return Layer{}, &ContentError{err}
	}
	if err := checkDoubtful(plain, file); err != nil {
		return Layer{}, &ContentError{err}
	}
	if n := in.n.Load(); n != want.Size {
		return Layer{}, contentErr("%d bytes, the manifest promises %d", n, want.Size)
	}
	if got := digestPrefix + hex.EncodeToString(rawHash.Sum(nil)); got != want.Digest {
		return Layer{}, contentErr("the content has the digest %q", got)
	}
	if got := digestPrefix + hex.EncodeToString(sum.Sum(nil)); got != want.DiffID {
		return Layer{}, contentErr("uncompressed, the content has the digest %q; the configuration promises %q", got, want.DiffID)
	}
	return l, nil
}

type visitError struct{ err error }

func (e *visitError) Error() string { return e.err.Error() }

// layerEntries reads a layer's entries to the end of the archive.
func (s *Store) layerEntries(r io.Reader, visit LayerVisitor) error {
	tr := tar.NewReader(bufio.NewReaderSize(r, 64<<10))
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading tar: %w", err)
		}
		if n >= s.o.Limits.Entries {
			return fmt.Errorf("more than %d entries", s.o.Limits.Entries)
		}
		if visit == nil {
			if _, err := CleanName(h.Name); err != nil && h.Typeflag != tar.TypeXGlobalHeader {
				return err
			}
			continue
		}
		if err := visit(h, tr); err != nil {
			return &visitError{fmt.Errorf("entry %.200q: %w", h.Name, err)}
		}
	}
}

func (s *Store) commitLayer(tmp *os.File, l Layer) error {
	path := s.objectPath(l.Digest)
	if err := s.mkdir("objects/sha256/" + filepath.Base(filepath.Dir(path))); err != nil {
		return err
	}
	if err := tmp.Chmod(fileMode); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	failpoint.Hit("store/layer-synced")
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	failpoint.Hit("store/layer-renamed")
	if err := sys.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := s.putLayer(l); err != nil {
		return err
	}
	failpoint.Hit("store/layer-recorded")
	return nil
}

// putLayer writes a layer's record.
func (s *Store) putLayer(l Layer) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(s.layerPath(l.Digest), data, fileMode)
}

// OpenLayer opens a layer's bytes as they came.
func (s *Store) OpenLayer(digest string) (*os.File, error) {
	if err := appc.CheckDigest(digest); err != nil {
		return nil, err
	}
	f, err := os.Open(s.objectPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("layer %q: %w", digest, ErrNotFound)
	}
	return f, err
}

// ReplayLayer reads a stored layer again, checking it like an import does.
func (s *Store) ReplayLayer(ctx context.Context, want Layer, visit LayerVisitor) error {
	f, err := s.OpenLayer(want.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := s.readLayer(ctx, f, want, visit, f); err != nil {
		var damaged *ContentError
		if errors.As(err, &damaged) {
			return fmt.Errorf("the stored layer %q is damaged: %w", want.Digest, err)
		}
		return fmt.Errorf("layer %q: %w", want.Digest, err)
	}
	return nil
}

// PutDocument stores a small document by its digest, which the caller has
// compared with the data.
func (s *Store) PutDocument(digest string, data []byte) error {
	if err := appc.CheckDigest(digest); err != nil {
		return err
	}
	path := s.objectPath(digest)
	if st, err := os.Stat(path); err == nil && st.Size() == int64(len(data)) {
		return nil
	}
	if err := s.mkdir("objects/sha256/" + filepath.Base(filepath.Dir(path))); err != nil {
		return err
	}
	failpoint.Hit("store/document")
	return atomicfile.WriteFile(path, data, fileMode)
}

// maxDocument bounds what Document reads.
const maxDocument = 8 << 20

// Document reads a document and compares it with its digest.
func (s *Store) Document(digest string) ([]byte, error) {
	f, err := s.OpenLayer(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDocument))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); digestPrefix+hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("the stored document %q is damaged", digest)
	}
	return data, nil
}

// ImportLayered stores an image whose layers and documents are in the store and
// held by the caller. The manifest carries appc.LayersAnnotation; the image's
// own archive, and so its ID, is a function of the manifest alone.
func (s *Store) ImportLayered(ctx context.Context, manifest []byte, layered *appc.Layered, o ImportOptions) (Record, error) {
	o.layers = []Layer{}
	for _, r := range layered.Layers {
		l, err := s.Layer(r.Digest)
		if err != nil {
			return Record{}, err
		}
		if l.DiffID != r.DiffID {
			return Record{}, fmt.Errorf("layer %q is %q uncompressed, the configuration promises %q", l.Digest, l.DiffID, r.DiffID)
		}
		o.layers = append(o.layers, l)
	}
	o.documents = []string{layered.Manifest, layered.Config}
	data, err := layeredArchive(manifest)
	if err != nil {
		return Record{}, err
	}
	return s.Import(ctx, bytes.NewReader(data), o)
}

// layeredArchive is the image's own archive: the manifest and an empty rootfs.
func layeredArchive(manifest []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	epoch := time.Unix(0, 0)
	errs := []error{
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "rootfs/", Mode: 0o755, ModTime: epoch, Format: tar.FormatUSTAR}),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "manifest", Mode: 0o644, Size: int64(len(manifest)), ModTime: epoch, Format: tar.FormatUSTAR}),
	}
	_, err := w.Write(manifest)
	return buf.Bytes(), errors.Join(append(errs, err, w.Close())...)
}

// objects are the digests of all that the image needs besides its own files.
func (r Record) objects() []string {
	out := append([]string{}, r.Documents...)
	for _, l := range r.Layers {
		out = append(out, l.Digest)
	}
	return out
}

// removeObjects removes those of the objects that no image refers to and
// nobody holds.
func (s *Store) removeObjects(digests []string) error {
	locks := map[string]*os.File{}
	for _, d := range digests {
		if appc.CheckDigest(d) != nil || locks[d] != nil {
			continue
		}
		if l, err := lock.TryPath(s.layerLock(d), lock.Exclusive); err == nil {
			locks[d] = l
		}
	}
	if len(locks) == 0 {
		return nil
	}
	// Only now: while they were not locked, an image may have been made of them.
	used, err := s.usedObjects()
	errs := []error{err}
	for d, l := range locks {
		if err == nil && !used[d] {
			errs = append(errs, removeAll(s.layerPath(d), s.objectPath(d), l.Name()))
			failpoint.Hit("store/remove-object")
		}
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func removeAll(paths ...string) error {
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// usedObjects are the digests that any image refers to. A record that cannot
// be read may refer to anything: then nothing may be removed.
func (s *Store) usedObjects() (map[string]bool, error) {
	records, err := s.Records()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, r := range records {
		for _, d := range r.objects() {
			used[d] = true
		}
	}
	return used, nil
}

// cleanObjects removes objects older than before that no image refers to. It
// returns the bytes freed.
func (s *Store) cleanObjects(before time.Time) (int64, error) {
	var old []string
	sizes := map[string]int64{}
	root := s.path("objects", "sha256")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		digest := digestPrefix + d.Name()
		info, err := d.Info()
		if err != nil || info.ModTime().After(before) || appc.CheckDigest(digest) != nil {
			return nil //nolint:nilerr // removed meanwhile
		}
		old = append(old, digest)
		sizes[digest] = info.Size()
		return nil
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	used, err := s.usedObjects()
	if err != nil {
		return 0, err
	}
	var freed int64
	var unused []string
	for _, d := range old {
		if !used[d] {
			unused = append(unused, d)
			freed += sizes[d]
		}
	}
	return freed, s.removeObjects(unused)
}
