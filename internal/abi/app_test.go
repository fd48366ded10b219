package abi

import (
	"slices"
	"strings"
	"testing"
)

func TestAppRoundTrip(t *testing.T) {
	for _, c := range []struct {
		a    App
		want string
	}{
		{App{App: "web"}, "--debug=false --app=web"},
		{App{App: "web", Debug: true, UUID: "u"}, "--debug=true --uuid=u --app=web"},
	} {
		if got := strings.Join(c.a.Args(), " "); got != c.want {
			t.Errorf("Args() = %q, want %q", got, c.want)
		}
		if got, err := ParseApp(c.a.Args()); err != nil || got != c.a {
			t.Errorf("ParseApp(%q) = %+v, %v", c.a.Args(), got, err)
		}
	}
	if a, err := ParseApp([]string{"--debug", "--app=x"}); err != nil || !a.Debug {
		t.Errorf("--debug alone: %+v, %v", a, err)
	}
	for _, bad := range []string{"", "--app=", "--debug=maybe --app=a", "--app=a more", "--app=a --force"} {
		if got, err := ParseApp(strings.Fields(bad)); err == nil {
			t.Errorf("ParseApp(%q) = %+v, want an error", bad, got)
		}
	}
}

func FuzzParseApp(f *testing.F) {
	f.Add("--debug=true --uuid=u --app=web")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseApp(strings.Fields(s))
		if err != nil {
			return
		}
		again, err := ParseApp(a.Args())
		if err != nil || again != a || slices.Contains(a.Args(), "") {
			t.Errorf("%q: %+v, then %+v, %v", s, a, again, err)
		}
	})
}
