package image

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// check list: 24
func TestProgressBars(t *testing.T) {
	clock := time.Unix(0, 0)
	var out strings.Builder
	p := &progress{w: &out, terminal: true, now: func() time.Time { return clock }}
	a := p.Begin("https://example.com/\x1bx.aci", 1<<20)
	b := p.Begin("https://example.com/"+strings.Repeat("y", 300), -1)
	clock = clock.Add(time.Second)
	a.Add(1 << 19)
	b.Add(10)
	for _, want := range []string{"512KiB of 1.0MiB", "512KiB/s", "1s left", "?x.aci", "[========        ]"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out.String(), want)
		}
	}
	clock = clock.Add(time.Second)
	out.Reset()
	b.Add(1)
	if got := out.String(); !strings.HasPrefix(got, "\x1b[2A\r\x1b[J") || strings.Count(got, "\n") != 2 {
		t.Errorf("two bars are not drawn again together: %q", got)
	}
	for _, line := range strings.Split(out.String(), "\n") {
		if _, line, _ = strings.Cut(line, "\x1b[J"); utf8.RuneCountInString(line) >= defaultColumns {
			t.Errorf("a line of %d columns wraps", utf8.RuneCountInString(line))
		}
	}
	a.Done(nil)
	b.Done(nil)
	out.Reset()
	b.Done(nil)
	p.Begin("z", 0).Done(nil)
	if strings.Contains(out.String(), "A\r") {
		t.Errorf("ended bars are drawn again: %q", out.String())
	}
}

// check list: 24
func TestProgressLines(t *testing.T) {
	clock := time.Unix(0, 0)
	var out strings.Builder
	p := &progress{w: &out, now: func() time.Time { return clock }}
	x := p.Begin("x", -1)
	y := p.Begin("y", 4096)
	skip(x, 1024)
	clock = clock.Add(2 * time.Second)
	x.Add(4096)
	x.Done(nil)
	y.Done(errors.New("broken"))
	want := "fetching x\nfetching y (4.0KiB)\nfetched x: 5.0KiB, 2.0KiB/s\nfetching y failed after 0B\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestProgressStatus(t *testing.T) {
	clock := time.Unix(1000, 0)
	var states []string
	p := &progress{w: &strings.Builder{}, now: func() time.Time { return clock }, notify: func(s string) { states = append(states, s) }}
	x := p.Begin("x", 100)
	y := p.Begin("y", 1<<62)
	y.Add(1 << 61)
	clock = clock.Add(time.Second)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { x.Add(1) })
	}
	wg.Wait()
	if len(states) != 2 || !strings.HasPrefix(states[1], "STATUS=Fetching x: ") ||
		!strings.HasSuffix(states[1], " (and 1 more)\nEXTEND_TIMEOUT_USEC=90000000") {
		t.Errorf("%q", states)
	}
	x.Done(nil)
	clock = clock.Add(time.Second)
	y.Add(1)
	if want := "STATUS=Fetching y: 50% of 4.0EiB\nEXTEND_TIMEOUT_USEC=90000000"; states[2] != want {
		t.Errorf("%q, want %q", states[2], want)
	}
}

func TestLogLinesStayAboveTheBars(t *testing.T) {
	var out strings.Builder
	p := &progress{w: &out, terminal: true, now: func() time.Time { return time.Unix(0, 0) }}
	log := LogWriter(p, &out)
	if n, err := log.Write([]byte("early\n")); n != 6 || err != nil || out.String() != "early\n" {
		t.Errorf("%d, %v, %q", n, err, out.String())
	}
	x := p.Begin("x", 10)
	out.Reset()
	if _, err := log.Write([]byte("late\n")); err != nil || !strings.HasPrefix(out.String(), "\x1b[1A\r\x1b[Jlate\nx [") {
		t.Errorf("%v, %q", err, out.String())
	}
	x.Done(nil)
	if other := LogWriter(noProgress{}, &out); other != &out {
		t.Error("without bars there is something between")
	}
}
