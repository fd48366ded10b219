package image

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// check list: 14, 15
func TestMaxAge(t *testing.T) {
	for header, want := range map[string]int64{
		"": -1, "max-age=10": 10, "MAX-AGE=10": 10, "public, max-age=\"10\"": 10, "max-age=010": 0, "max-age=-1": 0, "max-age=x": 0, "no-cache, max-age=10": 0,
		"max-age=10, no-store": 0, "max-age=9223372036854775807": longestAge, "private": -1,
	} {
		age, said := maxAge(http.Header{"Cache-Control": {header}})
		if !said {
			age = -1
		}
		if age != want {
			t.Errorf("%q: %d, want %d", header, age, want)
		}
	}
}

// check list: 14
func TestAnswerOf304RefreshesTheRecord(t *testing.T) {
	data := someImage(t, "1")
	var cache, since string
	requests := 0
	e, url := handle(t, func(w http.ResponseWriter, r *http.Request) {
		requests++
		if strings.HasPrefix(r.URL.Path, "/x") {
			http.Redirect(w, r, "/real.aci", http.StatusFound)
			return
		}
		since = r.Header.Get("If-None-Match")
		if cache != "" {
			w.Header().Set("Cache-Control", cache)
		}
		w.Header().Set("ETag", `"a"`)
		if since == `"a"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(data)
	})
	now := time.Now()
	e.f.Now, e.f.Policy = func() time.Time { return now }, PullUpdate
	step := func(wantRequests int) {
		t.Helper()
		requests = 0
		if _, err := e.fetch(t, url, FetchOptions{}); err != nil || requests != wantRequests {
			t.Errorf("%v, %d requests, want %d", err, requests, wantRequests)
		}
	}
	step(2)
	cache = "max-age=60"
	step(2)
	step(0)
	now = now.Add(59 * time.Second)
	step(0)
	now = now.Add(2 * time.Second)
	cache = "" // what a 304 does not say stays
	step(2)
	now = now.Add(30 * time.Second)
	step(0)
	now = now.Add(time.Minute)
	cache = "no-cache, max-age=60"
	step(2)
	step(2)
}

// check list: 17
func TestConcurrentFilesAreReadOnce(t *testing.T) {
	e := newEnv(t)
	e.f.Insecure = InsecureImage
	path := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1"))
	p := &countingProgress{}
	e.f.Progress = p
	var wg sync.WaitGroup
	keys := make([]string, 8)
	for i := range keys {
		wg.Go(func() {
			img, err := e.fetch(t, path, FetchOptions{})
			if err != nil {
				t.Error(err)
			}
			keys[i] = img.Key
		})
	}
	wg.Wait()
	if len(slices.Compact(keys)) != 1 || p.n != 1 {
		t.Errorf("%v, read %d times", keys, p.n)
	}
	if left, _ := os.ReadDir(e.f.Store.TempDir()); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

type countingProgress struct {
	mu sync.Mutex
	n  int
}

func (p *countingProgress) Begin(string, int64) Transfer {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	return noProgress{}
}

// check list: 11
func TestPathsAreReadAgain(t *testing.T) {
	for _, policy := range []PullPolicy{PullNew, PullUpdate, PullNever} {
		e := newEnv(t)
		e.f.Insecure, e.f.Policy = InsecureImage, policy
		path := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1"))
		first, err := e.fetch(t, path, FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "2")), path); err != nil {
			t.Fatal(err)
		}
		if second, err := e.fetch(t, path, FetchOptions{}); err != nil || second.Key == first.Key {
			t.Errorf("%s: the changed file is not read: %v", policy, err)
		}
	}
}

// check list: 10
func TestOneIDWhateverTheCompression(t *testing.T) {
	e := newEnv(t)
	e.f.Insecure = InsecureImage
	plain := acitest.Tar(t, acitest.Manifest("example.com/a", "1"))
	for _, format := range []string{"tar", "gzip", "xz", "zstd"} {
		path := e.dir + "/" + format
		if err := os.WriteFile(path, acitest.Compress(t, format, plain), 0o644); err != nil {
			t.Fatal(err)
		}
		if img, err := e.fetch(t, path, FetchOptions{}); err != nil || img.ID != acitest.ID(t, plain) {
			t.Errorf("%s: %s, %v", format, img.ID, err)
		}
	}
}

func TestUnverifiedFileRecordIsNoShortCut(t *testing.T) {
	e := newEnv(t)
	path := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1"))
	e.f.Insecure = InsecureImage
	if _, err := e.fetch(t, path, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	e.f.Insecure = 0
	_, err := e.fetch(t, path, FetchOptions{})
	wantErr(t, err, "signature file")
	e.trust(t, "")
	e.key.SignFile(t, path)
	if img, err := e.fetch(t, path, FetchOptions{}); err != nil || img.Record.Admission.Kind != store.AdmittedSigned {
		t.Error(img.Record, err)
	}
}

// check list: 14
func TestWaitingForAFailedDownloadAsksAgain(t *testing.T) {
	data := someImage(t, "1")
	gone := false
	asked, answer := make(chan bool, 2), make(chan bool)
	e, url := handle(t, func(w http.ResponseWriter, _ *http.Request) {
		if gone {
			asked <- true
			<-answer
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(data)
	})
	e.f.Policy = PullUpdate
	if _, err := e.fetch(t, url, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	gone = true
	log, lines := logtest.NewNullLogger()
	waiting := make(chan bool)
	log.AddHook(hook(func(m string) {
		if strings.Contains(m, "waiting for it") {
			close(waiting)
		}
	}))
	e.f.Log = log
	first := make(chan error, 1)
	go func() {
		_, err := e.fetch(t, url, FetchOptions{})
		first <- err
	}()
	<-asked
	second := make(chan error, 1)
	go func() {
		_, err := e.fetch(t, url, FetchOptions{})
		second <- err
	}()
	select {
	case <-waiting:
	case <-time.After(time.Minute):
		t.Fatalf("the second does not wait: %v", lines.AllEntries())
	}
	close(answer)
	wantErr(t, <-first, "404")
	wantErr(t, <-second, "404")
}

type hook func(message string)

func (hook) Levels() []logrus.Level { return logrus.AllLevels }

func (h hook) Fire(e *logrus.Entry) error {
	h(e.Message)
	return nil
}
