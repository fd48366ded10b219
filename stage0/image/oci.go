package image

import "context"

// fetchOCI fetches an image that is made of layers: from a registry, a layout
// or an archive.
func (f *Fetcher) fetchOCI(_ context.Context, ref Ref, _ FetchOptions) (Image, error) {
	return Image{}, &UnsupportedError{Kind: ref.Kind, Ref: ref.Text}
}
