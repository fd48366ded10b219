package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage0/discovery"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// Limits of a dependency graph; rendering has the same.
const (
	maxDepth        = 64
	maxDependencies = 1024
)

// sizeSlack is what a compressed file may be larger than the plain one.
const sizeSlack = 1 << 20

// PinError means that a dependency is not the image its parent asks for.
type PinError struct{ Want, Have string }

func (e *PinError) Error() string { return fmt.Sprintf("the image's ID is %q, not %q", e.Have, e.Want) }

// node is an image of a dependency graph.
type node struct {
	img    Image
	parent *node // the first that led here
	depth  int
	deps   []*node
}

// chain names a node and those above it, topmost first.
func (n *node) chain() string {
	var names []string
	for ; n != nil; n = n.parent {
		names = append(names, appc.DisplayName(n.img.Manifest))
	}
	slices.Reverse(names)
	return strings.Join(names, " -> ")
}

// fetchDependencies fetches all that an image depends on, breadth first, each
// once, under the image's own policy.
func (f *Fetcher) fetchDependencies(ctx context.Context, img Image, policy PullPolicy) error {
	if len(img.Manifest.Dependencies) == 0 {
		return nil
	}
	top := &node{img: img}
	g := graph{f: f, policy: policy, top: top, byKey: map[string]*node{img.Key: top}, byWish: map[string]*node{}}
	for queue := []*node{top}; len(queue) > 0; queue = queue[1:] {
		next, err := g.expand(ctx, queue[0])
		if err != nil {
			return err
		}
		queue = append(queue, next...)
	}
	if err := checkGraph(top); err != nil {
		return err
	}
	// What is used through another image must not be collected either.
	for key := range g.byKey {
		if err := f.Store.Touch(key); err != nil {
			f.log().WithError(err).Debug("noting the use of an image, ignoring")
		}
	}
	return nil
}

type graph struct {
	f      *Fetcher
	policy PullPolicy
	top    *node
	byKey  map[string]*node
	byWish map[string]*node // by what was asked for
}

// expand fetches the dependencies of a node; new ones are returned.
func (g *graph) expand(ctx context.Context, n *node) (next []*node, err error) {
	if n.depth >= maxDepth && len(n.img.Manifest.Dependencies) > 0 {
		return nil, fmt.Errorf("dependencies are nested deeper than %d: %s", maxDepth, n.chain())
	}
	for _, d := range n.img.Manifest.Dependencies {
		w, err := newWish(n, d)
		if err != nil {
			return nil, fmt.Errorf("dependency %q of image %q: %w", d.ImageName, n.img.Name, err)
		}
		child, seen := g.byWish[w.key()]
		if !seen {
			img, err := g.f.dependency(ctx, w, g.policy, g.top.img.Name)
			if err != nil {
				return nil, fmt.Errorf("dependency %q of image %q: %w", w.ref.display(), n.img.Name, err)
			}
			if child, seen = g.byKey[img.Key]; !seen {
				if len(g.byKey) > maxDependencies {
					return nil, fmt.Errorf("image %q has more than %d dependencies", g.top.img.Name, maxDependencies)
				}
				child = &node{img: img, parent: n, depth: n.depth + 1}
				g.byKey[img.Key] = child
				next = append(next, child)
			}
			g.byWish[w.key()] = child
		}
		for a := n; a != nil; a = a.parent {
			if a == child {
				return nil, fmt.Errorf("dependency cycle: %s -> %s", n.chain(), appc.DisplayName(child.img.Manifest))
			}
		}
		n.deps = append(n.deps, child)
	}
	return next, nil
}

// checkGraph finds the cycles and long chains that no shortest way shows.
func checkGraph(top *node) error {
	depths := map[*node]int{} // 0: being visited
	var visit func(n *node, above []string) (int, error)
	visit = func(n *node, above []string) (int, error) {
		above = append(slices.Clip(above), appc.DisplayName(n.img.Manifest))
		if d, ok := depths[n]; ok {
			if d == 0 {
				return 0, fmt.Errorf("dependency cycle: %s", strings.Join(above, " -> "))
			}
			return d, nil
		}
		depths[n] = 0
		deepest := 0
		for _, c := range n.deps {
			d, err := visit(c, above)
			if err != nil {
				return 0, err
			}
			deepest = max(deepest, d)
		}
		depths[n] = deepest + 1
		if deepest > maxDepth {
			return 0, fmt.Errorf("dependencies of image %q are nested deeper than %d", n.img.Name, maxDepth)
		}
		return deepest + 1, nil
	}
	_, err := visit(top, nil)
	return err
}

// wish is what a parent asks for.
type wish struct {
	ref     Ref
	id      string // "" or "sha512-" and at least KeyDigits digits
	size    int64
	parent  *schema.ImageManifest
	machine map[string]string // os and arch that the image must not contradict
}

func newWish(n *node, d types.Dependency) (wish, error) {
	w := wish{parent: n.img.Manifest, machine: map[string]string{}}
	w.ref = Ref{Kind: KindName, Text: d.ImageName.String(), Name: d.ImageName.String(), Labels: map[string]string{}}
	for _, l := range d.Labels {
		w.ref.Labels[l.Name.String()] = l.Value
	}
	if err := w.ref.checkName(); err != nil {
		return w, err
	}
	w.ref.Text = w.ref.display()
	for _, k := range []string{"os", "arch"} {
		if v := appc.Label(n.img.Manifest, k); v != "" {
			w.machine[k] = v
		}
	}
	if d.ImageID != nil {
		digits, err := appc.CheckHash(d.ImageID.String())
		if err != nil {
			return w, err
		}
		if len(digits) < appc.KeyDigits {
			return w, fmt.Errorf("the image ID %q has fewer than %d digits", d.ImageID, appc.KeyDigits)
		}
		w.id = appc.HashPrefix + digits
	}
	if d.Size > 1<<62 {
		return w, fmt.Errorf("the size %d is absurd", d.Size)
	}
	w.size = int64(d.Size) //nolint:gosec // bounded above
	return w, nil
}

func (w wish) key() string {
	return fmt.Sprintf("%s %s %d %s %s", w.ref.String(), w.id, w.size, w.machine["os"], w.machine["arch"])
}

// dependency finds one dependency in the store, or fetches it. Top is the
// name of the image that the user asked for.
func (f *Fetcher) dependency(ctx context.Context, w wish, policy PullPolicy, top string) (Image, error) {
	if w.id != "" && len(w.id) < len(appc.HashPrefix)+appc.IDDigits {
		f.log().Warnf("dependency %q of image %q is pinned by a shortened ID", w.ref.Name, w.parent.Name)
	}
	img, err := f.storedDependency(w, policy)
	if !errors.Is(err, store.ErrNotFound) {
		return img, err
	}
	if policy == PullNever {
		return Image{}, &NotStoredError{w.ref.display(), "the pull policy is never"}
	}
	if host := discovery.Host(w.ref.Name); discovery.LocalHost(host) && !discovery.LocalHost(discovery.Host(top)) {
		return Image{}, &NotStoredError{w.ref.display(), fmt.Sprintf("image %q cannot send rkt to the local host %q", top, host)}
	}
	labels := map[string]string{}
	labels["os"], labels["arch"] = appc.HostOSArch()
	maps.Copy(labels, w.machine)
	maps.Copy(labels, w.ref.Labels)
	o := FetchOptions{found: top, pinID: w.id}
	if w.size > 0 {
		o.maxSize = w.size + sizeSlack
	}
	if img, err = f.fetchDiscovered(ctx, w.ref, labels, o); err != nil {
		return Image{}, err
	}
	return img, w.check(img)
}

// storedDependency is a dependency that needs no request. A pinned ID names
// the one image there is, whatever its source says by now.
func (f *Fetcher) storedDependency(w wish, policy PullPolicy) (Image, error) {
	var r store.Record
	var err error
	switch {
	case w.id != "":
		if r, err = f.Store.Resolve(w.id); err == nil && !f.acceptable(r) {
			err = store.ErrNotFound
		}
	case policy == PullUpdate:
		err = store.ErrNotFound
	default:
		r, err = f.Store.FindFunc(w.ref.Name, w.ref.Labels, func(r store.Record) bool {
			return f.acceptable(r) && fitsMachine(r.Labels, w.machine)
		})
	}
	if err != nil {
		return Image{}, err
	}
	img, err := f.image(r)
	if err != nil {
		return Image{}, err
	}
	return img, w.check(img)
}

// check compares an image with what was asked for.
func (w wish) check(img Image) error {
	if err := checkIdentity(w.ref, img.Manifest); err != nil {
		return err
	}
	if w.id != "" && !strings.HasPrefix(img.ID, w.id) {
		return &PinError{Want: w.id, Have: img.ID}
	}
	if w.size != 0 && w.size != img.Record.Size && w.size != img.Record.Compressed {
		return fmt.Errorf("the image has %d bytes (%d as fetched), the manifest asks for %d", img.Record.Size, img.Record.Compressed, w.size)
	}
	if !fitsMachine(img.Labels, w.machine) {
		return fmt.Errorf("the image is for %s/%s, not for %s/%s", img.Labels["os"], img.Labels["arch"], w.machine["os"], w.machine["arch"])
	}
	return nil
}
