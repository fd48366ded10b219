package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/stage0/oci"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// parallelLayers is how many layers are brought at a time.
const parallelLayers = 3

func decompressor(r io.Reader) (io.ReadCloser, error) {
	plain, _, err := store.Decompress(r)
	return plain, err
}

func fixedAdmission(a store.Admission) func(*schema.ImageManifest, string) (store.Admission, error) {
	return func(*schema.ImageManifest, string) (store.Admission, error) { return a, nil }
}

// storeOCI brings the layers that the store lacks, unpacking each while it
// comes, and stores the image.
func (f *Fetcher) storeOCI(ctx context.Context, src oci.Source, img *oci.Image, layered *appc.Layered, manifest []byte, o store.ImportOptions) (rec store.Record, err error) {
	digests := []string{img.ManifestDigest, img.ConfigDigest}
	for _, l := range img.Layers {
		digests = append(digests, l.Digest)
	}
	release, err := f.Store.HoldLayers(digests)
	if err != nil {
		return rec, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if f.Trees != nil {
		hold, err := f.Trees.Hold()
		if err != nil {
			return rec, err
		}
		defer hold.Close()
	}
	if err := f.layers(ctx, src, img, layered); err != nil {
		return rec, err
	}
	if err := errors.Join(f.Store.PutDocument(img.ManifestDigest, img.Manifest), f.Store.PutDocument(img.ConfigDigest, img.Config)); err != nil {
		return rec, err
	}
	return f.Store.ImportLayered(ctx, manifest, layered, o)
}

// layers brings several layers at a time and unpacks them one after the other,
// lowest first: what a layer means depends on those below it.
func (f *Fetcher) layers(ctx context.Context, src oci.Source, img *oci.Image, layered *appc.Layered) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	jobs := make([]*layerJob, len(img.Layers))
	byDigest := map[string]*layerJob{}
	for i, l := range img.Layers {
		if byDigest[l.Digest] == nil {
			byDigest[l.Digest] = newLayerJob(f, src, l)
		}
		jobs[i] = byDigest[l.Digest]
	}
	var wg sync.WaitGroup
	defer func() { // whoever downloads ends with the context
		cancel()
		wg.Wait()
		for _, j := range byDigest {
			j.close()
		}
	}()
	// All partial files are locked before anything is brought, in an order that
	// is the same for all images: no two processes wait for each other.
	for _, d := range slices.Sorted(maps.Keys(byDigest)) {
		if err := byDigest[d].acquire(ctx); err != nil {
			return err
		}
	}
	wg.Go(func() {
		limit := make(chan struct{}, parallelLayers)
		for _, j := range jobs {
			select {
			case limit <- struct{}{}:
			case <-ctx.Done():
				j.start(ctx) // tells those who wait
				continue
			}
			wg.Go(func() {
				j.start(ctx)
				<-limit
			})
		}
	})
	for i, j := range jobs {
		if err := f.layer(ctx, layered, i, j); err != nil {
			return err
		}
	}
	return nil
}

// layer brings one layer into the store and unpacks it.
func (f *Fetcher) layer(ctx context.Context, layered *appc.Layered, i int, j *layerJob) error {
	for again := true; ; again = false {
		err := f.tryLayer(ctx, layered, i, j)
		var content *store.ContentError
		if err == nil || !errors.As(err, &content) {
			return err
		}
		// What was there of an earlier try may have been damaged.
		if !j.resumed() || !again {
			return errors.Join(err, j.drop())
		}
		f.log().Infof("the partial download of layer %q is damaged, starting over", j.layer.Digest)
		if err := j.restart(ctx); err != nil {
			return err
		}
	}
}

func (f *Fetcher) tryLayer(ctx context.Context, layered *appc.Layered, i int, j *layerJob) (err error) {
	var st *tree.LayerStage
	if f.Trees != nil {
		if st, err = f.Trees.StageLayer(layered, i); err != nil {
			return err
		}
	}
	want := store.Layer{Digest: j.layer.Digest, DiffID: j.layer.DiffID, Size: j.layer.Size}
	if st == nil {
		if j.isStored() {
			return nil
		}
		_, err := f.Store.ImportLayer(ctx, j.tmp, j.reader(), want, nil)
		return j.imported(err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if j.isStored() {
		return st.Replay(ctx, want)
	}
	_, err = f.Store.ImportLayer(ctx, j.tmp, j.reader(), want, st.Entry)
	if err := j.imported(err); err != nil {
		return err
	}
	failpoint.Hit("image/layer")
	err = st.Commit()
	if tree.Late(err) {
		return st.Replay(ctx, want)
	}
	return err
}

// layerJob is a layer on its way into its partial file. Readers follow.
type layerJob struct {
	f     *Fetcher
	src   oci.Source
	layer oci.Layer

	mu     sync.Mutex
	more   *sync.Cond
	begun  bool
	stored bool
	tmp    *os.File // open and locked, unless stored
	had    int64    // bytes there before
	n      int64    // bytes there now
	done   bool
	err    error
}

func newLayerJob(f *Fetcher, src oci.Source, l oci.Layer) *layerJob {
	j := &layerJob{f: f, src: src, layer: l}
	j.more = sync.NewCond(&j.mu)
	return j
}

// set changes the job and tells those who wait.
func (j *layerJob) set(change func()) {
	j.mu.Lock()
	change()
	j.mu.Unlock()
	j.more.Broadcast()
}

// start brings the layer, unless it is there or was started before.
func (j *layerJob) start(ctx context.Context) {
	j.mu.Lock()
	if j.begun || j.done {
		j.mu.Unlock()
		return
	}
	j.begun = true
	j.mu.Unlock()
	var err error
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case !j.isStored():
		err = j.download(ctx)
	}
	j.set(func() { j.done, j.err = true, err })
}

// acquire finds the layer stored, or locks its partial file.
func (j *layerJob) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if _, err := j.f.Store.Layer(j.layer.Digest); err == nil {
		j.set(func() { j.stored = true })
		return nil
	}
	path := j.f.Store.LayerTemp(j.layer.Digest)
	tmp, err := lock.TryPath(path, lock.Exclusive)
	if errors.Is(err, lock.ErrLocked) {
		j.f.log().Infof("another process is fetching layer %q, waiting for it", j.layer.Digest)
		tmp, err = lock.Path(path, lock.Exclusive)
	}
	if err != nil {
		return err
	}
	if _, err := j.f.Store.Layer(j.layer.Digest); err == nil { // meanwhile
		j.set(func() { j.stored = true })
		return errors.Join(os.Remove(path), tmp.Close())
	}
	had, err := tmp.Seek(0, io.SeekEnd)
	if err == nil && had > j.layer.Size {
		had = 0
		err = truncate(tmp)
	}
	j.set(func() { j.tmp, j.had, j.n = tmp, had, had })
	return err
}

// download appends what is missing.
func (j *layerJob) download(ctx context.Context) (err error) {
	if limit := j.f.maxSize(); j.layer.Size > limit {
		return fmt.Errorf("layer %q has %d bytes, more than %d", j.layer.Digest, j.layer.Size, limit)
	}
	if j.n == j.layer.Size {
		return nil
	}
	what := "layer " + strings.TrimPrefix(j.layer.Digest, "sha256:")[:12]
	t := j.f.progress().Begin(what, j.layer.Size)
	defer func() { t.Done(err) }()
	skip(t, j.n)
	body, err := j.src.Blob(ctx, j.layer.Descriptor, j.n)
	if err != nil {
		return err
	}
	defer body.Close()
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := body.Read(buf)
		if j.n+int64(n) > j.layer.Size {
			return &store.ContentError{Err: fmt.Errorf("layer %q is longer than the %d bytes its manifest promises", j.layer.Digest, j.layer.Size)}
		}
		if n > 0 {
			if _, werr := j.tmp.Write(buf[:n]); werr != nil {
				return werr
			}
			t.Add(int64(n))
			j.set(func() { j.n += int64(n) })
		}
		if errors.Is(err, io.EOF) {
			failpoint.Hit("image/layer-downloaded")
			return nil // its length is checked with its digest
		}
		if err != nil {
			return fmt.Errorf("downloading layer %q: %w", j.layer.Digest, err)
		}
	}
}

func (j *layerJob) isStored() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stored
}

func (j *layerJob) resumed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.had > 0
}

// imported notes that the layer is in the store, for later layers of the same
// digest and for those who wait for its partial file.
func (j *layerJob) imported(err error) error {
	if err != nil {
		return err
	}
	tmp := j.tmp
	j.set(func() { j.stored, j.tmp = true, nil })
	return tmp.Close()
}

// reader reads the partial file as it grows.
func (j *layerJob) reader() io.Reader { return &layerReader{j: j} }

type layerReader struct {
	j   *layerJob
	off int64
}

func (r *layerReader) Read(p []byte) (int, error) {
	j := r.j
	j.mu.Lock()
	for r.off >= j.n && !j.done {
		j.more.Wait()
	}
	n, err := j.n, j.err
	j.mu.Unlock()
	if r.off >= n {
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	m, err := j.tmp.ReadAt(p[:min(int64(len(p)), n-r.off)], r.off)
	r.off += int64(m)
	if m > 0 {
		err = nil
	}
	return m, err
}

// restart brings the layer anew from its first byte.
func (j *layerJob) restart(ctx context.Context) error {
	j.mu.Lock()
	for !j.done {
		j.more.Wait()
	}
	j.mu.Unlock()
	if err := truncate(j.tmp); err != nil {
		return err
	}
	j.set(func() { j.had, j.n, j.done, j.err = 0, 0, false, nil })
	go func() {
		err := j.download(ctx)
		j.set(func() { j.done, j.err = true, err })
	}()
	return nil
}

// drop removes a partial file that is worth nothing. There is none where the
// layer was stored before, by another image that told the truth about it.
func (j *layerJob) drop() error {
	if j.tmp == nil {
		return nil
	}
	return os.Remove(j.tmp.Name())
}

func (j *layerJob) close() {
	j.mu.Lock()
	for j.begun && !j.done {
		j.more.Wait()
	}
	j.mu.Unlock()
	if j.tmp != nil {
		j.tmp.Close()
	}
}

// importACI imports an ACI and, where trees are wanted, unpacks it while it is
// read.
func (f *Fetcher) importACI(ctx context.Context, r io.Reader, o store.ImportOptions) (rec store.Record, err error) {
	if f.Trees == nil {
		return f.Store.Import(ctx, r, o)
	}
	hold, err := f.Trees.Hold()
	if err != nil {
		return rec, err
	}
	defer hold.Close()
	st, err := f.Trees.Stage()
	if err != nil {
		return rec, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	o.Visit = st
	if rec, err = f.Store.Import(ctx, r, o); err != nil {
		return rec, err
	}
	return rec, st.Adopt(ctx, rec.Key)
}
