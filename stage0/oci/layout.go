package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// The names inside a layout.
const (
	layoutFile  = "oci-layout"
	layoutIndex = "index.json"
	blobDir     = "blobs/sha256/"

	maxLayoutFile = 4096
)

// The annotations by which an index of a layout calls its images.
const (
	annotationRefName    = "org.opencontainers.image.ref.name"
	annotationContainerd = "io.containerd.image.name"
)

// section is an open file or a part of one.
type section struct {
	*io.SectionReader
	closer io.Closer // nil when the file belongs to somebody else
}

func (s section) Close() error {
	if s.closer == nil {
		return nil
	}
	return s.closer.Close()
}

// place is where the files of a layout are.
type place interface {
	// open opens a file from offset on; the section's size is what is left.
	open(name string, offset int64) (section, error)
	Close() error
}

// Layout is a layout directory or an archive of one: a Source.
type Layout struct {
	place
	ref LayoutRef
}

var _ Source = (*Layout)(nil)

// OpenLayout opens a layout directory.
func OpenLayout(ref LayoutRef) (*Layout, error) {
	root, err := os.OpenRoot(ref.Path)
	if err != nil {
		return nil, fmt.Errorf("opening image layout: %w", err)
	}
	l := &Layout{place: dirPlace{root}, ref: ref}
	if err := l.checkVersion(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening image layout %q: %w", ref.Path, err), l.Close())
	}
	return l, nil
}

type dirPlace struct{ root *os.Root }

func (p dirPlace) Close() error { return p.root.Close() }

// open opens a regular file; links are followed as long as they stay inside,
// and nothing that is not a file is waited for.
func (p dirPlace) open(name string, offset int64) (section, error) {
	f, err := p.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return section{}, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", name)
	}
	if err != nil {
		return section{}, errors.Join(err, f.Close())
	}
	return section{io.NewSectionReader(f, offset, max(0, st.Size()-offset)), f}, nil
}

func (l *Layout) checkVersion() error {
	data, err := readSmall(l.place, layoutFile, maxLayoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("it holds no file %q, so it is not an OCI image layout", layoutFile)
	}
	if err != nil {
		return err
	}
	v, err := decode(data, maxLayoutFile)
	r := &reader{err: err}
	version := r.text(layoutFile, r.object(layoutFile, v, "imageLayoutVersion"), "imageLayoutVersion", maxWord)
	if r.err == nil && !strings.HasPrefix(version, "1.") {
		return fmt.Errorf("layout version %q is not supported, only 1.x", version)
	}
	return r.err
}

// readSmall reads a file of at most limit bytes.
func readSmall(p place, name string, limit int64) ([]byte, error) {
	f, err := p.open(name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > limit {
		return nil, fmt.Errorf("%q has %d bytes, more than %d", name, f.Size(), limit)
	}
	data := make([]byte, f.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	return data, nil
}

// Blob opens a blob; its size must be the descriptor's.
func (l *Layout) Blob(_ context.Context, d Descriptor, offset int64) (io.ReadCloser, error) {
	digits, err := ParseDigest(d.Digest)
	if err != nil {
		return nil, err
	}
	if offset < 0 || offset > d.Size {
		return nil, fmt.Errorf("opening blob %s: offset %d is outside its %d bytes", d.Digest, offset, d.Size)
	}
	f, err := l.open(blobDir+digits, offset)
	if err != nil {
		return nil, fmt.Errorf("opening blob %s of %q: %w", d.Digest, l.ref.Path, err)
	}
	if have := f.Size() + offset; have != d.Size {
		return nil, errors.Join(fmt.Errorf("opening blob %s of %q: it has %d bytes, its descriptor says %d", d.Digest, l.ref.Path, have, d.Size), f.Close())
	}
	return f, nil
}

// Image finds the image that the reference selects.
func (l *Layout) Image(ctx context.Context, p Platform) (*Image, error) {
	img, err := l.image(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("reading image layout %q: %w", l.ref.Path, err)
	}
	return img, nil
}

func (l *Layout) image(ctx context.Context, p Platform) (*Image, error) {
	data, err := readSmall(l.place, layoutIndex, MaxManifest)
	if err != nil {
		return nil, err
	}
	x, err := ParseIndex(data, "")
	if err != nil {
		return nil, err
	}
	e, err := l.pick(x, p)
	if err != nil {
		return nil, err
	}
	r := resolver{platform: p, fetch: l.document}
	top, err := r.get(ctx, e.Descriptor)
	if err != nil {
		return nil, err
	}
	img, err := r.resolve(ctx, top, e.MediaType, 0)
	if err != nil {
		return nil, err
	}
	if img.ManifestDigest != e.Digest {
		img.Index = e.Digest
	}
	img.Tag = e.Annotations[annotationRefName]
	return img, nil
}

// document reads a manifest, an index or a configuration.
func (l *Layout) document(_ context.Context, d Descriptor) ([]byte, error) {
	digits, err := ParseDigest(d.Digest)
	if err != nil {
		return nil, err
	}
	return readSmall(l.place, blobDir+digits, MaxConfig)
}

// pick chooses the entry of index.json that the reference selects.
func (l *Layout) pick(x *Index, p Platform) (Entry, error) {
	var found []Entry
	switch {
	case l.ref.Digest != "":
		i := slices.IndexFunc(x.Entries, func(e Entry) bool { return e.Digest == l.ref.Digest })
		if i >= 0 {
			return x.Entries[i], nil
		}
		return l.blobEntry(l.ref.Digest)
	case l.ref.Nth > 0:
		if l.ref.Nth > len(x.Entries) {
			return Entry{}, fmt.Errorf("there is no image @%d: it holds %d", l.ref.Nth-1, len(x.Entries))
		}
		return x.Entries[l.ref.Nth-1], nil
	case l.ref.Name != "":
		if found = named(x.Entries, l.ref.Name); len(found) == 0 {
			return Entry{}, fmt.Errorf("it holds no image %q%s", l.ref.Name, offer(x.Entries))
		}
	default:
		found = slices.DeleteFunc(slices.Clone(x.Entries), Entry.skip)
	}
	switch {
	case len(found) == 0:
		return Entry{}, errors.New("it holds no image")
	case len(found) == 1:
		return found[0], nil
	}
	// Several entries of one name are one image for several platforms.
	same := !slices.ContainsFunc(found, func(e Entry) bool {
		return e.Annotations[annotationRefName] != found[0].Annotations[annotationRefName]
	})
	if same {
		list, err := (&Index{Entries: found}).candidates(p)
		if err != nil {
			return Entry{}, err
		}
		if len(list) == 1 {
			return list[0], nil
		}
	}
	return Entry{}, fmt.Errorf("it holds several images, name one%s", offer(found))
}

// named finds entries by name: as written, else as a registry reference.
func named(entries []Entry, name string) []Entry {
	var exact, alike []Entry
	want, err := ParseReference(name)
	for _, e := range entries {
		for _, a := range []string{annotationRefName, annotationContainerd} {
			text := e.Annotations[a]
			if text == "" || e.skip() {
				continue
			}
			if text == name {
				exact = append(exact, e)
				break
			}
			if have, bad := ParseReference(text); err == nil && bad == nil && have == want && strings.Contains(text, "/") {
				alike = append(alike, e)
				break
			}
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return alike
}

// offer lists what could have been selected.
func offer(entries []Entry) string {
	const most = 20
	var list []string
	for i, e := range entries {
		if e.skip() {
			continue
		}
		if len(list) == most {
			list = append(list, "...")
			break
		}
		s := fmt.Sprintf("@%d", i)
		if name := e.Annotations[annotationRefName]; name != "" {
			s = fmt.Sprintf("%q", clip(name))
		}
		if e.Platform != nil {
			s += " (" + e.Platform.String() + ")"
		}
		list = append(list, s)
	}
	if len(list) == 0 {
		return ""
	}
	return ": " + strings.Join(list, ", ")
}

// blobEntry makes an entry of a document that index.json does not list itself.
func (l *Layout) blobEntry(digest string) (Entry, error) {
	data, err := l.document(context.Background(), Descriptor{Digest: digest})
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, fmt.Errorf("it holds no image %s", digest)
	}
	if err != nil {
		return Entry{}, err
	}
	if err := CheckDigest(digest, data); err != nil {
		return Entry{}, err
	}
	mediaType, err := DocumentType(data, "")
	return Entry{Descriptor: Descriptor{MediaType: mediaType, Digest: digest, Size: int64(len(data))}}, err
}
