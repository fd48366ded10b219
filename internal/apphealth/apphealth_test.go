package apphealth

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDecodeIsTheInverse(t *testing.T) {
	for _, c := range []Check{{None: true}, {Notify: true}, {TCP: "6379", Retries: 5}, {Action: ActionRestartApp},
		{Exec: []string{"/bin/x", "a b", ""}, Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: 3 * time.Second, StartInterval: 4 * time.Second, Action: ActionRestartPod},
		{HTTP: "http://:8080/x?y=z"}} {
		got, err := Decode(Encode(&c))
		if err != nil || !reflect.DeepEqual(*got, c) {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
	for _, bad := range []string{``, `[]`, `{"exec":"x"}`, `{"exec":[1]}`, `{"interval":"1"}`, `{"retries":-1}`, `{"x":1}`, `{"tcp":"0"}`, `{"interval":1}`} {
		if c, err := Decode(bad); err == nil {
			t.Errorf("%s: %+v", bad, c)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		text string
		want Target
	}{
		{"6379", Target{"", 6379, ""}}, {":6379", Target{"", 6379, ""}}, {"127.0.0.1:1", Target{"127.0.0.1", 1, ""}}, {"[::1]:80", Target{"::1", 80, ""}},
		{"http://:8080/x", Target{"", 8080, "/x"}}, {"http://localhost", Target{"", 80, "/"}}, {"http://[::1]/", Target{"::1", 80, "/"}},
		{"http://10.0.0.1:81/a?b=c", Target{"10.0.0.1", 81, "/a?b=c"}},
	} {
		parse := ParseTCP
		if strings.HasPrefix(c.text, "http") {
			parse = ParseHTTP
		}
		if got, err := parse(c.text); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.text, got, err)
		}
	}
	for _, bad := range []string{"", "0", "65536", "x:1", ":", "1.2.3:4", "fe80::1%lo:80", "http://", "http://:0/", "http://example.com/", "https://:1/", "ftp://:1/", "http://:1/a b", "http://:1/\r\nX: y", "http://:1?x", "http://:1/#x", "http://user@:1/"} {
		parse := ParseTCP
		if strings.Contains(bad, "://") {
			parse = ParseHTTP
		}
		if got, err := parse(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestFromImage(t *testing.T) {
	for _, c := range []struct {
		text string
		want *Check
	}{
		{`{}`, nil}, {`{"Test":[]}`, nil}, {`{"Test":[""]}`, nil}, {`{"Test":["NONE"]}`, &Check{None: true}},
		{`{"Test":["CMD","/x","y"],"Interval":1000000000,"Timeout":2000000000,"Retries":4}`, &Check{Exec: []string{"/x", "y"}, Interval: time.Second, Timeout: 2 * time.Second, Retries: 4}},
		{`{"Test":["CMD-SHELL","a || b"],"StartPeriod":5000000000,"StartInterval":1}`, &Check{Exec: []string{"/bin/sh", "-c", "a || b"}, StartPeriod: 5 * time.Second, StartInterval: MinTime}},
		{`{"Test":["CMD","x"],"Interval":9223372036854775807,"Retries":99999999}`, &Check{Exec: []string{"x"}, Interval: MaxTime, Retries: MaxRetries}},
		{`{"Test":["CMD","x"],"Interval":-5,"Retries":-1,"Timeout":1e99}`, &Check{Exec: []string{"x"}}},
	} {
		got, err := FromImage(c.text)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", c.text, got, err)
		}
	}
	for _, bad := range []string{``, `[]`, `{"Test":["CMD"]}`, `{"Test":["CMD-SHELL"]}`, `{"Test":["WHAT","x"]}`, `{"Test":[1]}`, `{"Test":["CMD","a\u0000"]}`, `{"Test":["CMD",""]}`} {
		if got, err := FromImage(bad); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

func TestComplete(t *testing.T) {
	image := &Check{Exec: []string{"x"}, Interval: time.Minute, Retries: 7}
	got := Check{Interval: time.Second, Action: ActionRestartApp}.Complete(image)
	if want := (Check{Exec: []string{"x"}, Interval: time.Second, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 7, Action: ActionRestartApp}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	// a kind of its own takes nothing of the image's
	if got := (Check{TCP: "1"}).Complete(image); got.Interval != 30*time.Second || got.Retries != 3 || got.Exec != nil || got.Action != ActionNone {
		t.Errorf("%+v", got)
	}
}

func FuzzFromImage(f *testing.F) {
	f.Add(`{"Test":["CMD-SHELL","x"],"Interval":1}`)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := FromImage(s)
		if err == nil && c != nil {
			if _, err := Decode(Encode(c)); err != nil {
				t.Errorf("%q: %+v: %v", s, c, err)
			}
		}
	})
}
