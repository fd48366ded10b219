// Command httpd is a web server for tests, with the faults of real ones. It
// serves the files of a directory, also ranges of them.
//
//	httpd ADDRESS DIRECTORY [tls]
//
// Files beside FILE say how it is served:
//
//	FILE.cut     an offset: what comes after it is never sent, the connection breaks off there
//	FILE.slow    a duration: the pause after every 64 KiB
//	FILE.status  an HTTP status
//	FILE.type    its Content-Type
//
// Directories are empty answers, so that a directory can be a registry.
//
// Every request is a line on standard output: method, path, range or "-", bytes sent. With "tls" it has a
// certificate that nobody knows.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const chunk = 64 << 10

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: httpd ADDRESS DIRECTORY [tls]")
		os.Exit(64)
	}
	l, err := net.Listen("tcp", os.Args[1])
	if err == nil && len(os.Args) > 3 {
		l, err = secured(l)
	}
	if err == nil {
		fmt.Println("serving")
		err = (&http.Server{Handler: &server{os.Args[2]}, ReadHeaderTimeout: time.Minute}).Serve(l)
	}
	fmt.Fprintln(os.Stderr, "httpd:", err)
	os.Exit(1)
}

func secured(l net.Listener) (net.Listener, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(host)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}), nil
}

type server struct{ dir string }

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := filepath.Join(s.dir, filepath.FromSlash(filepath.Clean("/"+r.URL.Path)))
	out := &faulty{ResponseWriter: w, cut: -1}
	defer func() {
		asked := r.Header.Get("Range")
		if asked == "" {
			asked = "-"
		}
		fmt.Println(r.Method, r.URL.Path, asked, out.sent)
		if out.broken {
			panic(http.ErrAbortHandler) // the connection is closed where it stands
		}
	}()
	if n, err := strconv.Atoi(setting(path + ".status")); err == nil {
		http.Error(out, http.StatusText(n), n)
		return
	}
	if n, err := strconv.ParseInt(setting(path+".cut"), 10, 64); err == nil {
		out.cut = n
		if from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
			from, _, _ = strings.Cut(from, "-")
			if start, err := strconv.ParseInt(from, 10, 64); err == nil {
				out.cut = max(n-start, 0)
			}
		}
	}
	if d, err := time.ParseDuration(setting(path + ".slow")); err == nil {
		out.pause = d
	}
	f, err := os.Open(path)
	if err != nil {
		http.Error(out, "no such file", http.StatusNotFound)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		http.Error(out, "no such file", http.StatusNotFound)
		return
	}
	if st.IsDir() {
		fmt.Fprintln(out, "{}")
		return
	}
	if t := setting(path + ".type"); t != "" {
		out.Header().Set("Content-Type", t)
	}
	out.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, st.Size(), st.ModTime().UnixNano()))
	http.ServeContent(out, r, "", st.ModTime(), f)
}

func setting(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// faulty sends as slowly and as much as it is told. It hides what else the
// ResponseWriter can do, so that everything goes through Write.
type faulty struct {
	http.ResponseWriter
	cut    int64 // how many bytes at most, if not below 0
	pause  time.Duration
	sent   int64
	broken bool
}

func (f *faulty) Write(b []byte) (int, error) {
	done := 0
	for len(b) > 0 {
		part := b[:min(len(b), chunk)]
		if f.cut >= 0 {
			part = part[:min(int64(len(part)), f.cut-f.sent)]
		}
		n, err := f.ResponseWriter.Write(part)
		done, f.sent, b = done+n, f.sent+int64(n), b[n:]
		if fl, ok := f.ResponseWriter.(http.Flusher); ok {
			fl.Flush()
		}
		if err != nil {
			return done, err
		}
		if f.cut >= 0 && f.sent >= f.cut {
			f.broken = true
			return done, io.ErrClosedPipe
		}
		if f.pause > 0 {
			time.Sleep(f.pause)
		}
	}
	return done, nil
}
