package image

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/term"
)

// Progress is told of transfers; several may be under way at once.
type Progress interface {
	// Begin announces a transfer; total < 0 means that its size is unknown.
	Begin(what string, total int64) Transfer
}

// Transfer is one transfer under way; safe for concurrent use.
type Transfer interface {
	Add(n int64)
	Done(err error)
}

// skipper is a Transfer that can be told of bytes that are there already, so
// that they do not count for its rate.
type skipper interface{ skip(n int64) }

func skip(t Transfer, n int64) {
	if s, ok := t.(skipper); ok {
		s.skip(n)
	} else {
		t.Add(n)
	}
}

type noProgress struct{}

func (noProgress) Begin(string, int64) Transfer { return noProgress{} }
func (noProgress) Add(int64)                    {}
func (noProgress) Done(error)                   {}

type progressWriter struct{ t Transfer }

func (w progressWriter) Write(b []byte) (int, error) {
	w.t.Add(int64(len(b)))
	return len(b), nil
}

const (
	barEvery    = 100 * time.Millisecond
	notifyEvery = time.Second
	// extendBy outlives the time between two notifications by far.
	extendBy = 90 * time.Second
	// maxBars bounds how many lines are redrawn: they must fit the screen.
	maxBars = 8
	// minColumns keep a bar readable, defaultColumns fit a terminal of unknown size.
	minColumns, defaultColumns = 40, 80
)

// NewProgress shows progress on w: on a terminal a bar per transfer, else
// plain lines. Under a service manager, told of by notifySocket
// ($NOTIFY_SOCKET), it also keeps the unit's status current and its start from
// timing out.
func NewProgress(w io.Writer, terminal bool, notifySocket string) Progress {
	p := &progress{w: w, terminal: terminal, now: time.Now}
	if notifySocket != "" {
		p.notify = func(state string) {
			// A manager that does not listen is no reason to stop.
			_, _ = daemon.SdNotify(false, state)
		}
	}
	return p
}

type progress struct {
	w        io.Writer
	terminal bool
	notify   func(state string) // nil without a manager
	now      func() time.Time

	mu       sync.Mutex
	active   []*transfer
	lines    int // of the last drawing, above the cursor
	drawn    time.Time
	notified time.Time
}

type transfer struct {
	p       *progress
	what    string
	total   int64
	done    int64
	skipped int64
	begun   time.Time
}

func (p *progress) Begin(what string, total int64) Transfer {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &transfer{p: p, what: what, total: total, begun: p.now()}
	p.active = append(p.active, t)
	if !p.terminal {
		fmt.Fprintf(p.w, "fetching %s%s\n", clip(what, 200), ofSize(total))
	}
	p.update()
	return t
}

func (t *transfer) Add(n int64) { t.add(n, 0) }

func (t *transfer) skip(n int64) { t.add(n, n) }

func (t *transfer) add(n, skipped int64) {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	t.done += n
	t.skipped += skipped
	t.p.update()
}

// Done ends the transfer; a second call has no effect.
func (t *transfer) Done(err error) {
	p := t.p
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.active, t)
	if i < 0 {
		return
	}
	p.active = slices.Delete(p.active, i, i+1)
	switch {
	case p.terminal:
		p.draw(t)
	case err != nil:
		fmt.Fprintf(p.w, "fetching %s failed after %s\n", clip(t.what, 200), Size(t.done))
	default:
		fmt.Fprintf(p.w, "fetched %s: %s, %s/s\n", clip(t.what, 200), Size(t.done), Size(int64(t.rate())))
	}
}

func (p *progress) update() {
	now := p.now()
	if p.terminal && now.Sub(p.drawn) >= barEvery {
		p.draw(nil)
	}
	if p.notify != nil && now.Sub(p.notified) >= notifyEvery && len(p.active) > 0 {
		p.notified = now
		t, more := p.active[0], ""
		if n := len(p.active) - 1; n > 0 {
			more = fmt.Sprintf(" (and %d more)", n)
		}
		p.notify(fmt.Sprintf("STATUS=Fetching %s: %s%s\nEXTEND_TIMEOUT_USEC=%d",
			clip(t.what, 200), t.amount(), more, extendBy.Microseconds()))
	}
}

// draw draws the bars again, all together. The line of a transfer that just
// ended stays above them.
func (p *progress) draw(ended *transfer) {
	p.drawn = p.now()
	var b strings.Builder
	if p.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.lines)
	}
	if p.lines > 0 {
		b.WriteString("\r\x1b[J")
	}
	width := p.columns()
	if ended != nil {
		b.WriteString(ended.line(width) + "\n")
	}
	p.lines = min(len(p.active), maxBars)
	for _, t := range p.active[:p.lines] {
		b.WriteString(t.line(width) + "\n")
	}
	_, _ = io.WriteString(p.w, b.String())
}

// LogWriter keeps lines written to w, the terminal that p draws on, above the
// bars: drawing again would wipe them out.
func LogWriter(p Progress, w io.Writer) io.Writer {
	if bars, ok := p.(*progress); ok && bars.terminal {
		return &logWriter{bars, w}
	}
	return w
}

type logWriter struct {
	p *progress
	w io.Writer
}

func (l *logWriter) Write(line []byte) (int, error) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.p.lines > 0 {
		fmt.Fprintf(l.p.w, "\x1b[%dA\r\x1b[J", l.p.lines)
		l.p.lines = 0
		defer l.p.draw(nil)
	}
	return l.w.Write(line)
}

func (p *progress) columns() int {
	if f, ok := p.w.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return max(w, minColumns)
		}
	}
	return defaultColumns
}

// rate is the bytes per second since the beginning.
func (t *transfer) rate() float64 {
	elapsed := t.p.now().Sub(t.begun).Seconds()
	if elapsed <= 0 {
		return 0
	}
	return float64(t.done-t.skipped) / elapsed
}

func (t *transfer) amount() string {
	if t.total > 0 {
		return fmt.Sprintf("%d%% of %s", t.percent(), Size(t.total))
	}
	return Size(t.done)
}

// percent is at most 100 and does not overflow, whatever a server claims.
func (t *transfer) percent() int64 {
	return int64(min(100, float64(t.done)/float64(t.total)*100))
}

// line is what a terminal shows of a transfer; it never wraps, for wrapped
// lines cannot be redrawn.
func (t *transfer) line(columns int) string {
	const bar = 16
	rate := t.rate()
	text := fmt.Sprintf("%7s %7s/s", Size(t.done), Size(int64(rate)))
	if t.total > 0 {
		full := int(t.percent() * bar / 100)
		text = fmt.Sprintf("[%s%s] %s of %s %s/s", strings.Repeat("=", full), strings.Repeat(" ", bar-full),
			Size(t.done), Size(t.total), Size(int64(rate)))
		if left := t.total - t.done; left > 0 && rate > 0 {
			// A day stands for all that is longer.
			seconds := min(float64(left)/rate, 24*60*60)
			text += " " + (time.Duration(seconds) * time.Second).String() + " left"
		}
	}
	room := columns - len(text) - 2
	if room < 4 {
		return text[:min(len(text), columns-1)]
	}
	return clip(t.what, min(room, 60)) + " " + text
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
