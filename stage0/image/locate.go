package image

import (
	"context"
	"path/filepath"

	"github.com/rkt-systemd/rkt/internal/buildinfo"
)

// Locate finds the image that Fetch would find without asking anybody: nothing
// is fetched, imported or noted. A *NotStoredError says that there is none.
func (f *Fetcher) Locate(ctx context.Context, ref Ref) (Image, error) {
	if ref.Kind == KindPath {
		if img, ok := f.unchanged(ref.Path); ok {
			return img, nil
		}
		layered, ok := f.layeredPath(ref, FetchOptions{policy: PullNew})
		if !ok {
			return Image{}, &NotStoredError{ref.Text, "the file was not imported yet, or has changed since"}
		}
		ref = layered
	}
	return f.fetch(ctx, ref, FetchOptions{policy: PullNever})
}

// LocateStage1 is Locate for the stage1 image that FindStage1 would find.
func (f *Fetcher) LocateStage1(ctx context.Context, o Stage1Options) (Image, error) {
	if o.Name != "" {
		ref, err := parseName(Ref{Text: o.Name}, o.Name)
		if err != nil {
			return Image{}, err
		}
		return f.Locate(ctx, ref)
	}
	if o.Path != "" {
		ref, err := pathRef(Ref{Text: o.Path}, o.Path)
		if err != nil {
			return Image{}, err
		}
		return f.Locate(ctx, ref)
	}
	name, version, location := f.stage1Default()
	if filepath.IsAbs(location) {
		if img, ok := f.unchanged(location); ok {
			return img, nil
		}
		if f.newerFile(location) {
			return Image{}, &NotStoredError{location, "the file has changed since it was imported"}
		}
	}
	if name == "" {
		name = buildinfo.Stage1Name
	}
	r, err := f.Store.FindFunc(name, map[string]string{"version": version}, f.acceptable)
	if err != nil {
		return Image{}, &NotStoredError{name, "no pod has run with it yet"}
	}
	return f.image(r)
}
