package tree

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// Limits of a dependency graph.
const (
	maxDepth  = 64
	maxLayers = 1024
)

// layer is one visit of an image while a tree is filled.
type layer struct {
	key string
	// lists are the path white lists of the image and of all those above it
	// that have one; a file must be on each.
	lists []*whitelist
	// manifest is what the plan was made from; the store's copy may be another by
	// the time the image itself is read.
	manifest []byte
	// layered is set for an image made of layers.
	layered *appc.Layered
}

// plan flattens an image's dependencies: the tree's id and the layers, lowest
// first, the image itself last.
func (t *Trees) plan(key string) (id string, layers []layer, err error) {
	p := planner{store: t.store}
	if err := p.visit(key, nil, nil); err != nil {
		return "", nil, err
	}
	for _, l := range p.layers {
		if l.key != key && l.layered != nil {
			return "", nil, fmt.Errorf("dependency %q is an image made of layers, which nothing can depend on: "+
				"write it as one archive (rkt image export --format=aci) and import that", l.key)
		}
	}
	if top := p.layers[len(p.layers)-1]; top.layered != nil && len(p.layers) > 1 {
		return "", nil, errors.New("an image made of layers has no dependencies")
	}
	keys := make([]string, 0, len(p.layers))
	for _, l := range slices.Backward(p.layers) {
		keys = append(keys, l.key)
	}
	sum := sha512.Sum512([]byte(strings.Join(keys, ",")))
	return idPrefix + hex.EncodeToString(sum[:appc.KeyDigits/2]), p.layers, nil
}

type planner struct {
	store  *store.Store
	layers []layer
}

// visit adds the layers of an image and of all below it, depth first. Chain
// is the keys above it.
func (p *planner) visit(key string, chain []string, lists []*whitelist) error {
	if slices.Contains(chain, key) {
		return fmt.Errorf("dependency cycle: %s", strings.Join(append(chain, key), " -> "))
	}
	if len(chain) >= maxDepth {
		return fmt.Errorf("dependencies are nested deeper than %d", maxDepth)
	}
	data, err := p.store.ManifestBytes(key)
	if err != nil {
		return err
	}
	m, _, err := appc.ParseImageManifest(data)
	if err != nil {
		return fmt.Errorf("image %q: %w", key, err)
	}
	if len(m.PathWhitelist) > 0 {
		lists = append(slices.Clip(lists), newWhitelist(m.PathWhitelist))
	}
	chain = append(slices.Clip(chain), key)
	for _, d := range m.Dependencies {
		dep, err := p.find(m, d)
		if err != nil {
			return fmt.Errorf("dependency %q of image %q: %w", d.ImageName, m.Name, err)
		}
		if err := p.visit(dep, chain, lists); err != nil {
			return err
		}
	}
	if len(p.layers) >= maxLayers {
		return fmt.Errorf("more than %d dependencies", maxLayers)
	}
	layered, err := appc.Layers(m)
	if err != nil {
		return err
	}
	p.layers = append(p.layers, layer{key, lists, data, layered})
	return nil
}

// find looks a dependency up in the store.
func (p *planner) find(parent *schema.ImageManifest, d types.Dependency) (string, error) {
	var r store.Record
	var err error
	if d.ImageID != nil {
		if r, err = p.store.Resolve(d.ImageID.String()); err == nil && r.Name != d.ImageName.String() {
			err = fmt.Errorf("image %q is named %q", d.ImageID, r.Name)
		}
	} else {
		labels := map[string]string{}
		for _, l := range d.Labels {
			labels[l.Name.String()] = l.Value
		}
		fits := func(r store.Record) bool { return compatible(parent, r, "os") && compatible(parent, r, "arch") }
		// An image that nobody vouches for never takes the place of one that somebody does.
		r, err = p.store.FindFunc(d.ImageName.String(), labels, func(r store.Record) bool { return fits(r) && r.Admission.Verified() })
		if errors.Is(err, store.ErrNotFound) {
			r, err = p.store.FindFunc(d.ImageName.String(), labels, fits)
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		return "", fmt.Errorf("%w (fetch it first)", err)
	}
	if err != nil {
		return "", err
	}
	if d.Size != 0 && int64(d.Size) != r.Size && int64(d.Size) != r.Compressed { //nolint:gosec // compared, not used
		return "", fmt.Errorf("the stored image has %d bytes (%d as fetched), the manifest asks for %d", r.Size, r.Compressed, d.Size)
	}
	return r.Key, nil
}

// compatible accepts images that lack the label: they fit everywhere.
func compatible(parent *schema.ImageManifest, r store.Record, label string) bool {
	want, have := appc.Label(parent, label), r.Labels[label]
	return want == "" || have == "" || want == have
}

// whitelist is an image's pathWhitelist.
type whitelist struct {
	listed  map[string]struct{} // relative, clean
	parents map[string]struct{} // directories on the way to a listed path
}

func newWhitelist(paths []string) *whitelist {
	w := &whitelist{map[string]struct{}{}, map[string]struct{}{"": {}}}
	for _, p := range paths {
		p = path.Clean("/" + p)[1:]
		w.listed[p] = struct{}{}
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			w.parents[d] = struct{}{}
		}
	}
	return w
}

// allows says whether a path stays, given all the white lists that apply.
func allows(lists []*whitelist, rel string, dir bool) bool {
	for _, w := range lists {
		_, ok := w.listed[rel]
		if !ok && dir {
			_, ok = w.parents[rel]
		}
		if !ok {
			return false
		}
	}
	return true
}
