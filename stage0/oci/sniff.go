package oci

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Kind is what a path holds.
type Kind string

// The kinds that Sniff tells apart.
const (
	KindUnknown       Kind = ""
	KindACI           Kind = "aci"
	KindLayout        Kind = "oci"
	KindArchive       Kind = "oci-archive"
	KindDockerArchive Kind = "docker-archive"
)

// maxSniff bounds how many members are looked at.
const maxSniff = 4096

var dockerMember = regexp.MustCompile(`^[0-9a-f]{64}(\.json|\.tar|/.*)?$`)

// Sniff tells by content what a file or directory is. The first member that
// tells decides; decompress is as in ArchiveOptions. What is no archive at all
// is KindUnknown, without an error: whoever reads it says what is wrong.
func Sniff(name string, decompress func(io.Reader) (io.ReadCloser, error)) (Kind, error) {
	st, err := os.Stat(name)
	if err != nil {
		return KindUnknown, err
	}
	if st.IsDir() {
		if st, err := os.Lstat(filepath.Join(name, layoutFile)); err == nil && st.Mode().IsRegular() {
			return KindLayout, nil
		}
		return KindUnknown, nil
	}
	f, err := openRegular(name)
	if err != nil {
		return KindUnknown, fmt.Errorf("%q: %w", name, err)
	}
	defer f.Close()
	plain, err := isTar(f)
	if err != nil {
		return KindUnknown, err
	}
	var r io.Reader = f // seeks over content
	if !plain {
		if decompress == nil {
			return KindUnknown, nil
		}
		rc, err := decompress(f)
		if err != nil {
			return KindUnknown, nil
		}
		defer rc.Close()
		r = rc
	}
	tr := tar.NewReader(r)
	for range maxSniff {
		h, err := tr.Next()
		if err != nil {
			break // whatever it is, the reader of the archive reports it
		}
		if kind := memberKind(path.Clean(h.Name)); kind != KindUnknown {
			return kind, nil
		}
	}
	return KindUnknown, nil
}

func memberKind(name string) Kind {
	switch {
	case name == "manifest", name == "rootfs", strings.HasPrefix(name, "rootfs/"):
		return KindACI
	case name == layoutFile, name == layoutIndex, name == "blobs", strings.HasPrefix(name, "blobs/"):
		return KindArchive
	case name == dockerManifest, name == "repositories", dockerMember.MatchString(name):
		return KindDockerArchive
	}
	return KindUnknown
}
