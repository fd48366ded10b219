package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/declared"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// gcOptions say what image gc takes.
type gcOptions struct {
	grace  time.Duration
	budget int64 // bytes; negative: none
	dry    bool
	pods   podfile.SearchOptions
}

// gcJSON is the output of image gc.
type gcJSON struct {
	DryRun    bool      `json:"dry_run"`
	Trees     int       `json:"trees"`      // trees and layers that went
	TreeBytes int64     `json:"tree_bytes"` // what they took
	Images    []gcImage `json:"images"`     // images that went, in order
	// ImageBytes is what removing the images freed, leftovers apart; layers that
	// other images need stay.
	ImageBytes    int64    `json:"image_bytes"`
	LeftoverBytes int64    `json:"leftover_bytes"` // partial downloads and the like
	Kept          int      `json:"kept"`           // images that stay
	Protected     int      `json:"protected"`      // of them, those that something refers to
	Used          int64    `json:"used_bytes"`     // what the store takes afterwards
	Notes         []string `json:"notes"`
}

type gcImage struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Size     int64  `json:"size"` // freed
	LastUsed int64  `json:"last_used_time"`
	Reason   string `json:"reason"`
}

func (a *app) imageGCCmd() *cobra.Command {
	grace := durationValue{24 * time.Hour}
	var keep sizeValue
	var format string
	var dry bool
	cmd := &cobra.Command{
		Use: "gc", Short: "Collect images and unpacked files that nothing needs",
		Long: `Collect what nothing needs: what is unpacked of images that no pod uses, images that were not used for longer than the
grace period, and what interrupted commands left. With --keep-bytes, more images go, those used last the longest ago
first, until the store is no larger.

Whatever the options, an image stays while something refers to it: a pod in any state, until rkt gc has removed it; a
declared pod, whether it ran or not; another image that stays; the configuration of the stage1 image.

  rkt image gc --grace-period=336h
  rkt image gc --keep-bytes=20G --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(0, "no arguments")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			o := gcOptions{grace: grace.d, budget: -1, dry: dry}
			if keep.set {
				o.budget = keep.n
			}
			out, err := a.imageGC(cmd.Context(), o)
			if out == nil {
				return err
			}
			if format != "" {
				return errors.Join(printJSON(a.Stdout, format, out), err)
			}
			a.printGC(out)
			return err
		},
	}
	cmd.Flags().Var(&grace, "grace-period", "`duration` an image stays after its last use")
	cmd.Flags().Var(&keep, "keep-bytes", "`size` of the store above which more images go, such as 20G")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only tell what would go, and why")
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of text")
	return cmd
}

// sizeValue is a flag for a number of bytes, with K, M, G or T for powers of 1024.
type sizeValue struct {
	n   int64
	set bool
}

func (v *sizeValue) String() string {
	if !v.set {
		return ""
	}
	return fmt.Sprint(v.n)
}
func (v *sizeValue) Type() string { return "size" }
func (v *sizeValue) Set(s string) error {
	digits := strings.TrimSuffix(strings.TrimSuffix(s, "B"), "i")
	shift := 0
	if i := strings.IndexAny(digits, "KMGTkmgt"); i >= 0 && i == len(digits)-1 {
		shift = 10 * (1 + strings.IndexByte("KMGT", strings.ToUpper(digits[i:])[0]))
		digits = digits[:i]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return fmt.Errorf("%q is not a size such as 500M or 20G", s)
	}
	v.n, v.set = n<<shift, true
	return nil
}

func (a *app) printGC(out *gcJSON) {
	for _, n := range out.Notes {
		a.log.Warn(n)
	}
	verb := "removed"
	if out.DryRun {
		verb = "would remove"
	}
	for _, i := range out.Images {
		fmt.Fprintf(a.Stdout, "%s image %q (%s): %s\n", verb, i.Name, i.ID, i.Reason)
	}
	fmt.Fprintf(a.Stdout, "%s %d tree(s), %s; %d image(s), %s; leftovers, %s\n", verb, out.Trees, size(out.TreeBytes, false),
		len(out.Images), size(out.ImageBytes, false), size(out.LeftoverBytes, false))
	fmt.Fprintf(a.Stdout, "%d image(s) stay, %d of them in use; the store takes %s\n", out.Kept, out.Protected, size(out.Used, false))
}

// imageGC collects while no pod is being prepared. What was done so far is told
// also when something fails.
func (a *app) imageGC(ctx context.Context, o gcOptions) (*gcJSON, error) {
	st, err := a.stores()
	if err != nil {
		return nil, err
	}
	l, err := a.prepareLock(st)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	p, err := a.protectPods(st)
	if err != nil {
		return nil, err
	}
	if err := a.protectStage1(st, p); err != nil {
		return nil, err
	}
	a.protectDeclared(st, p, o.pods)
	p.complete(st)
	out := &gcJSON{DryRun: o.dry, Images: []gcImage{}, Notes: []string{}}
	note := func(format string, args ...any) { out.Notes = append(out.Notes, fmt.Sprintf(format, args...)) }
	for _, err := range p.notes {
		note("a pod file protects no images, since it cannot be run as it is: %v", err)
	}
	errs := []error{a.gcTrees(ctx, st, p, o, out, note)}
	if len(p.doubts) > 0 {
		note("no images are removed, since it is not known what is needed: %v", errors.Join(p.doubts...))
	} else {
		errs = append(errs, a.gcImages(ctx, st, p, o, out))
	}
	if !o.dry {
		errs = append(errs, a.gcLeftovers(ctx, st, o, out), a.gcRecords(st, o))
	}
	used, err := usage(st)
	if out.Used = used; o.dry {
		out.Used -= out.TreeBytes + out.ImageBytes
	}
	return out, errors.Join(append(errs, err)...)
}

// prepareLock waits until no pod is being prepared, and keeps it so.
func (a *app) prepareLock(st *stores) (*os.File, error) {
	path, err := lockPath(st)
	if err != nil {
		return nil, err
	}
	l, err := lock.TryPath(path, lock.Exclusive)
	if errors.Is(err, lock.ErrLocked) {
		a.log.Info("pods are being prepared, waiting for that")
		l, err = lock.Path(path, lock.Exclusive)
	}
	return l, err
}

// lockPath is the file whose lock keeps pods from being prepared.
func lockPath(st *stores) (string, error) {
	dir := filepath.Join(st.dir, "locks")
	return filepath.Join(dir, "prepareLock"), os.MkdirAll(dir, 0o750)
}

// gcTrees removes what is unpacked and not used. A pod that cannot be read may
// use anything.
func (a *app) gcTrees(ctx context.Context, st *stores, p *protection, o gcOptions, out *gcJSON, note func(string, ...any)) error {
	keep := func(id string) bool { return p.trees[id] != "" || len(p.doubts) > 0 }
	n, freed, err := st.trees.Collect(ctx, keep, o.dry)
	out.Trees, out.TreeBytes = n, freed
	if errors.Is(err, tree.ErrBusy) {
		note("no unpacked files are removed: %v", err)
		err = nil
	}
	failpoint.Hit("cli/gc-trees")
	return err
}

// gcImages removes images, those used last the longest ago first.
func (a *app) gcImages(ctx context.Context, st *stores, p *protection, o gcOptions, out *gcJSON) error {
	records, bad := st.store.Records()
	used := lastUses(st, records)
	slices.SortStableFunc(records, func(x, y store.Record) int {
		// An image goes before what it depends on.
		return cmp.Or(used[x.Key].time.Compare(used[y.Key].time), used[y.Key].needs-used[x.Key].needs)
	})
	old := time.Now().Add(-o.grace)
	objects := map[string]int{} // how many images need them
	for _, r := range records {
		for d := range objectSizes(r) {
			objects[d]++
		}
	}
	free := func(r store.Record) int64 {
		n := r.Stored
		for d, size := range objectSizes(r) {
			if objects[d] == 1 {
				n += size
			}
		}
		return n
	}
	var total int64
	if o.budget >= 0 {
		var err error
		if total, err = usage(st); err != nil {
			return err
		}
		if o.dry {
			total -= out.TreeBytes
		}
	}
	errs := []error{bad}
	for _, r := range records {
		reason := ""
		switch {
		case p.images[r.Key] != "":
			out.Protected++
		case o.grace == 0 || !used[r.Key].time.After(old):
			reason = "last used " + when(r.LastUsed, false)
		case o.budget >= 0 && total > o.budget:
			reason = fmt.Sprintf("the store is larger than %s; last used %s", size(o.budget, false), when(r.LastUsed, false))
		}
		if reason == "" {
			out.Kept++
			continue
		}
		freed := free(r)
		if !o.dry {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := st.store.Remove(r.Key); err != nil && !errors.Is(err, store.ErrNotFound) {
				errs = append(errs, err)
				continue
			}
			failpoint.Hit("cli/gc-image")
		}
		for d := range objectSizes(r) {
			objects[d]--
		}
		total -= freed
		out.ImageBytes += freed
		out.Images = append(out.Images, gcImage{r.Key, displayName(r), freed, r.LastUsed.UnixNano(), reason})
	}
	return errors.Join(errs...)
}

// lastUse is when an image, or one that depends on it, was used last, and how
// many images it needs.
type lastUse struct {
	time  time.Time
	needs int
}

func lastUses(st *stores, records []store.Record) map[string]lastUse {
	out := map[string]lastUse{}
	for _, r := range records {
		keys, err := st.trees.Images(r.Key)
		if err != nil {
			keys = []string{r.Key} // it cannot be run as it is
		}
		for _, k := range keys {
			u := out[k]
			if r.LastUsed.After(u.time) {
				u.time = r.LastUsed
			}
			if k == r.Key {
				u.needs = len(keys)
			}
			out[k] = u
		}
	}
	return out
}

// objectSizes are the sizes of an image's layers by digest; its documents are
// too small to count.
func objectSizes(r store.Record) map[string]int64 {
	out := map[string]int64{}
	for _, l := range r.Layers {
		out[l.Digest] = l.Size
	}
	return out
}

// gcLeftovers removes what interrupted commands left, and makes what is
// unpacked outlive the machine.
func (a *app) gcLeftovers(ctx context.Context, st *stores, o gcOptions, out *gcJSON) error {
	age := 24 * time.Hour
	if o.grace == 0 {
		age = time.Minute
	}
	freed, err := st.store.Clean(ctx, age)
	out.LeftoverBytes = freed
	errs := []error{err, st.trees.Clean(ctx), st.trees.Settle()}
	return errors.Join(errs...)
}

// gcRecords forgets pods that nobody declares any more, once the grace period is
// over.
func (a *app) gcRecords(st *stores, o gcOptions) error {
	x, err := podfile.Scan(o.pods)
	if err != nil {
		return nil //nolint:nilerr // said already; nothing is known of what is declared
	}
	names, err := declared.Names(st.dir)
	errs := []error{err}
	for _, name := range names {
		d, err := declared.Open(st.dir, name)
		if declares(x, name) || err != nil || d.Changed().After(time.Now().Add(-o.grace)) {
			continue
		}
		if err := d.Remove(); !errors.Is(err, declared.ErrUpdating) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// usage is what the store takes.
func usage(st *stores) (int64, error) {
	n, err := st.store.Usage()
	if err != nil {
		return 0, err
	}
	trees, err := st.trees.Usage()
	if errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	return n + trees, err
}
