package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/stage0/keystore"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// check is the signature check of one image under way; nil when verification
// is off or waived.
type check struct {
	ref Ref
	v   *keystore.Verification
}

// begin starts verifying against a signature.
func (f *Fetcher) begin(ref Ref, sig io.Reader) (*check, error) {
	if f.Keys == nil {
		return nil, &SignatureError{Image: ref.Text, Err: errors.New("there is no key store")}
	}
	v, err := f.Keys.Begin(sig)
	if err != nil {
		return nil, &SignatureError{Image: ref.Text, Err: err}
	}
	return &check{ref, v}, nil
}

func (c *check) tee(r io.Reader) io.Reader {
	if c == nil {
		return r
	}
	return io.TeeReader(r, c.v)
}

func (c *check) abort() {
	if c != nil {
		c.v.Abort()
	}
}

// admit is the last word on an image that was read to its end.
func (f *Fetcher) admit(ref Ref, c *check, kind string) func(*schema.ImageManifest, string) (store.Admission, error) {
	return func(m *schema.ImageManifest, _ string) (store.Admission, error) {
		if err := checkIdentity(ref, m); err != nil {
			return store.Admission{}, err
		}
		failpoint.Hit("image/admitting")
		if c == nil {
			return store.Admission{Kind: kind}, nil
		}
		signer, err := c.v.Finish(m.Name.String())
		if err != nil {
			return store.Admission{}, &SignatureError{Image: ref.Text, Name: m.Name.String(), Err: err}
		}
		log := f.log().WithField("image", m.Name)
		for _, id := range signer.Identities {
			log.Infof("signature verified: %s", id)
		}
		return store.Admission{Kind: store.AdmittedSigned, Fingerprint: signer.Fingerprint, Identities: signer.Identities}, nil
	}
}

// fetchPath imports a local archive whatever the policy says. A file that is
// the very one imported before, by its inode and times, is not read again
// under the policy new: a pod may start from a path many times a day.
func (f *Fetcher) fetchPath(ctx context.Context, ref Ref, o FetchOptions) (Image, error) {
	reuse := o.policy == PullNew && o.Signature == ""
	if reuse {
		if img, ok := f.unchanged(ref.Path); ok {
			return img, nil
		}
	}
	// One process reads the file, the others wait and then find the image stored.
	l, _, err := f.lockTemp("file:"+ref.Path, "importing")
	if err != nil {
		return Image{}, err
	}
	defer dropLock(l)
	if reuse {
		if img, ok := f.unchanged(ref.Path); ok {
			return img, nil
		}
	}
	// The identity is taken before reading: a change in between is noticed.
	id, idErr := fileID(ref.Path)
	img, err := f.fetchFile(ctx, ref, o)
	if err != nil || idErr != nil {
		return img, err
	}
	return img, f.Store.PutRemote(store.Remote{Source: "file:" + ref.Path, Key: img.Key, Downloaded: f.now(), File: &id})
}

// fetchFile imports a local archive.
func (f *Fetcher) fetchFile(ctx context.Context, ref Ref, o FetchOptions) (Image, error) {
	file, err := openRegular(ref.Path)
	if err != nil {
		return Image{}, err
	}
	defer file.Close()
	c, kind, err := f.localCheck(ref, o)
	if err != nil {
		return Image{}, err
	}
	defer c.abort()
	return f.importFrom(ctx, ref, file, c, kind, "file:"+ref.Path)
}

// localCheck prepares the check of a file whose signature is a file.
func (f *Fetcher) localCheck(ref Ref, o FetchOptions) (*check, string, error) {
	switch {
	case o.trusted:
		return nil, store.AdmittedSystem, nil
	case f.Insecure.Has(InsecureImage):
		f.log().Warnf("signature verification of image %q is disabled", ref.Text)
		return nil, store.AdmittedUnsigned, nil
	}
	path := o.Signature
	if path == "" {
		path = sigPath(ref.Path)
	}
	c, err := f.checkWithFile(ref, path)
	return c, "", err
}

func (f *Fetcher) checkWithFile(ref Ref, path string) (*check, error) {
	sig, err := openRegular(path)
	if err != nil {
		return nil, &SignatureError{Image: ref.Text, Err: fmt.Errorf("error opening signature file: %w", err)}
	}
	defer sig.Close()
	return f.begin(ref, sig)
}

// importFrom stores what can be read from file's beginning.
func (f *Fetcher) importFrom(ctx context.Context, ref Ref, file *os.File, c *check, kind, source string) (Image, error) {
	st, err := file.Stat()
	if err != nil {
		return Image{}, err
	}
	p := f.progress().Begin(ref.Text, st.Size())
	r, err := f.importACI(ctx, c.tee(file), store.ImportOptions{
		Source: source, Latest: false, Admit: f.admit(ref, c, kind), Progress: p.Add,
	})
	p.Done(err)
	if err != nil {
		return Image{}, err
	}
	return f.image(r)
}

// openRegular opens a regular file: a FIFO must not hold rkt up.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sigURL is where the signature of an image's URL is: .aci.asc on the path.
func sigURL(image string) (string, error) {
	u, err := parseURL(image)
	if err != nil {
		return "", err
	}
	u.Path = sigPath(strings.TrimSuffix(u.Path, "/"))
	u.RawPath = ""
	return u.String(), nil
}
