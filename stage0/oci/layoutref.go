package oci

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// LayoutRef names an image in a place on disk: a layout directory, an archive
// of one, or an archive that `docker save` wrote.
type LayoutRef struct {
	Path string // absolute
	// Of the selections at most one is set; with none, the place must hold one image.
	Name   string // the annotation org.opencontainers.image.ref.name, or a canonical registry reference
	Digest string // sha256:…, of a manifest or an index
	Nth    int    // the N-th image, counted from 1 (written @N from 0); 0 is unset
}

// ParseLayoutRef parses what follows "oci:" and "oci-archive:", PATH[:REF],
// PATH:@N or PATH@DIGEST. PATH ends at the first colon.
func ParseLayoutRef(text string) (LayoutRef, error) {
	ref, rest, err := parseLayoutRef(text)
	if err == nil && rest != "" {
		ref.Name = rest
	}
	return ref, err
}

// ParseDockerArchiveRef parses what follows "docker-archive:", PATH[:REPO[:TAG]]
// or PATH:@N.
func ParseDockerArchiveRef(text string) (LayoutRef, error) {
	ref, rest, err := parseLayoutRef(text)
	if err == nil && ref.Digest != "" {
		return ref, fmt.Errorf("docker archive %q: images in it have no digest, name one by REPO:TAG or @N", clip(text))
	}
	if err != nil || rest == "" {
		return ref, err
	}
	name, err := ParseReference(rest)
	if err != nil {
		return ref, fmt.Errorf("docker archive %q: %w", clip(text), err)
	}
	if name.Digest != "" {
		return ref, fmt.Errorf("docker archive %q: images in it have no digest, name one by REPO:TAG or @N", clip(text))
	}
	ref.Name = name.String()
	return ref, nil
}

func parseLayoutRef(text string) (ref LayoutRef, name string, err error) {
	bad := func(err error) (LayoutRef, string, error) {
		return LayoutRef{}, "", fmt.Errorf("image layout %q: %w", clip(text), err)
	}
	if len(text) > maxRef || strings.ContainsFunc(text, control) {
		return bad(errors.New("too long, or with control characters"))
	}
	var path, selection string
	selected := false
	if i := strings.LastIndexByte(text, '@'); i >= 0 && !strings.Contains(text[:i], ":") && strings.Contains(text[i:], ":") {
		if _, err := ParseDigest(text[i+1:]); err != nil {
			return bad(err)
		}
		path, ref.Digest = text[:i], text[i+1:]
	} else {
		path, selection, selected = strings.Cut(text, ":")
	}
	if path == "" {
		return bad(errors.New("it names no path"))
	}
	if ref.Path, err = filepath.Abs(path); err != nil {
		return bad(err)
	}
	if strings.Contains(ref.Path, ":") || strings.ContainsFunc(ref.Path, control) {
		return bad(fmt.Errorf("the path %q holds a colon or a control character and cannot be written so", clip(ref.Path)))
	}
	n, nth := strings.CutPrefix(selection, "@")
	switch {
	case selected && selection == "":
		return bad(errors.New("nothing follows the colon: want a name or @N"))
	case nth && strings.HasPrefix(n, digestPrefix):
		if _, err := ParseDigest(n); err != nil {
			return bad(err)
		}
		ref.Digest = n
	case nth:
		v, err := strconv.ParseUint(n, 10, 16)
		if err != nil || v >= MaxEntries {
			return bad(fmt.Errorf("bad selection %q: @N is a number from 0 to %d", clip(selection), MaxEntries-1))
		}
		ref.Nth = int(v) + 1
	default:
		return ref, selection, nil
	}
	return ref, "", nil
}

// String is the canonical form; the function that parsed the reference understands it.
func (r LayoutRef) String() string {
	switch {
	case r.Digest != "":
		return r.Path + "@" + r.Digest
	case r.Nth > 0:
		return r.Path + ":@" + strconv.Itoa(r.Nth-1)
	case r.Name != "":
		return r.Path + ":" + r.Name
	}
	return r.Path
}
