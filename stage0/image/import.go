package image

import (
	"context"
	"fmt"
)

// Import stores an image out of a file or a layout directory, verifying it as
// Fetch does, and contacts nobody: dependencies are not looked for. source, if
// not empty, is what to record instead of the path, which then is not expected
// to be there again.
func (f *Fetcher) Import(ctx context.Context, path, source string, o FetchOptions) (Image, error) {
	text := path
	if source != "" {
		text = source
	}
	ref, err := pathRef(Ref{Text: text}, path)
	if err != nil {
		return Image{}, err
	}
	img, err := f.importPath(ctx, ref, source, o)
	if err != nil {
		return Image{}, fmt.Errorf("importing image %q: %w", text, err)
	}
	return img, nil
}

func (f *Fetcher) importPath(ctx context.Context, ref Ref, source string, o FetchOptions) (Image, error) {
	o.policy = PullUpdate
	layered, ok := f.layeredPath(ref, o)
	switch {
	case ok && source == "":
		return f.fetchOCI(ctx, layered, o)
	case !ok && source == "":
		return f.fetchPath(ctx, ref, o)
	case ok:
		return f.importLayers(ctx, layered, source)
	}
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
	return f.importFrom(ctx, ref, file, c, kind, source)
}

// importLayers imports an archive that came without a name of its own.
func (f *Fetcher) importLayers(ctx context.Context, ref Ref, source string) (Image, error) {
	src, err := f.openSource(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	defer src.Close()
	img, err := f.pick(ctx, src)
	if err != nil {
		return Image{}, err
	}
	ref.Layout.Path = "image" // what it is called if it does not say itself
	r, err := f.bring(ctx, ref, source, src, img)
	if err != nil {
		return Image{}, err
	}
	return f.image(r)
}
