package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// body brings the whole file into tmp, going on where an earlier try ended if
// the server proves that it is the same file. A result with a key means that
// the stored image is up to date.
func (f *Fetcher) body(ctx context.Context, c *http.Client, ref Ref, o FetchOptions, tmp *os.File) (store.Remote, error) {
	restarted := false
	r := retrier{f: f}
	for {
		before := size(tmp)
		remote, again, err := f.tryBody(ctx, c, ref, o, tmp)
		switch {
		case err == nil:
			return remote, nil
		case again && !restarted:
			restarted = true
			f.log().Infof("starting the download of %q over", ref.URL)
			if err := truncate(tmp); err != nil {
				return store.Remote{}, err
			}
		case again:
			return store.Remote{}, err
		default:
			if size(tmp)-before >= progressOf {
				r.tries = 0 // slow, but it gets on
			}
			if err := r.next(ctx, err); err != nil {
				return store.Remote{}, err
			}
		}
	}
}

// progressOf is how many bytes make a broken transfer worth another round of tries.
const progressOf = 1 << 20

func size(file *os.File) int64 {
	st, err := file.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

// tryBody makes one request; again means that what tmp holds is of no use.
func (f *Fetcher) tryBody(ctx context.Context, c *http.Client, ref Ref, o FetchOptions, tmp *os.File) (remote store.Remote, again bool, err error) {
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
	if old.ifRange() == "" || old.Size > 0 && partial > old.Size {
		partial = 0
	}
	complete := partial > 0 && partial == old.Size
	switch {
	case complete: // there is nothing left to ask for, but the file may have changed
		header = http.Header{}
		setIf(header, "If-None-Match", old.ETag)
		setIf(header, "If-Modified-Since", old.LastModified)
	case partial > 0:
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
		Source: ref.URL, ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified"), Downloaded: f.now(),
	}
	remote.MaxAge, _ = maxAge(resp.Header)
	total := int64(-1)
	switch resp.StatusCode {
	case http.StatusNotModified:
		if complete {
			remote.ETag, remote.LastModified = old.ETag, old.LastModified
			return remote, false, nil
		}
		if len(header) == 0 || partial > 0 {
			return remote, false, statusError(ref.URL, resp)
		}
		return refreshed(known, remote, resp.Header), false, nil
	case http.StatusOK:
		partial = 0
		if err := truncate(tmp); err != nil {
			return remote, false, err
		}
		total = resp.ContentLength
	case http.StatusPartialContent:
		start, all, err := contentRange(resp.Header.Get("Content-Range"))
		if err != nil || start != partial || partial == 0 || complete || old.contradicts(resp.Header, all) {
			return remote, true, fmt.Errorf("requesting %q: the server sent another range than was asked for", ref.URL)
		}
		total = all
	case http.StatusRequestedRangeNotSatisfiable:
		return remote, partial > 0, statusError(ref.URL, resp)
	default:
		return remote, false, statusError(ref.URL, resp)
	}
	v := validatorsOf(resp.Header)
	v.Size = max(total, 0)
	if err := writeValidators(tmp, v); err != nil {
		return remote, false, err
	}
	failpoint.Hit("image/validators")
	return remote, false, f.copyBody(resp.Body, tmp, ref.URL, partial, total, o.maxSize)
}

// refreshed is the record of a stored image that is up to date: what the
// answer says anew, else what was known.
func refreshed(known, answer store.Remote, h http.Header) store.Remote {
	answer.Key, answer.SigSource = known.Key, known.SigSource
	if answer.ETag == "" {
		answer.ETag = known.ETag
	}
	if answer.LastModified == "" {
		answer.LastModified = known.LastModified
	}
	if _, said := maxAge(h); !said {
		answer.MaxAge = known.MaxAge
	}
	return answer
}

func setIf(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// copyBody appends a body to tmp. Max, if not 0, lowers the limit.
func (f *Fetcher) copyBody(body io.Reader, tmp *os.File, source string, start, total, most int64) (err error) {
	limit := f.maxSize()
	if most > 0 {
		limit = min(limit, most)
	}
	if total > limit || start > limit {
		return fmt.Errorf("%q is larger than %d bytes", source, limit)
	}
	p := f.progress().Begin(source, total)
	defer func() { p.Done(err) }()
	skip(p, start)
	n, err := io.Copy(io.MultiWriter(tmp, progressWriter{p}), io.LimitReader(bodyReader{body}, limit-start+1))
	switch {
	case err != nil:
		return fmt.Errorf("downloading %q: %w", source, err)
	case start+n > limit:
		return fmt.Errorf("%q is larger than %d bytes", source, limit)
	case total >= 0 && start+n != total:
		return fmt.Errorf("downloading %q: %w", source, &transferError{fmt.Errorf("got %d bytes of %d", start+n, total)})
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
	end, err2 := strconv.ParseInt(to, 10, 64)
	if err := errors.Join(err, err2); err != nil {
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
