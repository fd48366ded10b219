package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// defaultMaxSize bounds a download.
const defaultMaxSize = 16 << 30

// validators prove that a source did not change.
type validators struct {
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
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
	tmp, waited, err := f.lockTemp(ref.URL)
	if err != nil {
		return Image{}, err
	}
	defer tmp.Close()
	if waited {
		if img, ok, err := f.cached(ref, FetchOptions{policy: PullNew}); ok || err != nil {
			return img, err
		}
	}
	return f.download(ctx, ref, o, tmp)
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
	img, err := f.image(r)
	if errors.Is(err, store.ErrNotFound) {
		return Image{}, false, nil
	}
	return img, err == nil, err
}

func (f *Fetcher) stored(source string) (store.Remote, store.Record, error) {
	remote, err := f.Store.Remote(source)
	if err != nil {
		return remote, store.Record{}, err
	}
	r, err := f.Store.Record(remote.Key)
	return remote, r, err
}

// lockTemp opens and locks the partial file of a source.
func (f *Fetcher) lockTemp(source string) (*os.File, bool, error) {
	path := f.Store.TempFor(source)
	tmp, err := lock.TryPath(path, lock.Exclusive)
	if !errors.Is(err, lock.ErrLocked) {
		return tmp, false, err
	}
	f.log().Infof("another process is downloading %q, waiting for it", source)
	tmp, err = lock.Path(path, lock.Exclusive)
	return tmp, true, err
}

// download brings the file, checks its signature and stores it. The partial
// file stays after an error of the network, so that the next try goes on.
func (f *Fetcher) download(ctx context.Context, ref Ref, o FetchOptions, tmp *os.File) (Image, error) {
	client := f.client()
	defer client.CloseIdleConnections()
	sig, sigAt, err := f.earlySignature(ctx, client, ref, o)
	if err != nil {
		return Image{}, err
	}
	remote, err := f.body(ctx, client, ref, tmp)
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
		return f.image(r)
	}
	img, err := f.storeDownload(ctx, client, ref, o, tmp, sig, sigAt)
	if err != nil && ctx.Err() != nil {
		return Image{}, err // the file is whole; keep it
	}
	dropErr := dropTemp(tmp)
	if err != nil {
		return Image{}, errors.Join(err, dropErr)
	}
	remote.Source, remote.SigSource, remote.Key = ref.URL, sigAt, img.Key
	return img, errors.Join(dropErr, f.Store.PutRemote(remote))
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
	if at, err = sigURL(ref.URL); err != nil {
		return nil, "", err
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

// someoneKnown says early that a signature is by no key in the store at all.
func (f *Fetcher) someoneKnown(ref Ref, sig []byte) error {
	c, err := f.begin(ref, bytes.NewReader(sig))
	if err != nil {
		return err
	}
	defer c.abort()
	if err := c.v.KnownAtAll(); err != nil {
		return &SignatureError{Image: ref.Text, Err: err}
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
	r, err := f.Store.Import(ctx, ch.tee(tmp), store.ImportOptions{Source: ref.URL, Admit: f.admit(ref, ch, kind)})
	if err != nil {
		return Image{}, err
	}
	failpoint.Hit("image/imported")
	return f.image(r)
}

// body brings the whole file into tmp, going on where an earlier try ended if
// the server proves that it is the same file. A result with a key means that
// the stored image is up to date.
func (f *Fetcher) body(ctx context.Context, c *http.Client, ref Ref, tmp *os.File) (store.Remote, error) {
	for restarted := false; ; restarted = true {
		remote, again, err := f.tryBody(ctx, c, ref, tmp)
		if !again || restarted {
			return remote, err
		}
		f.log().Infof("starting the download of %q over", ref.URL)
		if err := truncate(tmp); err != nil {
			return store.Remote{}, err
		}
	}
}

func (f *Fetcher) tryBody(ctx context.Context, c *http.Client, ref Ref, tmp *os.File) (remote store.Remote, again bool, err error) {
	header := http.Header{}
	known, r, err := f.stored(ref.URL)
	if err == nil && f.acceptable(r) {
		if _, err := f.Store.ManifestBytes(r.Key); err == nil {
			setIf(header, "If-None-Match", known.ETag)
			setIf(header, "If-Modified-Since", known.LastModified)
		}
	}
	partial, err := tmp.Seek(0, io.SeekEnd)
	if err != nil {
		return remote, false, err
	}
	old := readValidators(tmp)
	if partial > 0 && old.ifRange() == "" {
		partial = 0
	}
	if partial > 0 {
		header = http.Header{}
		header.Set("Range", fmt.Sprintf("bytes=%d-", partial))
		header.Set("If-Range", old.ifRange())
	}
	resp, err := f.get(ctx, c, ref.URL, header)
	if err != nil {
		return remote, false, err
	}
	defer resp.Body.Close()
	remote = store.Remote{
		Source: ref.URL, ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified"),
		MaxAge: maxAge(resp.Header), Downloaded: f.now(),
	}
	total := int64(-1)
	switch resp.StatusCode {
	case http.StatusNotModified:
		if len(header) == 0 || partial > 0 {
			return remote, false, &StatusError{ref.URL, resp.StatusCode}
		}
		remote.Key, remote.SigSource = known.Key, known.SigSource
		if remote.ETag == "" {
			remote.ETag = known.ETag
		}
		if remote.LastModified == "" {
			remote.LastModified = known.LastModified
		}
		return remote, false, nil
	case http.StatusOK:
		partial = 0
		if err := truncate(tmp); err != nil {
			return remote, false, err
		}
		total = resp.ContentLength
	case http.StatusPartialContent:
		start, all, err := contentRange(resp.Header.Get("Content-Range"))
		if err != nil || start != partial || partial == 0 {
			return remote, true, fmt.Errorf("requesting %q: the server sent another range than was asked for", ref.URL)
		}
		total = all
	case http.StatusRequestedRangeNotSatisfiable:
		return remote, partial > 0, &StatusError{ref.URL, resp.StatusCode}
	default:
		return remote, false, &StatusError{ref.URL, resp.StatusCode}
	}
	if err := writeValidators(tmp, validators{remote.ETag, remote.LastModified}); err != nil {
		return remote, false, err
	}
	return remote, false, f.copyBody(resp.Body, tmp, ref.URL, partial, total)
}

func setIf(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

func (f *Fetcher) copyBody(body io.Reader, tmp *os.File, source string, start, total int64) (err error) {
	limit := f.MaxSize
	if limit == 0 {
		limit = defaultMaxSize
	}
	if total > limit {
		return fmt.Errorf("%q is larger than %d bytes", source, limit)
	}
	p := f.progress().Begin(source, total)
	defer func() { p.Done(err) }()
	skip(p, start)
	n, err := io.Copy(io.MultiWriter(tmp, progressWriter{p}), io.LimitReader(body, limit-start+1))
	switch {
	case err != nil:
		return fmt.Errorf("downloading %q: %w", source, err)
	case start+n > limit:
		return fmt.Errorf("%q is larger than %d bytes", source, limit)
	case total >= 0 && start+n != total:
		return fmt.Errorf("downloading %q: got %d bytes of %d", source, start+n, total)
	}
	failpoint.Hit("image/downloaded")
	return nil
}

// contentRange parses "bytes START-END/TOTAL".
func contentRange(s string) (start, total int64, err error) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(rest, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, fmt.Errorf("bad Content-Range %q", s)
	}
	start, err = strconv.ParseInt(from, 10, 64)
	if err != nil {
		return 0, 0, err
	}
	end, err := strconv.ParseInt(to, 10, 64)
	if err != nil {
		return 0, 0, err
	}
	if all == "*" {
		return start, -1, nil
	}
	total, err = strconv.ParseInt(all, 10, 64)
	if err == nil && (start < 0 || end < start || total != end+1) {
		err = fmt.Errorf("bad Content-Range %q", s)
	}
	return start, total, err
}

func readValidators(tmp *os.File) validators {
	var v validators
	data, err := os.ReadFile(tmp.Name() + ".etag")
	if err != nil || json.Unmarshal(data, &v) != nil {
		return validators{}
	}
	return v
}

// writeValidators notes, before the body, what a later try can rely on.
func writeValidators(tmp *os.File, v validators) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.WriteFileNoSync(tmp.Name()+".etag", data, 0o660)
}

func truncate(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.Seek(0, io.SeekStart)
	return err
}
