package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// Stage1Options say which stage1 image was asked for; at most one member is set.
type Stage1Options struct {
	Path, URL, Name, Hash, FromDir string
}

// FindStage1 finds the stage1 image: the one asked for, else the configured or
// built-in default, from the store when its name and version are there.
// Signatures are waived for installed files only (see trustedFile).
func (f *Fetcher) FindStage1(ctx context.Context, o Stage1Options) (Image, error) {
	img, err := f.findStage1(ctx, o)
	if err != nil {
		return Image{}, fmt.Errorf("finding the stage1 image: %w", err)
	}
	if o.Hash == "" {
		if err := f.fetchDependencies(ctx, img, PullNew); err != nil {
			return Image{}, fmt.Errorf("fetching the dependencies of the stage1 image: %w", err)
		}
	}
	if err := f.Store.Touch(img.Key); err != nil {
		f.log().WithError(err).Debug("noting the use of an image, ignoring")
	}
	return img, nil
}

func (f *Fetcher) findStage1(ctx context.Context, o Stage1Options) (Image, error) {
	given := 0
	for _, s := range []string{o.Path, o.URL, o.Name, o.Hash, o.FromDir} {
		if s != "" {
			given++
		}
	}
	switch {
	case given > 1:
		return Image{}, errors.New("only one of --stage1-path, --stage1-url, --stage1-name, --stage1-hash and --stage1-from-dir may be given")
	case o.Path != "":
		return f.stage1File(ctx, o.Path)
	case o.FromDir != "":
		if strings.Contains(o.FromDir, "/") || o.FromDir == ".." {
			return Image{}, fmt.Errorf("%q is not the name of a file in the directory of stage1 images", o.FromDir)
		}
		return f.stage1File(ctx, filepath.Join(f.Config.Stage1ImagesDir(), o.FromDir))
	case o.URL != "":
		return f.stage1Location(ctx, o.URL)
	case o.Hash != "":
		ref, err := ParseStored(o.Hash)
		if err == nil && ref.Kind != KindHash {
			err = fmt.Errorf("%q is not an image ID", o.Hash)
		}
		if err != nil {
			return Image{}, err
		}
		return f.Lookup(ref)
	case o.Name != "":
		ref, err := parseName(Ref{Text: o.Name}, o.Name)
		if err != nil {
			return Image{}, err
		}
		return f.fetch(ctx, ref, FetchOptions{policy: PullNew})
	}
	return f.defaultStage1(ctx)
}

// stage1Default is the configured default, where that is silent the built-in one.
func (f *Fetcher) stage1Default() (name, version, location string) {
	name, version = buildinfo.Stage1Name, buildinfo.Stage1Version
	if buildinfo.Stage1Dir != "" && buildinfo.Stage1File != "" {
		location = filepath.Join(buildinfo.Stage1Dir, buildinfo.Stage1File)
	}
	if f.Config != nil {
		if f.Config.Stage1.Name != "" {
			name, version = f.Config.Stage1.Name, f.Config.Stage1.Version
		}
		if f.Config.Stage1.Location != "" {
			location = f.Config.Stage1.Location
		}
	}
	return name, version, location
}

func (f *Fetcher) defaultStage1(ctx context.Context) (Image, error) {
	name, version, location := f.stage1Default()
	// The name alone would keep an upgraded file of the same version out; the
	// file's identity, one stat, decides first.
	if filepath.IsAbs(location) {
		if img, ok := f.unchanged(location); ok {
			return img, nil
		}
	}
	if name != "" && !strings.HasSuffix(version, "-dirty") && !f.newerFile(location) {
		r, err := f.Store.FindFunc(name, map[string]string{"version": version}, f.acceptable)
		if err == nil {
			return f.image(r)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return Image{}, err
		}
	}
	var first error
	file := buildinfo.Stage1File
	if location != "" {
		img, err := f.stage1Location(ctx, location)
		if err == nil {
			return img, nil
		}
		if !filepath.IsAbs(location) {
			return Image{}, err
		}
		first, file = err, filepath.Base(location)
	}
	img, err := f.stage1BesideExecutable(ctx, file)
	if err != nil {
		hint := errors.New("use a --stage1-{path,url,name,hash,from-dir} flag")
		return Image{}, errors.Join(first, err, hint)
	}
	return img, nil
}

// newerFile says whether the trusted file at the default location is known
// and changed since it was imported: the package was upgraded.
func (f *Fetcher) newerFile(location string) bool {
	if !filepath.IsAbs(location) {
		return false
	}
	if _, err := trustedFile(location); err != nil {
		return false
	}
	remote, err := f.Store.Remote("file:" + location)
	if err != nil || remote.File == nil {
		return false
	}
	id, err := fileID(location)
	return err == nil && id != *remote.File
}

// stage1Location fetches from a path or URL.
func (f *Fetcher) stage1Location(ctx context.Context, location string) (Image, error) {
	ref, err := ParseRef(location)
	if err != nil {
		return Image{}, err
	}
	if ref.Kind == KindPath {
		return f.stage1File(ctx, ref.Path)
	}
	return f.fetch(ctx, ref, FetchOptions{policy: PullNew})
}

// stage1File imports a stage1 file, unless it is a trusted one that did not
// change since it was imported.
func (f *Fetcher) stage1File(ctx context.Context, path string) (Image, error) {
	ref, err := pathRef(Ref{Text: path}, path)
	if err != nil {
		return Image{}, err
	}
	if img, ok := f.unchanged(ref.Path); ok {
		return img, nil
	}
	real, err := trustedFile(ref.Path)
	if err != nil {
		f.log().WithError(err).Debug("the stage1 image is in no trusted place; its signature is checked")
		return f.fetchPath(ctx, ref, FetchOptions{policy: PullNew})
	}
	return f.importTrusted(ctx, ref, real)
}

// importTrusted imports the file that ref leads to, without a signature. It is
// read by the name that was found trustworthy: a link on the way to it may
// lead elsewhere by now.
func (f *Fetcher) importTrusted(ctx context.Context, ref Ref, real string) (Image, error) {
	// One process reads the file, the others wait and then find the image stored.
	l, _, err := f.lockTemp("file:"+ref.Path, "importing")
	if err != nil {
		return Image{}, err
	}
	defer dropLock(l)
	if img, ok := f.unchanged(ref.Path); ok { // somebody was faster
		return img, nil
	}
	// The identity is taken before reading: a change in between is noticed.
	id, err := fileID(real)
	if err != nil {
		return Image{}, err
	}
	source := "file:" + ref.Path
	ref.Path = real
	img, err := f.fetchFile(ctx, ref, FetchOptions{trusted: true})
	if err != nil {
		return Image{}, err
	}
	return img, f.Store.PutRemote(store.Remote{
		Source: source, Key: img.Key, Downloaded: f.now(), File: &id,
	})
}

// unchanged finds the image of a file without reading the file: its
// identity is the one recorded when it was imported.
func (f *Fetcher) unchanged(path string) (Image, bool) {
	remote, err := f.Store.Remote("file:" + path)
	if err != nil || remote.File == nil {
		return Image{}, false
	}
	id, err := fileID(path)
	if err != nil || id != *remote.File {
		return Image{}, false
	}
	r, err := f.Store.Record(remote.Key)
	if err != nil || !r.Admission.Verified() && !f.Insecure.Has(InsecureImage) {
		return Image{}, false
	}
	img, err := f.image(r)
	return img, err == nil
}

// stage1BesideExecutable is the way out when the default location fails, for
// builds run from their tree: the file lies with the program that is running.
func (f *Fetcher) stage1BesideExecutable(ctx context.Context, file string) (Image, error) {
	if file == "" {
		return Image{}, errors.New("no default stage1 image is configured")
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return Image{}, err
	}
	ref, err := pathRef(Ref{Text: filepath.Join(filepath.Dir(exe), file)}, filepath.Join(filepath.Dir(exe), file))
	if err != nil {
		return Image{}, err
	}
	if img, ok := f.unchanged(ref.Path); ok {
		return img, nil
	}
	return f.importTrusted(ctx, ref, ref.Path)
}

// trustedFile resolves the path of a stage1 file that is as good as installed,
// or says why it is not: it must lie in the build's directory of stage1
// images, once all links are resolved, and nobody but root may be able to
// replace it.
func trustedFile(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(buildinfo.Stage1Dir)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(real, strings.TrimSuffix(dir, "/")+"/") {
		return "", fmt.Errorf("%q is not below %q", real, dir)
	}
	return real, rootOnly(real)
}

// rootOnly checks that a path and all its parents are owned by root and
// writable by nobody else; sticky directories do not count as safe.
func rootOnly(path string) error {
	for p := path; ; p = filepath.Dir(p) {
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok || sys.Uid != 0 {
			return fmt.Errorf("%q is not owned by root", p)
		}
		if st.Mode()&fs.ModeSymlink == 0 && st.Mode().Perm()&0o022 != 0 {
			return fmt.Errorf("%q is writable by others than root", p)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

func fileID(path string) (store.FileID, error) {
	st, err := os.Stat(path)
	if err != nil {
		return store.FileID{}, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return store.FileID{}, fmt.Errorf("no inode for %q", path)
	}
	return store.FileID{
		Size: st.Size(), Mtime: st.ModTime().UnixNano(), Ctime: sys.Ctim.Nano(),
		Inode: sys.Ino, Dev: uint64(sys.Dev), //nolint:unconvert // differs by architecture
	}, nil
}
