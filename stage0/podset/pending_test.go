package podset

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMerge(t *testing.T) {
	const web, sock = "rkt@web.service", "rkt@web.socket"
	for name, c := range map[string]struct{ left, next, want []Action }{
		"nothing":                  {},
		"of another unit":          {[]Action{{"stop", "rkt@old.service"}}, []Action{{"start", web}}, []Action{{"stop", "rkt@old.service"}, {"start", web}}},
		"nothing new":              {[]Action{{"stop", web}}, nil, []Action{{"stop", web}}},
		"the same":                 {[]Action{{"start", web}, {"try-restart", sock}}, []Action{{"start", web}}, []Action{{"try-restart", sock}, {"start", web}}},
		"removed meanwhile":        {[]Action{{"try-restart", web}, {"start", web}}, []Action{{"stop", web}}, []Action{{"stop", web}}},
		"back, and to be started":  {[]Action{{"stop", web}}, []Action{{"start", web}}, []Action{{"stop", web}, {"start", web}}},
		"back while it still runs": {[]Action{{"stop", web}}, []Action{{"try-restart", web}}, []Action{{"try-restart", web}}},
		"stopped for its socket": {[]Action{{"stop", web}, {"try-restart", sock}, {"start", web}}, []Action{{"try-restart", web}},
			[]Action{{"stop", web}, {"try-restart", sock}, {"start", web}, {"try-restart", web}}},
	} {
		if d := cmp.Diff(c.want, Merge(c.left, c.next)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
