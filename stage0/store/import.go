package store

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/sys"
)

func (l Limits) withDefaults() Limits {
	if l.Plain == 0 {
		l.Plain = 64 << 30
	}
	if l.Entries == 0 {
		l.Entries = 2_000_000
	}
	if l.Ratio == 0 {
		l.Ratio = 512 // gzip packs zeros 1029 to 1
	}
	return l
}

// ratioFloor is the size below which no compression ratio is suspicious.
const ratioFloor = 1 << 30

// Visitor is shown an image while it is imported, so that it need not be read
// twice. What it makes of it is worth nothing before Import has returned.
type Visitor interface {
	// Entry is called for what lies below rootfs and for rootfs itself (rel "").
	Entry(rel string, h *tar.Header, body io.Reader) error
	// Manifest is called with the image manifest's bytes, at any point.
	Manifest(data []byte)
}

// Import reads an ACI, compressed or not, to its end and puts it into the
// store. Nothing is visible until every check, o.Admit last, has passed.
// Importing an image again changes no data; it may strengthen the admission.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (rec Record, err error) {
	tmp, err := s.tempFile("import-")
	if err != nil {
		return rec, fmt.Errorf("importing image: %w", err)
	}
	defer func() { err = errors.Join(err, dropFile(tmp)) }()
	in := &countingReader{ctx: ctx, r: r, progress: o.Progress}
	u, err := s.unpack(ctx, in, tmp, o.Visit)
	if err != nil {
		return rec, fmt.Errorf("reading image: %w", err)
	}
	m, _, err := appc.ParseImageManifest(u.manifest)
	if err != nil {
		return rec, err
	}
	if _, ok := m.Annotations.Get(appc.LayersAnnotation); ok && o.layers == nil {
		return rec, fmt.Errorf("image %q: the annotation %q is reserved", m.Name, appc.LayersAnnotation)
	}
	admission := Admission{Kind: AdmittedUnsigned}
	if o.Admit != nil {
		if admission, err = o.Admit(m, u.id); err != nil {
			return rec, err
		}
	}
	now := s.o.Now()
	rec = Record{
		Key: appc.Key(u.id), ID: u.id, Name: m.Name.String(), Labels: appc.Labels(m),
		ImportTime: now, LastUsed: now, Size: u.size, Compressed: in.n.Load(), Stored: u.stored,
		Latest: o.Latest, Source: o.Source, Admission: admission, Layers: o.layers, Documents: o.documents,
	}
	for _, l := range o.layers {
		rec.Size += l.Plain
		rec.Compressed += l.Size
	}
	if rec, err = s.commit(tmp, u.manifest, rec); err != nil {
		return rec, fmt.Errorf("storing image %q: %w", u.id, err)
	}
	return rec, nil
}

// tempFile makes a file in the store's directory for partial files, locked so
// that cleaners leave it alone.
func (s *Store) tempFile(prefix string) (*os.File, error) {
	tmp, err := os.CreateTemp(s.TempDir(), prefix)
	if err != nil {
		return nil, err
	}
	if err := lock.TryFile(tmp, lock.Exclusive); err != nil {
		return nil, errors.Join(err, dropFile(tmp))
	}
	return tmp, nil
}

// dropFile closes a temporary file and removes it, if it is still there.
func dropFile(f *os.File) error {
	err := f.Close()
	if rmErr := os.Remove(f.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		err = errors.Join(err, rmErr)
	}
	return err
}

// countingReader counts what is read and ends when the context does.
type countingReader struct {
	ctx      context.Context // of the one Import call that made it
	r        io.Reader
	n        atomic.Int64
	err      error // of r, but for its end; read when nobody reads any more
	progress func(int64)
	stopped  atomic.Bool
}

// errStopped ends a stream that nobody wants any more.
var errStopped = errors.New("the rest is not wanted")

// stop makes a decompressor, which reads on to the end for others, end now.
func (c *countingReader) stop() { c.stopped.Store(true) }

func (c *countingReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	if c.stopped.Load() {
		return 0, errStopped
	}
	n, err := c.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	c.n.Add(int64(n))
	if c.progress != nil && n > 0 {
		c.progress(int64(n))
	}
	return n, err
}

// commit makes an unpacked image visible; the record comes last.
func (s *Store) commit(tmp *os.File, manifest []byte, rec Record) (Record, error) {
	l, err := s.Lock(rec.Key, lock.Exclusive)
	if err != nil {
		return rec, err
	}
	defer l.Close()
	if old, err := s.readRecord(rec.Key); err == nil && s.Complete(old) {
		if old.ID != rec.ID {
			return rec, fmt.Errorf("the store holds a different image with the same first %d digits", appc.KeyDigits)
		}
		changed := old.admit(rec.Admission)
		if rec.Latest && !old.Latest {
			old.Latest, changed = true, true
		}
		old.LastUsed = rec.LastUsed
		if changed {
			return old, s.putRecord(old)
		}
		return old, s.Touch(old.Key)
	}
	if err := tmp.Chmod(fileMode); err != nil {
		return rec, err
	}
	if err := tmp.Sync(); err != nil {
		return rec, err
	}
	failpoint.Hit("store/synced")
	d := digits(rec.Key)[:2]
	for _, sub := range []string{"blob/sha512/" + d, "imageManifest/sha512/" + d} {
		if err := s.mkdir(sub); err != nil {
			return rec, err
		}
	}
	path := s.blobPath(rec.Key)
	if err := os.Rename(tmp.Name(), path); err != nil {
		return rec, err
	}
	failpoint.Hit("store/renamed")
	if err := sys.SyncDir(filepath.Dir(path)); err != nil {
		return rec, err
	}
	if err := atomicfile.WriteFile(s.manifestPath(rec.Key), manifest, fileMode); err != nil {
		return rec, err
	}
	failpoint.Hit("store/manifest")
	if err := s.index(rec.Name, rec.Key); err != nil {
		return rec, err
	}
	failpoint.Hit("store/indexed")
	return rec, s.putRecord(rec)
}

// stored is the size of the image's own file; records of older versions, which
// kept plain tars alone, do not name it.
func (r Record) stored() int64 {
	if r.Stored == 0 {
		return r.Size
	}
	return r.Stored
}

// Complete says whether the files of a recorded image are there.
func (s *Store) Complete(r Record) bool {
	st, err := os.Stat(s.blobPath(r.Key))
	if err != nil || st.Size() != r.stored() {
		return false
	}
	if _, err = os.Stat(s.manifestPath(r.Key)); err != nil {
		return false
	}
	for _, l := range r.Layers {
		if _, err := s.Layer(l.Digest); err != nil {
			return false
		}
	}
	return true
}

// index lists an image under its name.
func (s *Store) index(name, key string) error {
	path := s.namePath(name, key)
	sub := "records/names/" + sourceHash(name)
	if err := s.mkdir(sub); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, fileMode); err != nil {
		return err
	}
	return errors.Join(sys.SyncDir(filepath.Dir(path)), sys.SyncDir(s.path("records", "names")))
}

// unpacked is what unpack found.
type unpacked struct {
	manifest []byte
	id       string
	size     int64 // of the plain tar
	stored   int64 // of the file written
}

// unpack reads an ACI once: it decompresses, hashes, checks the layout, shows
// the entries to v and writes the file to keep, all at the same time. Formats
// that are cheap to read again are kept as they came, others as the plain tar.
func (s *Store) unpack(ctx context.Context, in *countingReader, out *os.File, v Visitor) (u unpacked, err error) {
	keep := &fileWriter{f: out}
	head := bufio.NewReaderSize(in, headSize)
	format, err := peekFormat(head)
	if err != nil {
		return u, err
	}
	asItCame := format == Gzip || format == Zstd
	raw := io.Reader(head)
	if asItCame {
		raw = io.TeeReader(head, keep)
	}
	plain, _, err := Decompress(raw)
	if err != nil {
		return u, err
	}
	h := sha512.New()
	err = through(ctx, plain, s.check(in), func(b []byte) error {
		u.size += int64(len(b))
		h.Write(b)
		if asItCame {
			return nil
		}
		_, err := keep.Write(b)
		return err
	}, func(r io.Reader) (err error) {
		u.manifest, err = readLayout(r, s.o.Limits.Entries, v)
		return err
	})
	if err != nil {
		in.stop()
	}
	if cerr := plain.Close(); err == nil {
		err = cerr
	}
	if err == nil && asItCame {
		// Compressed formats may end before their file does.
		_, err = io.Copy(io.Discard, raw)
	}
	if err == nil {
		err = checkDoubtful(plain, out)
	}
	if err != nil {
		return unpacked{}, err
	}
	u.id, u.stored = appc.HashPrefix+hex.EncodeToString(h.Sum(nil)), keep.n
	return u, nil
}

// check bounds what a stream grows to when it is decompressed.
func (s *Store) check(in *countingReader) func(total int64) error {
	return func(total int64) error {
		if total > s.o.Limits.Plain {
			return fmt.Errorf("larger than %d bytes uncompressed", s.o.Limits.Plain)
		}
		if total > ratioFloor && total/s.o.Limits.Ratio > in.n.Load() {
			return fmt.Errorf("more than %d times larger uncompressed than compressed", s.o.Limits.Ratio)
		}
		return nil
	}
}

// checkDoubtful reads a gzip file again that an outside program took without
// being able to tell whether it is whole.
func checkDoubtful(plain io.Reader, file *os.File) error {
	g, ok := plain.(*gunzipProcess)
	if !ok || !g.doubtful() {
		return nil
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return checkGzip(file)
}

// writebackEvery is how much is written before the kernel is told to begin
// writing it to the disk: the fsync at the end must not find all of it.
const writebackEvery = 8 << 20

// fileWriter counts what it writes.
type fileWriter struct {
	f           *os.File
	n, announce int64
}

func (w *fileWriter) Write(b []byte) (int, error) {
	n, err := w.f.Write(b)
	w.n += int64(n)
	if w.n-w.announce >= writebackEvery {
		sys.StartWriteback(w.f, w.announce, w.n-w.announce)
		w.announce = w.n
	}
	return n, err
}
