// Package discovery finds where the images of a name, and the keys that sign
// them, are to be downloaded: it asks the host that the name begins with for
// pages with meta tags (appc meta discovery).
//
// A page is hostile input: its size, the number of tags used and the time are
// bounded, a tag speaks only for names that its prefix covers by whole
// components, and what it points to is an http or https URL that leads to no
// loopback or link-local host, unless the name itself begins with such a host.
// Nothing found here is trusted: signatures decide.
//
// Exported:
//
//	Discover(ctx, o Options, name, labels) ([]Endpoint, error)   best first
//	DiscoverKeys(ctx, o Options, name) ([]string, error)
//	Options{Get, AllowHTTP, AllowHTTPResults, Warn, Timeout}; Endpoint{Image, Signature}
//	*NotFoundError; LocalHost(host) bool; Host(name) string; LocalAddr(ip) bool
//
// stage0/image may import it.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/appc"
)

const (
	maxPage        = 1 << 20
	maxTags        = 20
	maxLevels      = 32
	maxURL         = 8 << 10
	defaultTimeout = time.Minute
)

// Endpoint is a place to download an image from, with its signature.
type Endpoint struct {
	Image, Signature string
}

// Options say how pages are asked for. Get is required: it makes a GET request
// with the operator's credentials and follows redirects.
type Options struct {
	Get func(ctx context.Context, url string) (*http.Response, error)
	// AllowHTTP lets a page be asked for over http when https failed.
	AllowHTTP bool
	// AllowHTTPResults lets pages point to http URLs.
	AllowHTTPResults bool
	// Warn is told of what goes wrong on the way; ignored if nil.
	Warn func(text string)
	// Timeout bounds the whole discovery; one minute if 0.
	Timeout time.Duration
}

// NotFoundError means that no page had a usable tag.
type NotFoundError struct {
	Name     string
	What     string // "image" or "keys"
	Attempts []error
}

func (e *NotFoundError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "discovering the %s of %q: found nothing usable", e.What, e.Name)
	for _, a := range e.Attempts {
		fmt.Fprintf(&b, "; %v", a)
	}
	return b.String()
}

// Unwrap gives the causes.
func (e *NotFoundError) Unwrap() []error { return e.Attempts }

// statusError is a page that is not there.
type statusError struct{ code int }

func (e *statusError) Error() string { return fmt.Sprintf("bad HTTP status code: %d", e.code) }

// Host is the host that a name begins with.
func Host(name string) string {
	host, _, _ := strings.Cut(name, "/")
	return host
}

// Discover finds the endpoints of an image. Labels are those asked for; os,
// arch and version get the usual defaults.
func Discover(ctx context.Context, o Options, name string, labels map[string]string) ([]Endpoint, error) {
	vars, err := variables(name, labels)
	if err != nil {
		return nil, err
	}
	var found []Endpoint
	err = o.walk(ctx, name, "image", "ac-discovery", func(t tag) error {
		e, err := endpoint(t.value, vars)
		if err == nil {
			err = errors.Join(o.checkResult(name, e.Image), o.checkResult(name, e.Signature))
		}
		if err != nil {
			return fmt.Errorf("template %q: %w", t.value, err)
		}
		found = append(found, e)
		return nil
	})
	return found, err
}

// DiscoverKeys finds the URLs of the keys that sign images of a name.
func DiscoverKeys(ctx context.Context, o Options, name string) ([]string, error) {
	var found []string
	err := o.walk(ctx, name, "keys", "ac-discovery-pubkeys", func(t tag) error {
		if err := o.checkResult(name, t.value); err != nil {
			return fmt.Errorf("key %q: %w", t.value, err)
		}
		found = append(found, t.value)
		return nil
	})
	return found, err
}

func variables(name string, labels map[string]string) (map[string]string, error) {
	os, arch := appc.HostOSArch()
	vars := map[string]string{"version": "latest", "os": os, "arch": arch}
	maps.Copy(vars, labels)
	for k, v := range vars {
		if strings.ContainsAny(v, "{}") || v == "." || v == ".." {
			return nil, fmt.Errorf("discovering the image of %q: label %q has the value %q, which cannot stand in a URL", name, k, v)
		}
	}
	vars["name"] = name
	return vars, nil
}

// walk asks for pages from the full name up to the bare host, until use
// accepted a tag of a page.
func (o Options) walk(ctx context.Context, name, what, meta string, use func(tag) error) error {
	if err := appc.CheckName(name); err != nil {
		return fmt.Errorf("discovering the %s: %w", what, err)
	}
	if strings.Count(name, "/") >= maxLevels {
		return fmt.Errorf("discovering the %s of %q: the name has more than %d parts", what, name, maxLevels)
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("discovery took longer than %s", timeout))
	defer cancel()
	none := &NotFoundError{Name: name, What: what}
	for level := name; ; {
		tags, err := o.page(ctx, level)
		if ctx.Err() != nil {
			return fmt.Errorf("discovering the %s of %q: %w", what, name, context.Cause(ctx))
		}
		if err != nil {
			none.Attempts = append(none.Attempts, err)
		} else {
			ok, err := useTags(tags, name, level, meta, use)
			if ok {
				o.report(none.Attempts)
				return nil
			}
			none.Attempts = append(none.Attempts, err)
		}
		i := strings.LastIndexByte(level, '/')
		if i < 0 {
			return none
		}
		level = level[:i]
	}
}

// useTags offers the tags that speak for a name; false and the reason when
// none was accepted.
func useTags(tags []tag, name, level, meta string, use func(tag) error) (bool, error) {
	var ok bool
	var errs []error
	n := 0
	for _, t := range tags {
		if t.name != meta || !covers(t.prefix, name) {
			continue
		}
		if n++; n > maxTags {
			break
		}
		if err := use(t); err != nil {
			errs = append(errs, err)
		} else {
			ok = true
		}
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("page %q has no meta tag %q for the name", level, meta))
	}
	return ok, errors.Join(errs...)
}

// report tells of errors that may have hidden something, now that a parent's
// page was used: absent pages do not.
func (o Options) report(errs []error) {
	for _, err := range errs {
		var status *statusError
		var page *pageError
		if o.Warn != nil && errors.As(err, &page) && !(errors.As(err, &status) && status.code/100 == 4) {
			o.Warn("discovery went on with a parent of the name: " + err.Error())
		}
	}
}

// pageError is a page that cannot be had.
type pageError struct {
	url string
	err error
}

func (e *pageError) Error() string {
	cause := e.err
	var u *url.Error // repeats the URL
	if errors.As(cause, &u) {
		cause = u.Err
	}
	return fmt.Sprintf("page %q: %v", e.url, cause)
}

func (e *pageError) Unwrap() error { return e.err }

// covers says whether a tag's prefix speaks for a name, by whole components.
func covers(prefix, name string) bool {
	return prefix != "" && (name == prefix || strings.HasPrefix(name, strings.TrimSuffix(prefix, "/")+"/"))
}

// page fetches the tags of one level, over http only when https failed.
func (o Options) page(ctx context.Context, level string) ([]tag, error) {
	tags, err := o.get(ctx, "https://"+level+"?ac-discovery=1")
	if err == nil || !o.AllowHTTP || ctx.Err() != nil {
		return tags, err
	}
	tags, httpErr := o.get(ctx, "http://"+level+"?ac-discovery=1")
	if httpErr != nil {
		return nil, errors.Join(err, httpErr)
	}
	return tags, nil
}

func (o Options) get(ctx context.Context, page string) ([]tag, error) {
	resp, err := o.Get(ctx, page)
	if err != nil {
		return nil, &pageError{page, err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &pageError{page, &statusError{resp.StatusCode}}
	}
	tags, err := parsePage(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, &pageError{page, err}
	}
	return tags, nil
}

// checkResult refuses URLs that a page has no business to point to.
func (o Options) checkResult(name, result string) error {
	u, err := url.Parse(result)
	switch {
	case err != nil:
		return err
	case len(result) > maxURL:
		return fmt.Errorf("the URL is longer than %d bytes", maxURL)
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("unsupported URL scheme %q", u.Scheme)
	case u.Scheme == "http" && !o.AllowHTTPResults:
		return errors.New("plain http is not allowed here")
	case u.Hostname() == "":
		return errors.New("the URL names no host")
	case u.User != nil:
		return errors.New("the URL holds credentials")
	case LocalHost(u.Hostname()) && !LocalHost(Host(name)):
		return fmt.Errorf("the page of another host points to the local host %q", u.Hostname())
	}
	return nil
}
