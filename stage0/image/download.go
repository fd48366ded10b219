package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// defaultMaxSize bounds a download.
const defaultMaxSize = 16 << 30

func (f *Fetcher) maxSize() int64 {
	if f.MaxSize == 0 {
		return defaultMaxSize
	}
	return f.MaxSize
}

// validators prove that a source did not change.
type validators struct {
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
	Size         int64  `json:"size,omitempty"` // of the whole file; 0 if unknown
}

// validatorsOf reads an answer. A date of change proves something only if the
// answer was made later: within one second a file can change twice.
func validatorsOf(h http.Header) validators {
	v := validators{ETag: h.Get("ETag")}
	changed, err := http.ParseTime(h.Get("Last-Modified"))
	date, err2 := http.ParseTime(h.Get("Date"))
	if err == nil && err2 == nil && date.Sub(changed) >= time.Second {
		v.LastModified = h.Get("Last-Modified")
	}
	return v
}

// contradicts says whether an answer is about another file.
func (v validators) contradicts(h http.Header, size int64) bool {
	etag, changed := h.Get("ETag"), h.Get("Last-Modified")
	return v.ETag != "" && etag != "" && etag != v.ETag ||
		v.LastModified != "" && changed != "" && changed != v.LastModified ||
		v.Size > 0 && size >= 0 && size != v.Size
}

// ifRange is the validator a range request may rely on, or "".
func (v validators) ifRange() string {
	if strong(v.ETag) {
		return v.ETag
	}
	return v.LastModified
}

// fetchURL fetches an archive over http or https.
func (f *Fetcher) fetchURL(ctx context.Context, ref Ref, o FetchOptions) (Image, error) {
	if img, ok, err := f.cached(ref, o); ok || err != nil {
		return img, err
	}
	if o.policy == PullNever {
		return Image{}, &NotStoredError{ref.Text, "the pull policy is never"}
	}
	// One process downloads, the others wait and then find the image stored.
	tmp, came, err := f.lockTemp(ref.URL, "downloading")
	if err != nil {
		return Image{}, err
	}
	defer tmp.Close()
	if img, ok, err := f.cached(ref, lookAgain(o, came)); ok || err != nil {
		return img, err
	}
	return f.download(ctx, ref, o, tmp)
}

// lookAgain are the options for another look into the store once a source's
// lock is held: somebody may have been done with it just before. What was
// waited for is new enough for everybody, if it came.
func lookAgain(o FetchOptions, came bool) FetchOptions {
	if came {
		o.policy = PullNew
	}
	return o
}

// downloaded is when what is stored of a source came, the zero time if nothing is.
func (f *Fetcher) downloaded(source string) time.Time {
	remote, err := f.Store.Remote(source)
	if err != nil {
		return time.Time{} // then the download says what is wrong
	}
	return remote.Downloaded
}

// cached finds a URL's image in the store: any under the policies new and
// never, a fresh one under update.
func (f *Fetcher) cached(ref Ref, o FetchOptions) (Image, bool, error) {
	remote, r, err := f.stored(ref.URL)
	if err != nil || !f.acceptable(r) && !o.trusted {
		if errors.Is(err, store.ErrNotFound) || err == nil {
			return Image{}, false, nil
		}
		return Image{}, false, err
	}
	if o.policy == PullUpdate && (remote.MaxAge <= 0 || f.now().Sub(remote.Downloaded) >= time.Duration(remote.MaxAge)*time.Second) {
		return Image{}, false, nil
	}
	img, err := f.reuse(ref, o, r)
	if errors.Is(err, store.ErrNotFound) {
		return Image{}, false, nil
	}
	return img, err == nil, err
}

// reuse takes a stored image for the one a URL leads to. What another name's
// page led to before is checked against this one.
func (f *Fetcher) reuse(ref Ref, o FetchOptions, r store.Record) (Image, error) {
	img, err := f.image(r)
	if err == nil {
		err = errors.Join(checkIdentity(ref, img.Manifest), o.checkPin(img.ID))
	}
	if err != nil {
		return Image{}, err
	}
	return img, nil
}

func (f *Fetcher) stored(source string) (store.Remote, store.Record, error) {
	remote, err := f.Store.Remote(source)
	if err != nil {
		return remote, store.Record{}, err
	}
	r, err := f.Store.Record(remote.Key)
	return remote, r, err
}

// lockTemp opens and locks the partial file of a source, and tells whether the
// source's image came while it waited for another process.
func (f *Fetcher) lockTemp(source, doing string) (tmp *os.File, came bool, err error) {
	path := f.Store.TempFor(source)
	tmp, err = lock.TryPath(path, lock.Exclusive)
	if !errors.Is(err, lock.ErrLocked) {
		return tmp, false, err
	}
	f.log().Infof("another process is %s %q, waiting for it", doing, source)
	before := f.downloaded(source)
	tmp, err = lock.Path(path, lock.Exclusive)
	return tmp, err == nil && !f.downloaded(source).Equal(before), err
}

// download brings the file, checks its signature and stores it. The partial
// file stays after an error of the network, so that the next try goes on.
func (f *Fetcher) download(ctx context.Context, ref Ref, o FetchOptions, tmp *os.File) (Image, error) {
	client := f.client(o.found)
	defer client.CloseIdleConnections()
	sig, sigAt, err := f.earlySignature(ctx, client, ref, o)
	if err != nil {
		return Image{}, err
	}
	remote, err := f.body(ctx, client, ref, o, tmp)
	if err != nil {
		return Image{}, err
	}
	if remote.Key != "" { // not modified
		if err := f.Store.PutRemote(remote); err != nil {
			return Image{}, err
		}
		r, err := f.Store.Record(remote.Key)
		if err != nil {
			return Image{}, err
		}
		if err := dropTemp(tmp); err != nil { // an old part is of no use now
			return Image{}, err
		}
		return f.reuse(ref, o, r)
	}
	img, err := f.storeDownload(ctx, client, ref, o, tmp, sig, sigAt)
	if err != nil && ctx.Err() != nil {
		return Image{}, err // the file is whole; keep it
	}
	if err != nil {
		return Image{}, errors.Join(err, dropTemp(tmp))
	}
	// First the record: once the partial file is gone, nobody waits for it.
	remote.Source, remote.SigSource, remote.Key = ref.URL, sigAt, img.Key
	if err := f.Store.PutRemote(remote); err != nil {
		return Image{}, errors.Join(err, dropTemp(tmp))
	}
	failpoint.Hit("image/recorded")
	return img, dropTemp(tmp)
}

// dropLock ends a lock whose file holds nothing. A file left behind is cleaned
// up like any other.
func dropLock(l *os.File) {
	_ = os.Remove(l.Name())
	l.Close()
}

func dropTemp(tmp *os.File) error {
	for _, p := range []string{tmp.Name() + ".etag", tmp.Name()} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// earlySignature fetches the signature before the image and refuses one by
// nobody we know. A nil result with a place means: ask again later.
func (f *Fetcher) earlySignature(ctx context.Context, c *http.Client, ref Ref, o FetchOptions) (sig []byte, at string, err error) {
	if f.Insecure.Has(InsecureImage) || o.trusted {
		if !o.trusted {
			f.log().Warnf("signature verification of image %q is disabled", ref.Text)
		}
		return nil, "", nil
	}
	if o.Signature != "" {
		file, err := openRegular(o.Signature)
		if err != nil {
			return nil, "", &SignatureError{Image: ref.Text, Err: fmt.Errorf("error opening signature file: %w", err)}
		}
		defer file.Close()
		sig, err = io.ReadAll(io.LimitReader(file, maxSigBody+1))
		if err != nil {
			return nil, "", &SignatureError{Image: ref.Text, Err: err}
		}
		return sig, "", f.someoneKnown(ref, sig)
	}
	if at = o.sigURL; at == "" {
		if at, err = sigURL(ref.URL); err != nil {
			return nil, "", err
		}
	}
	sig, later, err := f.fetchSignature(ctx, c, at)
	if err != nil {
		return nil, at, &SignatureError{Image: ref.Text, Err: fmt.Errorf("downloading signature: %w", err)}
	}
	if later {
		return nil, at, nil
	}
	return sig, at, f.someoneKnown(ref, sig)
}

// someoneKnown says early that a signature is by no key that may sign the
// image, as far as its name is known.
func (f *Fetcher) someoneKnown(ref Ref, sig []byte) error {
	c, err := f.begin(ref, bytes.NewReader(sig))
	if err != nil {
		return err
	}
	defer c.abort()
	if ref.Kind == KindName {
		err = c.v.Known(ref.Name)
	} else {
		err = c.v.KnownAtAll()
	}
	if err != nil {
		return &SignatureError{Image: ref.Text, Name: ref.Name, Err: err}
	}
	return nil
}

// storeDownload verifies and imports a whole download.
func (f *Fetcher) storeDownload(ctx context.Context, c *http.Client, ref Ref, o FetchOptions, tmp *os.File, sig []byte, sigAt string) (Image, error) {
	var ch *check
	kind := store.AdmittedUnsigned
	switch {
	case o.trusted:
		kind = store.AdmittedSystem
	case !f.Insecure.Has(InsecureImage):
		if sig == nil {
			var later bool
			var err error
			if sig, later, err = f.fetchSignature(ctx, c, sigAt); err == nil && later {
				err = fmt.Errorf("the server deferred %q twice", sigAt)
			}
			if err != nil {
				return Image{}, &SignatureError{Image: ref.Text, Err: fmt.Errorf("downloading signature: %w", err)}
			}
		}
		var err error
		if ch, err = f.begin(ref, bytes.NewReader(sig)); err != nil {
			return Image{}, err
		}
		defer ch.abort()
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return Image{}, err
	}
	r, err := f.importACI(ctx, ch.tee(tmp), store.ImportOptions{Source: ref.URL, Latest: o.latest, Admit: o.pinned(f.admit(ref, ch, kind))})
	if err != nil {
		return Image{}, err
	}
	failpoint.Hit("image/imported")
	return f.image(r)
}
