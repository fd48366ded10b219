package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/klauspost/compress/gzip"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// Programs that decompress gzip faster than Go does, the fastest first. They
// are looked for where only root installs programs.
var (
	gunzipPrograms = [...]string{"igzip", "pigz"}
	programDirs    = [...]string{"/usr/bin", "/usr/local/bin", "/bin"}
)

const (
	// smallGzip is too little for a process of its own.
	smallGzip = 128 << 10
	// nobody owns nothing: the decompressor reads what an enemy may have made.
	nobody = 65534
	// pipeSize is the largest an ordinary user may ask for.
	pipeSize = 1 << 20
)

// gunzip decompresses a gzip stream in a process of its own if a fast program
// is installed and the stream is worth it, else in this one.
func gunzip(br *bufio.Reader) (io.ReadCloser, error) {
	if head, err := br.Peek(smallGzip); err != nil || len(head) < smallGzip {
		return gzip.NewReader(br)
	}
	program := findGunzip()
	if program == "" {
		return gzip.NewReader(br)
	}
	g, err := startGunzip(program, br)
	if err != nil { // no right to start or to give up rights: the slow way is as good
		return gzip.NewReader(br)
	}
	return g, nil
}

func findGunzip() string {
	for _, name := range gunzipPrograms {
		for _, dir := range programDirs {
			path := filepath.Join(dir, name)
			if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return path
			}
		}
	}
	return ""
}

// gunzipProcess is a decompressor under way.
type gunzipProcess struct {
	cmd     *exec.Cmd
	out     *os.File
	stderr  bytes.Buffer
	fed     chan struct{} // closed when the input is at its end
	feedErr error
	tail    []byte // the input's last bytes
	in, n   int64
	err     error // sticky
	closed  bool
}

func startGunzip(program string, in io.Reader) (*gunzipProcess, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		inW.Close()
		return nil, err
	}
	sys.SetPipeSize(inW, pipeSize)
	sys.SetPipeSize(outR, pipeSize)
	g := &gunzipProcess{out: outR, fed: make(chan struct{})}
	g.cmd = &exec.Cmd{
		Path: program, Args: []string{filepath.Base(program), "-dc"}, Dir: "/",
		Env: []string{"LC_ALL=C"}, Stdin: inR, Stdout: outW, Stderr: &limitedWriter{&g.stderr, 4096},
		SysProcAttr: &syscall.SysProcAttr{},
	}
	if os.Geteuid() == 0 {
		g.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	err = g.cmd.Start()
	inR.Close()
	outW.Close()
	if err != nil {
		inW.Close()
		outR.Close()
		return nil, err
	}
	go g.feed(in, inW)
	return g, nil
}

type limitedWriter struct {
	w io.Writer
	n int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	keep := min(len(p), l.n)
	l.n -= keep
	if _, err := l.w.Write(p[:keep]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// feed gives the process its input. When the process wants no more, the rest
// is read all the same: others look at these bytes, too.
func (g *gunzipProcess) feed(in io.Reader, to *os.File) {
	defer close(g.fed)
	buf := make([]byte, pipeChunk)
	open := true
	for {
		n, err := in.Read(buf)
		g.in += int64(n)
		g.keepTail(buf[:n])
		if n > 0 && open {
			if _, werr := to.Write(buf[:n]); werr != nil {
				open = false
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				g.feedErr = err
			}
			to.Close()
			return
		}
	}
}

func (g *gunzipProcess) keepTail(b []byte) {
	const size = 8
	if len(b) >= size {
		g.tail = append(g.tail[:0], b[len(b)-size:]...)
		return
	}
	g.tail = append(g.tail, b...)
	g.tail = g.tail[max(0, len(g.tail)-size):]
}

func (g *gunzipProcess) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.out.Read(p)
	g.n += int64(n)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = g.finish()
		}
		g.err = err
	}
	return n, err
}

// doubtful says that the stream's last member says another length than was
// decompressed: there are several members, or garbage follows the last. The
// programs do not tell the two apart.
func (g *gunzipProcess) doubtful() bool {
	return len(g.tail) < 8 || binary.LittleEndian.Uint32(g.tail[4:]) != uint32(g.n) //nolint:gosec // modulo 2^32, as RFC 1952 says
}

// checkGzip reads a gzip stream to its end in this process, which is strict.
func checkGzip(r io.Reader) error {
	z, err := gzip.NewReader(bufio.NewReaderSize(r, pipeChunk))
	if err == nil {
		_, err = io.Copy(io.Discard, z)
	}
	if err != nil {
		return fmt.Errorf("decompressing gzip data: %w", err)
	}
	return nil
}

// finish says how the process ended: io.EOF if all is well.
func (g *gunzipProcess) finish() error {
	<-g.fed
	g.closed = true
	err := errors.Join(g.cmd.Wait(), g.out.Close())
	switch {
	case g.feedErr != nil:
		return g.feedErr
	case err != nil:
		return fmt.Errorf("decompressing gzip data: %w (%s)", err, bytes.TrimSpace(g.stderr.Bytes()))
	}
	return io.EOF
}

// Close ends the process. Its input must end by itself, or with its context.
func (g *gunzipProcess) Close() error {
	if g.closed {
		return nil
	}
	g.closed = true
	g.out.Close()
	g.cmd.Process.Kill() //nolint:errcheck // it may have ended already
	<-g.fed
	g.cmd.Wait() //nolint:errcheck // killed
	return nil
}
