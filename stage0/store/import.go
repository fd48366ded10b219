package store

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

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
		l.Ratio = 1024
	}
	return l
}

// ratioFloor is the size below which no compression ratio is suspicious.
const ratioFloor = 1 << 30

// Import reads an ACI, compressed or not, to its end and puts it into the
// store. Nothing is visible until every check, o.Admit last, has passed.
// Importing an image again changes no data; it may strengthen the admission.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (rec Record, err error) {
	tmp, err := os.CreateTemp(s.TempDir(), "import-")
	if err != nil {
		return rec, fmt.Errorf("importing image: %w", err)
	}
	defer func() {
		err = errors.Join(err, tmp.Close())
		if rmErr := os.Remove(tmp.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}()
	// Cleaners leave locked files alone.
	if err := lock.TryFile(tmp, lock.Exclusive); err != nil {
		return rec, fmt.Errorf("importing image: %w", err)
	}
	in := &countingReader{ctx: ctx, r: r, progress: o.Progress}
	manifest, id, size, err := s.unpack(ctx, in, tmp)
	if err != nil {
		return rec, fmt.Errorf("reading image: %w", err)
	}
	m, _, err := appc.ParseImageManifest(manifest)
	if err != nil {
		return rec, err
	}
	admission := Admission{Kind: AdmittedUnsigned}
	if o.Admit != nil {
		if admission, err = o.Admit(m, id); err != nil {
			return rec, err
		}
	}
	now := s.o.Now()
	rec = Record{
		Key: appc.Key(id), ID: id, Name: m.Name.String(), Labels: appc.Labels(m),
		ImportTime: now, LastUsed: now, Size: size, Compressed: in.n,
		Latest: o.Latest, Source: o.Source, Admission: admission,
	}
	if rec, err = s.commit(tmp, manifest, rec); err != nil {
		return rec, fmt.Errorf("storing image %q: %w", id, err)
	}
	return rec, nil
}

// countingReader counts what is read and ends when the context does.
type countingReader struct {
	ctx      context.Context // of the one Import call that made it
	r        io.Reader
	n        int64
	progress func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
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
	if old, err := s.readRecord(rec.Key); err == nil && s.complete(old) {
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

// complete says whether the files of a recorded image are there.
func (s *Store) complete(r Record) bool {
	st, err := os.Stat(s.blobPath(r.Key))
	if err != nil || st.Size() != r.Size {
		return false
	}
	_, err = os.Stat(s.manifestPath(r.Key))
	return err == nil
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

// unpack decompresses in to out in one pass over the data, hashes it to its
// very end and checks the layout on the way. Decompressing runs in a goroutine
// of its own, hashing in another: they are the two expensive parts.
func (s *Store) unpack(ctx context.Context, in *countingReader, out *os.File) (manifest []byte, id string, size int64, err error) {
	plain, _, err := Decompress(in)
	if err != nil {
		return nil, "", 0, err
	}
	p := startPipe(ctx, plain, func(total int64) error {
		if total > s.o.Limits.Plain {
			return fmt.Errorf("larger than %d bytes uncompressed", s.o.Limits.Plain)
		}
		if total > ratioFloor && total/s.o.Limits.Ratio > in.n {
			return fmt.Errorf("more than %d times larger uncompressed than compressed", s.o.Limits.Ratio)
		}
		return nil
	})
	h := sha512.New()
	sink := &sink{file: out, hash: h}
	manifest, err = readLayout(io.TeeReader(p, sink), s.o.Limits.Entries)
	if err == nil {
		// What follows the end of the tar belongs to the image, too.
		_, err = io.CopyBuffer(onlyWriter{sink}, p, make([]byte, pipeChunk))
	}
	p.stop()
	if err == nil {
		err = sink.flush()
	}
	if cerr := plain.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, "", 0, err
	}
	return manifest, appc.HashPrefix + hex.EncodeToString(h.Sum(nil)), sink.n, nil
}

// onlyWriter hides every other method, so that CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }
