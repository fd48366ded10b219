package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/internal/appc"
)

// site serves pages by host and path and notes what was asked for.
type site struct {
	pages map[string]string // "https://host/path" or "http://…"
	codes map[string]int
	asked []string
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	at := strings.TrimSuffix(scheme+r.Host+r.URL.Path, "/")
	s.asked = append(s.asked, at)
	if r.URL.RawQuery != "ac-discovery=1" {
		http.Error(w, "bad query", http.StatusBadRequest)
		return
	}
	if code, ok := s.codes[at]; ok {
		w.WriteHeader(code)
		return
	}
	page, ok := s.pages[at]
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write([]byte(page))
}

// options lead every host to the site, over TLS and not.
func (s *site) options(t *testing.T) Options {
	t.Helper()
	secure, plain := httptest.NewTLSServer(s), httptest.NewServer(s)
	t.Cleanup(secure.Close)
	t.Cleanup(plain.Close)
	client := secure.Client()
	tr, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	tr.TLSClientConfig.ServerName = "example.com"
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		to := secure
		if strings.HasSuffix(addr, ":80") {
			to = plain
		}
		return (&net.Dialer{}).DialContext(ctx, network, to.Listener.Addr().String())
	}
	return Options{Get: func(ctx context.Context, url string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		return client.Do(req)
	}}
}

func meta(name, content string) string {
	return fmt.Sprintf("<html><head><meta name=%q content=%q></head></html>", name, content)
}

const tmpl = "https://example.com/{name}-{version}-{os}-{arch}.{ext}"

// check list: 40, 41
func TestDiscover(t *testing.T) {
	_, arch := appc.HostOSArch()
	latest := Endpoint{"https://example.com/example.com/a/b-latest-linux-" + arch + ".aci", "https://example.com/example.com/a/b-latest-linux-" + arch + ".aci.asc"}
	for _, c := range []struct {
		name   string
		page   string // of example.com/a
		image  string
		labels map[string]string
		want   []Endpoint
		err    string
	}{
		{name: "defaults", page: meta("ac-discovery", "example.com "+tmpl), want: []Endpoint{latest}},
		{name: "the whole name", page: meta("ac-discovery", "example.com/a/b "+tmpl), want: []Endpoint{latest}},
		{name: "upper case and spaces", page: "<HTML><HEAD><META NAME='AC-Discovery'\nCONTENT='  example.com \n " + tmpl + " '/>", want: []Endpoint{latest}},
		{name: "several", page: meta("x", "y")[:12] + `<meta name="ac-discovery" content="example.com https://a.org/{version}.{ext}">` +
			`<meta name="ac-discovery" content="example.com https://b.org/{unknown}.{ext}">` +
			`<meta name="ac-discovery" content="example.com/a https://c.org/{version}?s={channel}&e={ext}">`,
			labels: map[string]string{"version": "1/2 3", "channel": "a&b"},
			want: []Endpoint{{"https://a.org/1%2F2%203.aci", "https://a.org/1%2F2%203.aci.asc"},
				{"https://c.org/1%2F2%203?s=a%26b&e=aci", "https://c.org/1%2F2%203?s=a%26b&e=aci.asc"}}},
		{name: "half a component", page: meta("ac-discovery", "example.com/a/ba "+tmpl), err: "no meta tag"},
		{name: "letters of a component", page: meta("ac-discovery", "example.co "+tmpl), err: "no meta tag"},
		{name: "a longer prefix", page: meta("ac-discovery", "example.com/a/b/c "+tmpl), err: "no meta tag"},
		{name: "in a script", page: "<head><script>" + meta("ac-discovery", "example.com "+tmpl) + "</script>", err: "no meta tag"},
		{name: "in a comment", page: "<head><!-- " + meta("ac-discovery", "example.com "+tmpl) + "-->", err: "no meta tag"},
		{name: "in the body", page: "<head></head><body>" + meta("ac-discovery", "example.com "+tmpl), err: "no meta tag"},
		{name: "no ext", page: meta("ac-discovery", "example.com https://example.com/x"), err: "without {ext}"},
		{name: "another scheme", page: meta("ac-discovery", "example.com hdfs://example.com/x.{ext}"), err: `unsupported URL scheme "hdfs"`},
		{name: "http", page: meta("ac-discovery", "example.com http://example.com/x.{ext}"), err: "plain http is not allowed"},
		{name: "credentials", page: meta("ac-discovery", "example.com https://u:p@example.com/x.{ext}"), err: "credentials"},
		{name: "no host", page: meta("ac-discovery", "example.com https:///x.{ext}"), err: "no host"},
		{name: "loopback name", page: meta("ac-discovery", "example.com https://localhost:8080/x.{ext}"), err: "local host"},
		{name: "loopback", page: meta("ac-discovery", "example.com https://127.0.0.1/x.{ext}"), err: "local host"},
		{name: "loopback v6", page: meta("ac-discovery", "example.com https://[::1]/x.{ext}"), err: "local host"},
		{name: "mapped", page: meta("ac-discovery", "example.com https://[::ffff:127.0.0.1]/x.{ext}"), err: "local host"},
		{name: "link-local", page: meta("ac-discovery", "example.com https://169.254.169.254/x.{ext}"), err: "local host"},
		{name: "short form", page: meta("ac-discovery", "example.com https://127.1/x.{ext}"), err: "local host"},
		{name: "decimal", page: meta("ac-discovery", "example.com https://2130706433/x.{ext}"), err: "local host"},
		{name: "unspecified", page: meta("ac-discovery", "example.com https://0.0.0.0/x.{ext}"), err: "local host"},
		{name: "braces in a value", labels: map[string]string{"version": "{os}"}, err: "cannot stand in a URL"},
		{name: "dots as a value", labels: map[string]string{"version": ".."}, err: "cannot stand in a URL"},
		{name: "a lonely brace", page: meta("ac-discovery", "example.com https://example.com/{ext"), err: "brace"},
		{name: "a brace too many", page: meta("ac-discovery", "example.com https://example.com/}{ext}"), err: "brace"},
		{name: "a bad name", image: "example.com/../x", err: "bad name"},
		{name: "a deep name", image: "example.com" + strings.Repeat("/a", 40), err: "more than 32 parts"},
		{name: "no page", err: "404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &site{pages: map[string]string{}}
			if c.page != "" {
				s.pages["https://example.com/a"] = c.page
			}
			if c.image == "" {
				c.image = "example.com/a/b"
			}
			got, err := Discover(t.Context(), s.options(t), c.image, c.labels)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, %v; want the error %q", got, err, c.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%v, %v; want %v", got, err, c.want)
			}
			if !slices.Equal(s.asked, []string{"https://example.com/a/b", "https://example.com/a"}) {
				t.Errorf("asked for %v", s.asked)
			}
		})
	}
}

func TestLocalNameMayPointToLocalHost(t *testing.T) {
	s := &site{pages: map[string]string{"https://localhost": meta("ac-discovery", "localhost https://127.0.0.1:8443/{version}.{ext}")}}
	got, err := Discover(t.Context(), s.options(t), "localhost/a", nil)
	if err != nil || len(got) != 1 || got[0].Image != "https://127.0.0.1:8443/latest.aci" {
		t.Error(got, err)
	}
}

// check list: 42
func TestKeysAndImagesAreIndependent(t *testing.T) {
	s := &site{pages: map[string]string{
		"https://example.com/a/b": meta("ac-discovery", "example.com "+tmpl),
		"https://example.com/a":   meta("ac-discovery-pubkeys", "example.com/other https://example.com/no.asc"),
		"https://example.com": `<head><meta name="ac-discovery-pubkeys" content="example.com https://example.com/1.asc">` +
			`<meta name="ac-discovery-pubkeys" content="example.com/a https://example.com/2.asc">`,
	}}
	o := s.options(t)
	keys, err := DiscoverKeys(t.Context(), o, "example.com/a/b")
	if want := []string{"https://example.com/1.asc", "https://example.com/2.asc"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("%v, %v; want %v", keys, err, want)
	}
	s.asked = nil
	if _, err := Discover(t.Context(), o, "example.com/a/b", nil); err != nil || len(s.asked) != 1 {
		t.Errorf("%v, asked for %v", err, s.asked)
	}
	var none *NotFoundError
	if _, err := Discover(t.Context(), o, "example.com/x", nil); !errors.As(err, &none) || len(none.Attempts) != 2 {
		t.Error(err)
	}
}

// check list: 29
func TestHTTPOnlyWhenAllowedAndAfterHTTPS(t *testing.T) {
	s := &site{pages: map[string]string{"http://example.com": meta("ac-discovery", "example.com http://example.com/x.{ext}")}}
	o := s.options(t)
	if _, err := Discover(t.Context(), o, "example.com", nil); err == nil || len(s.asked) != 1 {
		t.Errorf("%v, asked for %v", err, s.asked)
	}
	s.asked = nil
	o.AllowHTTP, o.AllowHTTPResults = true, true
	got, err := Discover(t.Context(), o, "example.com", nil)
	if err != nil || got[0].Image != "http://example.com/x.aci" || !slices.Equal(s.asked, []string{"https://example.com", "http://example.com"}) {
		t.Errorf("%v, %v, asked for %v", got, err, s.asked)
	}
}

func TestServerErrorsAreReported(t *testing.T) {
	s := &site{
		pages: map[string]string{"https://example.com": meta("ac-discovery", "example.com "+tmpl)},
		codes: map[string]int{"https://example.com/a/b": 500, "https://example.com/a": 404},
	}
	o := s.options(t)
	var warned []string
	o.Warn = func(text string) { warned = append(warned, text) }
	if _, err := Discover(t.Context(), o, "example.com/a/b", nil); err != nil || len(warned) != 1 || !strings.Contains(warned[0], "500") {
		t.Error(err, warned)
	}
}

func TestLimits(t *testing.T) {
	many := strings.Repeat(`<meta name="ac-discovery" content="example.com https://example.com/x.{ext}">`, 1000)
	late := strings.Repeat("<p>", maxPage/3+1) + `<meta name="ac-discovery" content="example.com https://example.com/x.{ext}">`
	s := &site{pages: map[string]string{"https://example.com/many": many, "https://example.com/late": late}}
	o := s.options(t)
	if got, err := Discover(t.Context(), o, "example.com/many", nil); err != nil || len(got) != maxTags {
		t.Error(len(got), err)
	}
	if got, err := Discover(t.Context(), o, "example.com/late", nil); err == nil {
		t.Error("a tag after the limit counts", got)
	}
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(release)
	o.Timeout = 50 * time.Millisecond
	o.Get = func(ctx context.Context, _ string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, slow.URL, nil)
		if err != nil {
			return nil, err
		}
		return slow.Client().Do(req)
	}
	if _, err := Discover(t.Context(), o, "example.com/a/b/c", nil); err == nil || !strings.Contains(err.Error(), "longer than 50ms") {
		t.Error(err)
	}
}

func FuzzPage(f *testing.F) {
	f.Add(meta("ac-discovery", "example.com "+tmpl), "1.0")
	f.Add(`<meta name=ac-discovery content="example.com/a https://{name}/{ext}?{version}">`, "../..")
	f.Add("<script><meta></script><!--<meta name='ac-discovery'-->", "&")
	f.Fuzz(func(t *testing.T, page, version string) {
		tags, err := parsePage(strings.NewReader(page))
		if err != nil {
			return
		}
		vars, err := variables("example.com/a", map[string]string{"version": version})
		if err != nil {
			return
		}
		o := Options{AllowHTTPResults: true}
		for _, tag := range tags {
			if !covers(tag.prefix, "example.com/a") {
				continue
			}
			e, err := endpoint(tag.value, vars)
			if err != nil || o.checkResult("example.com/a", e.Image) != nil {
				continue
			}
			if !strings.HasPrefix(strings.ToLower(e.Image), "http") || e.Image == e.Signature {
				t.Errorf("%+v", e)
			}
		}
	})
}
