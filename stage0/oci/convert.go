package oci

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/appc"
)

// The annotations of a converted image. Those of the first group say where it
// came from; AnnotationRepository is on every converted image and on no other.
const (
	AnnotationOriginal   = "appc.io/docker/originalname"
	AnnotationRegistry   = "appc.io/docker/registryurl"
	AnnotationRepository = appc.AnnotationDockerRepository
	AnnotationTag        = "appc.io/docker/tag"
	AnnotationImageID    = "appc.io/docker/imageid"      // digest of the configuration
	AnnotationManifest   = "appc.io/docker/manifesthash" // digest of the manifest
	AnnotationComment    = "docker-comment"

	// AnnotationEntrypoint and AnnotationCmd are JSON lists, absent when empty.
	AnnotationEntrypoint = "appc.io/docker/entrypoint"
	AnnotationCmd        = "appc.io/docker/cmd"

	// AnnotationUser is the user as the configuration has it, absent when it has
	// none. Text without a colon means that the group is still to be found when
	// the app starts, from the image's own files, which the app section cannot
	// express (its group is never empty):
	//
	//	1000   gid from the passwd entry of uid 1000, else 0; no further groups
	//	redis  uid and gid from the passwd entry of redis, which must exist, and
	//	       as supplementary groups all that list redis in the group file
	//
	// With a colon the app section says it all. It holds only as long as the
	// app's user and group are the ones of the image.
	AnnotationUser = appc.AnnotationDockerUser

	// AnnotationEnvironment is a JSON list of NAME=VALUE: variables that the app
	// section cannot hold, since App Container restricts their names.
	AnnotationEnvironment = appc.AnnotationDockerEnvironment
	// AnnotationStopSignal is a signal's name or number: SIGQUIT, 3.
	AnnotationStopSignal = appc.AnnotationDockerStopSignal
	// AnnotationHealthcheck is the configuration's Healthcheck as JSON; see internal/apphealth.
	AnnotationHealthcheck = appc.AnnotationDockerHealthcheck
)

const annotationPrefix = "org.opencontainers.image."

// Naming says what a converted image is called.
type Naming struct {
	Name    string // App Container name
	Version string // "" for no label "version"
	// What the annotations say: where the image is from.
	Original, Registry, Repository, Tag string
}

// Naming is what an image of a registry is called.
func (r Reference) Naming() Naming {
	// The digest stays out: it is the content's, not part of what it is called.
	original := Reference{Host: r.Host, Repository: r.Repository, Tag: r.Tag}
	return Naming{
		Name: r.Name(), Version: r.Tag,
		Original: original.String(), Registry: r.Host, Repository: r.Repository, Tag: r.Tag,
	}
}

// Naming is what an image from a path is called: by the tag it carries if that
// is a whole registry reference, else by the path's last component.
func (r LayoutRef) Naming(tag string) Naming {
	if ref, err := ParseReference(tag); err == nil && strings.Contains(tag, "/") && ref.Digest == "" {
		n := ref.Naming()
		n.Registry = "" // it is only called so
		return n
	}
	base := path.Base(r.Path)
	for _, ext := range []string{".gz", ".xz", ".zst", ".bz2", ".tar", ".tgz", ".oci"} {
		base = strings.TrimSuffix(base, ext)
	}
	name := acName(base, '-')
	if name == "" {
		name = "image"
	}
	n := Naming{Name: name, Original: name, Repository: name}
	if tagPattern.MatchString(tag) {
		n.Version, n.Tag = tag, tag
		n.Original += ":" + tag
	}
	return n
}

// imageManifest is schema.ImageManifest without its checks, which come after
// it was written (the library checks architectures against a table that only
// internal/appc may complete).
type imageManifest struct {
	ACKind      string       `json:"acKind"`
	ACVersion   types.SemVer `json:"acVersion"`
	Name        string       `json:"name"`
	Labels      []pair       `json:"labels"`
	App         *types.App   `json:"app,omitempty"`
	Annotations []pair       `json:"annotations"`
}

type pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Convert turns an image's configuration into an App Container image manifest.
// The same image and naming give the same bytes. The manifest carries
// appc.LayersAnnotation, which pins the layers. Warnings tell what was left out.
func Convert(img *Image, n Naming) ([]byte, []appc.Warning, error) {
	data, warnings, err := convert(img, n)
	if err != nil {
		return nil, nil, fmt.Errorf("converting image %s: %w", img.ManifestDigest, err)
	}
	return data, warnings, nil
}

func convert(img *Image, n Naming) ([]byte, []appc.Warning, error) {
	cfg, err := ParseConfig(img.Config)
	if err != nil {
		return nil, nil, err
	}
	m, err := ParseManifest(img.Manifest, img.ManifestType)
	if err != nil {
		return nil, nil, err
	}
	c := &converter{img: img, cfg: cfg, manifest: m, annotations: map[string]string{}}
	labels, err := c.labels(n.Version)
	if err != nil {
		return nil, nil, err
	}
	if err := c.app(); err != nil {
		return nil, nil, err
	}
	if err := c.annotate(n); err != nil {
		return nil, nil, err
	}
	out := imageManifest{ACKind: "ImageManifest", ACVersion: schema.AppContainerVersion, Name: n.Name, Labels: labels, App: c.out}
	for _, k := range slices.Sorted(maps.Keys(c.annotations)) {
		out.Annotations = append(out.Annotations, pair{k, c.annotations[k]})
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, nil, err
	}
	// What comes out is held to the rules for what comes in.
	if _, _, err := appc.ParseImageManifest(data); err != nil {
		return nil, nil, err
	}
	return data, c.warnings, nil
}

type converter struct {
	img         *Image
	cfg         *Config
	manifest    *Manifest
	out         *types.App
	annotations map[string]string
	warnings    []appc.Warning
}

// maxWarnings bounds what one image can say.
const maxWarnings = 100

func (c *converter) warn(where, format string, args ...any) {
	if len(c.warnings) < maxWarnings {
		c.warnings = append(c.warnings, appc.Warning{Path: where, Text: fmt.Sprintf(format, args...)})
	}
}

func (c *converter) labels(version string) ([]pair, error) {
	variant := c.cfg.Variant
	if c.cfg.Architecture == "arm" && variant == "" {
		variant = "v7"
	}
	arch := appc.ToAppcArch(c.cfg.Architecture, variant)
	if c.cfg.OS != "linux" || arch == "" {
		return nil, fmt.Errorf("the image is for %s, which App Container images cannot be", c.cfg.Platform)
	}
	labels := []pair{{"arch", arch}, {"os", c.cfg.OS}}
	if version != "" {
		labels = append(labels, pair{"version", version})
	}
	return labels, nil
}

// set adds an annotation unless it is empty or there already.
func (c *converter) set(name, value string) {
	if _, ok := c.annotations[name]; !ok && value != "" {
		c.annotations[name] = value
	}
}

func (c *converter) setJSON(name string, value []string) error {
	if len(value) == 0 {
		return nil
	}
	b, err := json.Marshal(value)
	c.set(name, string(b))
	return err
}

func (c *converter) annotate(n Naming) error {
	c.set(AnnotationOriginal, n.Original)
	c.set(AnnotationRegistry, n.Registry)
	c.set(AnnotationRepository, n.Repository)
	c.set(AnnotationTag, n.Tag)
	c.set(AnnotationImageID, c.img.ConfigDigest)
	c.set(AnnotationManifest, c.img.ManifestDigest)
	c.set(AnnotationComment, c.cfg.Comment)

	// What the manifest says goes before what labels say.
	said := func(key string) string {
		if v := c.manifest.Annotations[annotationPrefix+key]; v != "" || c.cfg.Run == nil {
			return v
		}
		return c.cfg.Run.Labels[annotationPrefix+key]
	}
	c.set("authors", c.cfg.Author)
	c.set("authors", said("authors"))
	c.dated(c.cfg.Created)
	c.dated(said("created"))
	c.link("documentation", said("documentation"))
	c.link("homepage", said("url"))
	for _, key := range slices.Sorted(maps.Keys(c.manifest.Annotations)) {
		// Only names that App Container can carry, and none of ours.
		if strings.HasPrefix(key, "org.opencontainers.") && appc.CheckName(key) == nil {
			c.set(key, c.manifest.Annotations[key])
		}
	}
	layered := appc.Layered{Manifest: c.img.ManifestDigest, ManifestType: c.img.ManifestType, Config: c.img.ConfigDigest}
	for _, l := range c.img.Layers {
		layered.Layers = append(layered.Layers, appc.LayerRef{Digest: l.Digest, DiffID: l.DiffID, Size: l.Size, MediaType: l.MediaType})
	}
	b, err := json.Marshal(layered)
	c.annotations[appc.LayersAnnotation] = string(b)
	return err
}

func (c *converter) dated(value string) {
	if value == "" {
		return
	}
	if _, err := time.Parse(time.RFC3339, value); err != nil {
		c.warn("created", "%q is not a date", clip(value))
		return
	}
	c.set("created", value)
}

func (c *converter) link(name, value string) {
	if value == "" {
		return
	}
	if u, err := url.Parse(value); err != nil || u.Scheme != "http" && u.Scheme != "https" {
		c.warn(name, "%q is not a web address", clip(value))
		return
	}
	c.set(name, value)
}
