package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/stage0/discovery"
	"github.com/rkt-systemd/rkt/stage0/keystore"
)

const (
	keyTimeout = 2 * time.Minute
	maxKey     = 1 << 20
	maxKeyURLs = 20
)

// KeyQuestion is whether to trust the keys of a file that discovery found.
type KeyQuestion struct {
	Prefix string // the names the keys may sign
	URL    string
	Keys   []keystore.Key
}

// KeyTrustError means that keys were found for an image and nobody could be
// asked whether to trust them.
type KeyTrustError struct {
	Name, URL    string
	Fingerprints []string
	Err          error // why nobody was asked, if known
}

func (e *KeyTrustError) Error() string {
	cause := "nobody can be asked without a terminal"
	if e.Err != nil {
		cause = e.Err.Error()
	}
	return fmt.Sprintf("the keys at %q (%s) sign images of %q, but are not trusted: %s; use --trust-keys-from-https, or review them with %s",
		e.URL, strings.Join(e.Fingerprints, ", "), e.Name, cause, e.Hint())
}

// Unwrap gives the cause.
func (e *KeyTrustError) Unwrap() error { return e.Err }

// Hint is what the user can do about it.
func (e *KeyTrustError) Hint() string { return "rkt trust --prefix=" + e.Name }

// trustOnFirstUse looks for keys of a name that no key is trusted for yet, and
// trusts those that the user accepts. What keeps it from that is no failure of
// the fetch: a root key may have signed the image. Untrusted says what to do if
// none has.
func (f *Fetcher) trustOnFirstUse(ctx context.Context, name, found string) (untrusted, err error) {
	if f.Keys == nil {
		return nil, nil
	}
	known, err := f.Keys.HasPrefixKey(name)
	if known || err != nil {
		return nil, err
	}
	plain := f.Insecure.Has(InsecureHTTP | InsecurePubkey)
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	urls, err := f.discoverKeys(ctx, name, found, plain)
	if err != nil {
		f.log().WithError(err).Infof("no keys for %q were discovered", name)
		return nil, nil //nolint:nilerr // reported; a root key may do
	}
	for _, u := range urls {
		err := f.offerKey(ctx, name, found, u, plain)
		var ask *KeyTrustError
		switch {
		case errors.As(err, &ask):
			untrusted = errors.Join(untrusted, err)
		case err != nil:
			f.log().WithError(err).Warnf("key %q is not used", u)
		}
	}
	return untrusted, nil
}

func (f *Fetcher) offerKey(ctx context.Context, name, found, target string, plain bool) error {
	data, err := f.DownloadKey(ctx, found, target, plain)
	if err != nil {
		return err
	}
	keys, err := keystore.ReadKeys(data)
	if err != nil {
		return err
	}
	yes := f.TrustKeysFromHTTPS && strings.HasPrefix(target, "https://") && !f.Insecure.Has(InsecureTLS)
	if !yes {
		e := &KeyTrustError{Name: name, URL: target}
		for _, k := range keys {
			e.Fingerprints = append(e.Fingerprints, keystore.FormatFingerprint(k.Fingerprint))
		}
		if f.Ask == nil {
			return e
		}
		if yes, e.Err = f.Ask(ctx, KeyQuestion{name, target, keys}); e.Err != nil {
			return e
		}
	}
	if !yes {
		f.log().Infof("key %q is not trusted", target)
		return nil
	}
	added, err := f.Keys.Add(name, data)
	for _, k := range added {
		f.log().Infof("Added key for prefix %q at %q", name, k.Path)
	}
	return err
}

// DiscoverKeys finds the URLs of the keys that sign images of a name; plain
// allows http.
func (f *Fetcher) DiscoverKeys(ctx context.Context, name string, plain bool) ([]string, error) {
	return f.discoverKeys(ctx, name, name, plain)
}

func (f *Fetcher) discoverKeys(ctx context.Context, name, found string, plain bool) ([]string, error) {
	if f.Insecure.Has(InsecureTLS) && !f.Insecure.Has(InsecurePubkey) {
		return nil, errors.New("keys are not discovered over unverified connections: --insecure-options=tls needs pubkey, too")
	}
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	client := f.client(found)
	defer client.CloseIdleConnections()
	urls, err := discovery.DiscoverKeys(ctx, f.discoveryOptions(client, plain, plain), name)
	return urls[:min(len(urls), maxKeyURLs)], err
}

// DownloadKey downloads a key file. Found is the name whose page led to it, ""
// if the user named it; plain allows http.
func (f *Fetcher) DownloadKey(ctx context.Context, found, target string, plain bool) ([]byte, error) {
	if _, err := parseURL(target); err != nil {
		return nil, err
	}
	if strings.HasPrefix(strings.ToLower(target), "http:") && !plain {
		return nil, errors.New("keys over plain http can be replaced on the way")
	}
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	client := f.clientWith(found, f.Insecure.Has(InsecureTLS|InsecurePubkey))
	defer client.CloseIdleConnections()
	resp, err := f.ask(ctx, client, target)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.Request.URL.Scheme != "https" && !plain {
		return nil, fmt.Errorf("redirected to plain http, to %q", resp.Request.URL.Redacted())
	}
	data, err := readBody(resp.Body, maxKey)
	if err != nil {
		return nil, fmt.Errorf("downloading %q: %w", target, err)
	}
	return data, nil
}
