package cli

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/oci"
	"github.com/rkt-systemd/rkt/stage0/store"
)

func (a *app) imageExportCmd() *cobra.Command {
	var format string
	var overwrite bool
	cmd := &cobra.Command{
		Use: "export IMAGE FILE", Short: "Write an image to a file", Args: exactArgs(2, "an image and a file"),
		Long: `Write an image to a file, or to standard output if FILE is "-".

With --format=aci, an App Container image is written as it is, with the same ID. An image made of layers becomes one
archive of the same content: it needs no layers, and it has an ID of its own, which is printed on standard error.
With --format=oci or docker the file is an archive that podman, skopeo and docker load read. Layers are written as they
came, so that digests stay the same (oci), or uncompressed (docker). An App Container image, with all it depends on,
becomes one layer.

  rkt image export example.com/web:1.2 web.aci
  rkt image export --format=docker sha512-7ba2 - | docker load`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "aci" && format != "oci" && format != "docker" {
				return fmt.Errorf("unknown format %q: aci, oci and docker are known", format)
			}
			st, err := a.stores()
			if err != nil {
				return err
			}
			img, err := a.lookup(st, args[0])
			if err != nil {
				return err
			}
			out, err := a.newOutput(args[1], overwrite)
			if err != nil {
				return err
			}
			if err := a.export(cmd.Context(), st, img, format, out); err != nil {
				return errors.Join(fmt.Errorf("exporting image %q: %w", args[0], err), out.abort())
			}
			return out.commit()
		},
	}
	cmd.Flags().StringVar(&format, "format", "aci", "`aci`, oci or docker")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace an existing file")
	return cmd
}

// output is a file that appears when it is whole, or standard output.
type output struct {
	io.Writer
	tmp       *os.File // nil for standard output
	path      string
	overwrite bool
}

// newOutput refuses what cannot be written to before anything is done.
func (a *app) newOutput(path string, overwrite bool) (*output, error) {
	if path == "-" {
		if f, ok := a.Stdout.(*os.File); ok {
			if st, err := f.Stat(); err == nil && st.Mode()&fs.ModeCharDevice != 0 && st.Mode()&fs.ModeDevice != 0 && isTerminal(f) {
				return nil, errors.New("not writing an image to a terminal; name a file, or redirect the output")
			}
		}
		return &output{Writer: a.Stdout}, nil
	}
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !overwrite:
		return nil, hint(fmt.Errorf("file %q exists", path), "--overwrite replaces it")
	case !st.Mode().IsRegular() && st.Mode()&fs.ModeSymlink == 0:
		return nil, fmt.Errorf("%q is not a regular file; write to standard output (-) instead", path)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".rkt-")
	if err != nil {
		return nil, err
	}
	return &output{tmp, tmp, path, overwrite}, nil
}

// isTerminal tells a terminal from devices such as /dev/null.
func isTerminal(f *os.File) bool {
	name, err := os.Readlink(sys.ProcPath(int(f.Fd())))
	return err == nil && name != os.DevNull && name != "/dev/zero" && name != "/dev/full"
}

func (o *output) commit() error {
	if o.tmp == nil {
		return nil
	}
	err := errors.Join(o.tmp.Chmod(0o644), o.tmp.Sync(), o.tmp.Close())
	if err == nil && o.overwrite {
		err = os.Rename(o.tmp.Name(), o.path)
	} else if err == nil {
		err = renameNew(o.tmp.Name(), o.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %q: %w", o.path, err), os.Remove(o.tmp.Name()))
	}
	return sys.SyncDir(filepath.Dir(o.path))
}

// renameNew renames, unless the new name exists.
func renameNew(from, to string) error {
	err := sys.Renameat2(sys.CWD, from, sys.CWD, to, sys.RenameNoReplace)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, serr := os.Lstat(to); serr == nil { // a file system that cannot do this at once
		return fs.ErrExist
	}
	return os.Rename(from, to)
}

func (o *output) abort() error {
	if o.tmp == nil {
		return nil
	}
	return errors.Join(o.tmp.Close(), os.Remove(o.tmp.Name()))
}

// export writes an image in a format.
func (a *app) export(ctx context.Context, st *stores, img image.Image, format string, out io.Writer) (err error) {
	layered, err := appc.Layers(img.Manifest)
	if err != nil {
		return err
	}
	if err := st.store.Touch(img.Key); err != nil {
		a.log.WithError(err).Debug("noting the use of an image, ignoring")
	}
	if layered != nil {
		digests := []string{layered.Manifest, layered.Config}
		for _, l := range layered.Layers {
			digests = append(digests, l.Digest)
		}
		release, err := st.store.HoldLayers(digests)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
	}
	switch {
	case format == "aci" && layered == nil:
		return exportBlob(ctx, st.store, img, out)
	case format == "aci":
		id, err := st.trees.WriteACI(ctx, out, img.Key)
		if err == nil {
			a.log.Infof("the layers of image %s were put into one archive, which is the image %s", shortID(img.Key, 32, false), shortID(id, 32, false))
		}
		return err
	case layered == nil:
		return a.exportACI(ctx, st, img, format, out)
	}
	return a.exportLayers(ctx, st, img, layered, format, out)
}

// contextReader ends when the context does.
type contextReader struct {
	ctx context.Context // of the one copy it is made for
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// exportBlob writes an App Container image as it is.
func exportBlob(ctx context.Context, s *store.Store, img image.Image, out io.Writer) error {
	b, err := s.ReadBlob(img.Key)
	if err != nil {
		return err
	}
	defer b.Close()
	h := sha512.New()
	if _, err := io.Copy(io.MultiWriter(out, h), contextReader{ctx, b}); err != nil {
		return err
	}
	if id := appc.HashPrefix + hex.EncodeToString(h.Sum(nil)); id != img.ID {
		return hint(fmt.Errorf("the stored image is damaged: its content has the ID %q", id), "rkt image fsck --repair removes it; then fetch it again")
	}
	return nil
}

// exportLayers writes an image made of layers with its own documents.
func (a *app) exportLayers(ctx context.Context, st *stores, img image.Image, layered *appc.Layered, format string, out io.Writer) error {
	manifest, err := st.store.Document(layered.Manifest)
	if err != nil {
		return err
	}
	config, err := st.store.Document(layered.Config)
	if err != nil {
		return err
	}
	o, err := oci.NewImage(manifest, layered.ManifestType, config, oci.Platform{})
	if err != nil {
		return err
	}
	if format == "oci" {
		open := func(d oci.Descriptor) (io.ReadCloser, error) { return st.store.OpenLayer(d.Digest) }
		return oci.WriteOCIArchive(ctx, out, o, open, tagOf(img))
	}
	open := func(l oci.Layer) (io.ReadCloser, int64, error) {
		known, err := st.store.Layer(l.Digest)
		if err != nil {
			return nil, 0, err
		}
		f, err := st.store.OpenLayer(l.Digest)
		if err != nil {
			return nil, 0, err
		}
		plain, _, err := store.Decompress(f)
		if err != nil {
			return nil, 0, errors.Join(err, f.Close())
		}
		return plainLayer{plain, f}, known.Plain, nil
	}
	return oci.WriteDockerArchive(ctx, out, o, open, tagsOf(img))
}

type plainLayer struct {
	io.ReadCloser
	file *os.File
}

func (p plainLayer) Close() error { return errors.Join(p.ReadCloser.Close(), p.file.Close()) }

// exportACI writes an App Container image with one layer: its root file system
// with all that it depends on.
func (a *app) exportACI(ctx context.Context, st *stores, img image.Image, format string, out io.Writer) error {
	tmp, err := os.CreateTemp(st.store.TempDir(), "export-")
	if err != nil {
		return err
	}
	defer tmp.Close()
	if err := os.Remove(tmp.Name()); err != nil { // its descriptor is enough
		return err
	}
	h := sha256.New()
	if err := st.trees.WriteLayer(ctx, io.MultiWriter(tmp, h), img.Key); err != nil {
		return err
	}
	size, err := tmp.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	digest := "sha256:" + hex.EncodeToString(h.Sum(nil))
	config, warnings, err := oci.FromACI(img.Manifest, digest)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.log.Warnf("image %q: %s", img.Name, w)
	}
	layer := oci.Layer{Descriptor: oci.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: digest, Size: size}, DiffID: digest}
	o, err := oci.Assemble(config, []oci.Layer{layer})
	if err != nil {
		return err
	}
	section := func() io.ReadCloser { return io.NopCloser(io.NewSectionReader(tmp, 0, size)) }
	if format == "oci" {
		return oci.WriteOCIArchive(ctx, out, o, func(oci.Descriptor) (io.ReadCloser, error) { return section(), nil }, tagOf(img))
	}
	return oci.WriteDockerArchive(ctx, out, o, func(oci.Layer) (io.ReadCloser, int64, error) { return section(), size, nil }, tagsOf(img))
}

// tagsOf are the registry references by which other tools will know an image:
// the one it was fetched by, else its own name if that can be one.
func tagsOf(img image.Image) []oci.Reference {
	if ref, err := image.ParseRef(img.Record.Source); err == nil && ref.Kind == image.KindDocker && ref.Docker.Tag != "" {
		r := ref.Docker
		r.Digest = ""
		return []oci.Reference{r}
	}
	if ref, err := oci.ParseReference(displayName(img.Record)); err == nil && ref.Tag != "" && ref.Digest == "" {
		return []oci.Reference{ref}
	}
	return nil
}

func tagOf(img image.Image) string {
	for _, r := range tagsOf(img) {
		return r.String()
	}
	return ""
}
