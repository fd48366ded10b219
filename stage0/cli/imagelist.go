package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// imageJSON is an image in the output of image list.
type imageJSON struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	ImportTime   int64  `json:"import_time"`
	LastUsedTime int64  `json:"last_used_time"`
	Size         int64  `json:"size"`
	Latest       bool   `json:"latest"`
	Source       string `json:"source"`
	Admission    string `json:"admission"`
}

func newImageJSON(r store.Record) imageJSON {
	return imageJSON{r.Key, displayName(r), r.ImportTime.UnixNano(), r.LastUsed.UnixNano(), r.Size + r.TreeSize, r.Latest, sourceText(r.Source), r.Admission.Kind}
}

// sourceText shows a recorded source as a user would write it.
func sourceText(source string) string {
	if strings.HasPrefix(source, "cimd:") {
		ref, err := image.ParseRef(source)
		switch {
		case err != nil:
		case ref.Kind == image.KindDocker:
			return "docker://" + ref.Docker.Display()
		case ref.Kind == image.KindURL:
			return ref.URL
		case ref.Kind == image.KindPath:
			return "file:" + ref.Path
		}
	}
	return source
}

func displayName(r store.Record) string {
	if v := r.Labels["version"]; v != "" {
		return r.Name + ":" + v
	}
	return r.Name
}

func (a *app) imageListCmd() *cobra.Command {
	var fields, sortBy, order, format string
	var full, noLegend bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the images in the store", Args: exactArgs(0, "no arguments"),
		Long: `List the images in the store. The size is that of the image's files and of what is unpacked of it.

  rkt image list --sort=lastused --order=desc
  rkt image list --fields=id,name,source,admission
  rkt image list --format=json-pretty`,
		RunE: func(*cobra.Command, []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			st, err := a.stores()
			if err != nil {
				return err
			}
			recs, listErr := st.store.Summaries()
			if err := sortImages(recs, sortBy, order); err != nil {
				return err
			}
			if recs == nil && listErr != nil {
				return listErr
			}
			if format != "" {
				out := []imageJSON{}
				for _, r := range recs {
					out = append(out, newImageJSON(r))
				}
				err = printJSON(a.Stdout, format, out)
			} else {
				err = a.imageTable(recs, strings.Split(fields, ","), full, noLegend)
			}
			a.itemErrors([]error{listErr})
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&fields, "fields", "id,name,size,importtime,lastused", "comma-separated `columns`; latest, source and admission are known, too")
	f.StringVar(&sortBy, "sort", "importtime", "comma-separated `keys`: name, importtime, lastused, size")
	f.StringVar(&order, "order", "asc", "`asc` or desc")
	f.BoolVar(&full, "full", false, "whole IDs, sizes in bytes, absolute times")
	f.BoolVar(&noLegend, "no-legend", false, "no header line")
	f.StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	return cmd
}

func sortImages(recs []store.Record, by, order string) error {
	if order != "asc" && order != "desc" {
		return fmt.Errorf("unknown order %q: asc and desc are known", order)
	}
	keys := strings.Split(by, ",")
	for _, k := range keys {
		if !slices.Contains([]string{"name", "importtime", "lastused", "size"}, k) {
			return fmt.Errorf("unknown sort key %q: name, importtime, lastused and size are known", k)
		}
	}
	slices.SortStableFunc(recs, func(x, y store.Record) int {
		c := 0
		for _, k := range keys {
			switch k {
			case "name":
				c = strings.Compare(displayName(x), displayName(y))
			case "importtime":
				c = x.ImportTime.Compare(y.ImportTime)
			case "lastused":
				c = x.LastUsed.Compare(y.LastUsed)
			case "size":
				c = cmp.Compare(x.Size+x.TreeSize, y.Size+y.TreeSize)
			}
			if c != 0 {
				break
			}
		}
		if order == "desc" {
			return -c
		}
		return c
	})
	return nil
}

func (a *app) imageTable(recs []store.Record, fields []string, full, noLegend bool) error {
	heads := map[string]string{"id": "ID", "name": "NAME", "size": "SIZE", "importtime": "IMPORT TIME", "lastused": "LAST USED", "latest": "LATEST",
		"source": "SOURCE", "admission": "ADMISSION"}
	var head []string
	for _, f := range fields {
		h, ok := heads[f]
		if !ok {
			return fmt.Errorf("unknown field %q: id, name, size, importtime, lastused, latest, source and admission are known", f)
		}
		head = append(head, h)
	}
	w := table(a.Stdout)
	if !noLegend {
		fmt.Fprintln(w, strings.Join(head, "\t"))
	}
	for _, r := range recs {
		var row []string
		for _, f := range fields {
			var v string
			switch f {
			case "id":
				v = shortID(r.Key, 12, full)
			case "name":
				v = displayName(r)
			case "size":
				v = size(r.Size+r.TreeSize, full)
			case "importtime":
				v = when(r.ImportTime, full)
			case "lastused":
				v = when(r.LastUsed, full)
			case "latest":
				v = fmt.Sprint(r.Latest)
			case "source":
				v = orDash(sourceText(r.Source))
			case "admission":
				v = orDash(r.Admission.Kind)
			}
			row = append(row, v)
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// size prints bytes, or the largest IEC unit.
func size(n int64, full bool) string {
	if full {
		return fmt.Sprint(n)
	}
	f := float64(n)
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if f < 1024 {
			return fmt.Sprintf("%.0f%s", f, u)
		}
		f /= 1024
	}
	return fmt.Sprintf("%.1fTiB", f)
}
