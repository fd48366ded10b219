package store

import (
	"archive/tar"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"path"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appc"
)

// readLayout reads an ACI to the end of its tar, checks that it holds a
// manifest and a rootfs and nothing else, and returns the manifest's bytes. A
// visitor, if any, sees what passed.
func readLayout(r io.Reader, maxEntries int, v Visitor) ([]byte, error) {
	var (
		tr       = tar.NewReader(r)
		manifest []byte
		rootfs   bool
		seed     = maphash.MakeSeed()
		seen     = map[uint64]struct{}{}
		entries  int
	)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading tar: %w", err)
		}
		if entries++; entries > maxEntries {
			return nil, fmt.Errorf("more than %d entries", maxEntries)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := CleanName(h.Name)
		if err != nil {
			return nil, err
		}
		if name == "" { // the archive's own top, "./"
			continue
		}
		// Hashes instead of names keep the memory bounded; two names of an image
		// fall together by chance once in 10^7 images of the largest size.
		sum := maphash.String(seed, name)
		if _, dup := seen[sum]; dup {
			return nil, fmt.Errorf("entry %q appears twice", name)
		}
		seen[sum] = struct{}{}
		switch {
		case name == "manifest":
			if h.Typeflag != tar.TypeReg {
				return nil, errors.New(`entry "manifest" is not a regular file`)
			}
			if manifest, err = io.ReadAll(io.LimitReader(tr, appc.MaxManifest+1)); err != nil {
				return nil, fmt.Errorf("reading manifest: %w", err)
			}
			if len(manifest) > appc.MaxManifest {
				return nil, fmt.Errorf("manifest is larger than %d bytes", appc.MaxManifest)
			}
			if v != nil {
				v.Manifest(manifest)
			}
		case name == "rootfs":
			if h.Typeflag != tar.TypeDir {
				return nil, errors.New(`entry "rootfs" is not a directory`)
			}
			rootfs = true
		case !strings.HasPrefix(name, "rootfs/"):
			return nil, fmt.Errorf("entry %q is neither the manifest nor below rootfs", name)
		}
		if h.Typeflag == tar.TypeLink {
			target, err := CleanName(h.Linkname)
			if err != nil {
				return nil, fmt.Errorf("hard link %q: %w", name, err)
			}
			if !strings.HasPrefix(target, "rootfs/") {
				return nil, fmt.Errorf("hard link %q leads to %q, outside rootfs", name, target)
			}
		}
		if v != nil && name != "manifest" {
			rel := strings.TrimPrefix(strings.TrimPrefix(name, "rootfs"), "/")
			if err := v.Entry(rel, h, tr); err != nil {
				return nil, fmt.Errorf("entry %q: %w", rel, err)
			}
		}
	}
	switch {
	case manifest == nil:
		return nil, errors.New("the archive holds no manifest")
	case !rootfs:
		return nil, errors.New("the archive holds no rootfs directory")
	}
	return manifest, nil
}

const (
	maxPath      = 4096
	maxComponent = 255
)

// CleanName turns a tar entry's name into a relative, clean path ("" is the
// top) and refuses what could lead elsewhere.
func CleanName(name string) (string, error) {
	if strings.ContainsRune(name, 0) || len(name) > maxPath {
		return "", fmt.Errorf("bad entry name %.100q", name)
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(name, "./"), "/")
	if strings.HasPrefix(rel, "/") {
		return "", fmt.Errorf("bad entry name %.100q", name)
	}
	for part := range strings.SplitSeq(rel, "/") {
		if part == ".." || len(part) > maxComponent {
			return "", fmt.Errorf("bad entry name %.100q", name)
		}
	}
	rel = path.Clean("/" + rel)[1:]
	if rel == "" && strings.Trim(name, "./") != "" || name == "" {
		return "", fmt.Errorf("bad entry name %.100q", name)
	}
	return rel, nil
}
