package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// summary is a Record as far as lists show it: skipping over layers is much
// cheaper than decoding them.
type summary struct {
	Key        string            `json:"key"`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Labels     map[string]string `json:"labels"`
	ImportTime time.Time         `json:"importTime"`
	Size       int64             `json:"size"`
	TreeSize   int64             `json:"treeSize"`
	Latest     bool              `json:"latest"`
	Source     string            `json:"source"`
	Admission  Admission         `json:"admission"`
}

// Summaries is Records without layers, documents and the sizes of files, for
// lists of many images.
func (s *Store) Summaries() ([]Record, error) {
	keys, err := s.keys()
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	records := make([]Record, len(keys))
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), 8)
	for w := range workers {
		wg.Go(func() {
			buf := make([]byte, 0, 16<<10)
			for i := w; i < len(keys); i += workers {
				records[i], buf, errs[i] = s.summary(keys[i], buf)
			}
		})
	}
	wg.Wait()
	out := records[:0]
	for i, r := range records {
		switch {
		case errs[i] == nil:
			out = append(out, r)
		case errors.Is(errs[i], ErrNotFound): // removed since the listing
			errs[i] = nil
		}
	}
	return out, errors.Join(errs...)
}

func (s *Store) summary(key string, buf []byte) (Record, []byte, error) {
	f, err := os.Open(s.recordPath(key))
	if errors.Is(err, os.ErrNotExist) {
		return Record{}, buf, ErrNotFound
	}
	if err != nil {
		return Record{}, buf, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Record{}, buf, err
	}
	if st.Size() > 1<<20 {
		return Record{}, buf, fmt.Errorf("record of image %q is too large", key)
	}
	if buf = buf[:0]; int64(cap(buf)) < st.Size() {
		buf = make([]byte, 0, st.Size())
	}
	if _, err := f.ReadAt(buf[:st.Size()], 0); err != nil {
		return Record{}, buf, fmt.Errorf("reading record of image %q: %w", key, err)
	}
	var r summary
	if err := json.Unmarshal(buf[:st.Size()], &r); err != nil {
		return Record{}, buf, fmt.Errorf("record of image %q: %w", key, err)
	}
	if r.Key != key {
		return Record{}, buf, fmt.Errorf("record of image %q names %q", key, r.Key)
	}
	return Record{
		Key: r.Key, ID: r.ID, Name: r.Name, Labels: r.Labels, ImportTime: r.ImportTime, Size: r.Size, TreeSize: r.TreeSize,
		Latest: r.Latest, Source: r.Source, Admission: r.Admission, LastUsed: st.ModTime(),
	}, buf, nil
}
