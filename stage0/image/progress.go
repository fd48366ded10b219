package image

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Progress is told how a transfer goes on. One at a time.
type Progress interface {
	Start(what string, total int64) // total < 0: unknown
	Add(n int64)
	Done()
}

type noProgress struct{}

func (noProgress) Start(string, int64) {}
func (noProgress) Add(int64)           {}
func (noProgress) Done()               {}

type progressWriter struct{ p Progress }

func (w progressWriter) Write(b []byte) (int, error) {
	w.p.Add(int64(len(b)))
	return len(b), nil
}

const (
	barEvery    = 100 * time.Millisecond
	notifyEvery = time.Second
	// extendBy outlives the time between two notifications by far.
	extendBy = 90 * time.Second
)

// NewProgress shows progress on w: a bar if it is a terminal, else one line
// per transfer. Under a service manager, told of by notifySocket
// ($NOTIFY_SOCKET), it also keeps the unit's status current and its start from
// timing out.
func NewProgress(w io.Writer, terminal bool, notifySocket string) Progress {
	return &progress{w: w, terminal: terminal, notify: notifySocket != "", now: time.Now}
}

type progress struct {
	w        io.Writer
	terminal bool
	notify   bool
	now      func() time.Time

	mu       sync.Mutex
	what     string
	total    int64
	done     int64
	begun    time.Time
	drawn    time.Time
	notified time.Time
}

func (p *progress) Start(what string, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.total, p.done = what, total, 0
	p.begun, p.drawn, p.notified = p.now(), time.Time{}, time.Time{}
	if !p.terminal {
		fmt.Fprintf(p.w, "fetching %s%s\n", clip(what, 200), ofSize(total))
	}
	p.update()
}

func (p *progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	p.update()
}

func (p *progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		p.draw()
		fmt.Fprintln(p.w)
	}
}

func (p *progress) update() {
	now := p.now()
	if p.terminal && now.Sub(p.drawn) >= barEvery {
		p.drawn = now
		p.draw()
	}
	if p.notify && now.Sub(p.notified) >= notifyEvery {
		p.notified = now
		// A manager that does not listen is no reason to stop.
		_, _ = daemon.SdNotify(false, fmt.Sprintf("STATUS=Fetching %s: %s\nEXTEND_TIMEOUT_USEC=%d",
			clip(p.what, 200), p.amount(), extendBy.Microseconds()))
	}
}

func (p *progress) amount() string {
	if p.total > 0 {
		return fmt.Sprintf("%d%% of %s", min(100, p.done*100/p.total), Size(p.total))
	}
	return Size(p.done)
}

func (p *progress) draw() {
	const width = 24
	elapsed := p.now().Sub(p.begun).Seconds()
	rate := 0.0
	if elapsed > 0 {
		rate = float64(p.done) / elapsed
	}
	line := fmt.Sprintf("%s %9s/s", Size(p.done), Size(int64(rate)))
	if p.total > 0 {
		full := int(min(p.done, p.total) * width / p.total)
		line = fmt.Sprintf("[%s%s] %9s of %s %9s/s", strings.Repeat("=", full), strings.Repeat(" ", width-full),
			Size(p.done), Size(p.total), Size(int64(rate)))
		if left := p.total - p.done; left > 0 && rate > 0 {
			line += " " + (time.Duration(float64(left)/rate) * time.Second).String() + " left"
		}
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s %s", clip(p.what, 40), line)
}

func ofSize(total int64) string {
	if total < 0 {
		return ""
	}
	return " (" + Size(total) + ")"
}

// Size writes a number of bytes for people: 12MiB.
func Size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < 6 {
		f /= 1024
		unit++
	}
	digits := 0
	if f < 10 {
		digits = 1
	}
	return fmt.Sprintf("%.*f%ciB", digits, f, "BKMGTPE"[unit])
}

// clip keeps the end of a long text, and control characters off terminals.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > n {
		return "..." + string(r[len(r)-n+3:])
	}
	return s
}
