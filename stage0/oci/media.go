package oci

import (
	"errors"
	"fmt"
	"strings"
)

// The media types of documents.
const (
	TypeIndex          = "application/vnd.oci.image.index.v1+json"
	TypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	TypeConfig         = "application/vnd.oci.image.config.v1+json"
	TypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// The media types of layers that this package writes.
const (
	TypeLayer     = "application/vnd.oci.image.layer.v1.tar"
	TypeLayerGzip = TypeLayer + "+gzip"
	TypeLayerZstd = TypeLayer + "+zstd"
)

const (
	typeEmpty        = "application/vnd.oci.empty.v1+json"
	typeSchema1      = "application/vnd.docker.distribution.manifest.v1+json"
	typeSignedSchema = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// AcceptTypes are the documents understood at the top of an image, the ones to
// ask a registry for.
func AcceptTypes() []string {
	return []string{TypeManifest, TypeIndex, TypeDockerManifest, TypeDockerList}
}

// IsIndex says whether a media type is an index's (a manifest list's).
func IsIndex(mediaType string) bool { return mediaType == TypeIndex || mediaType == TypeDockerList }

// IsManifest says whether a media type is an image manifest's.
func IsManifest(mediaType string) bool {
	return mediaType == TypeManifest || mediaType == TypeDockerManifest
}

// checkTop refuses what is neither an index nor a manifest, with the reason.
func checkTop(mediaType string) error {
	switch {
	case IsIndex(mediaType), IsManifest(mediaType):
		return nil
	case mediaType == typeSchema1, mediaType == typeSignedSchema:
		return errSchema1
	}
	return fmt.Errorf("media type %q is neither an image manifest nor an index", clip(mediaType))
}

var errSchema1 = errors.New("the image has a manifest of schema 1, which cannot be verified and is not supported: push it again with a current tool")

// checkConfigType refuses what is no image's configuration.
func checkConfigType(mediaType string) error {
	switch mediaType {
	case TypeConfig, TypeDockerConfig:
		return nil
	case typeEmpty:
		return fmt.Errorf("it is an artifact, not an image: its configuration is empty")
	case "":
		return fmt.Errorf("its configuration has no media type")
	}
	return fmt.Errorf("it is an artifact, not an image: its configuration has media type %q", clip(mediaType))
}

// checkLayerType refuses layers that are not tar archives in the clear.
func checkLayerType(mediaType string) error {
	switch mediaType {
	case TypeLayer, TypeLayerGzip, TypeLayerZstd,
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.diff.tar.zstd",
		"application/vnd.docker.image.rootfs.foreign.diff.tar",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
		return nil
	case "":
		return fmt.Errorf("no media type")
	}
	if strings.Contains(mediaType, "+encrypted") {
		return fmt.Errorf("the layer is encrypted (media type %q), which is not supported: decrypt the image first", clip(mediaType))
	}
	return fmt.Errorf("media type %q is not that of a layer", clip(mediaType))
}

// clip bounds what an enemy can put into a message.
func clip(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
