package cli

import (
	"strings"
	"testing"
)

func TestCheckNets(t *testing.T) {
	for values, want := range map[string]string{
		"": "netname must not be empty", "a,": "netname must not be empty", ":x=1": "netname must not be empty",
		"a,a": `found duplicate netname "a"`, "a|a:x=1": `found duplicate netname "a"`,
		"all:x=1": `special netname "all"`, "host:": `special netname "host"`, "none:x": `special netname "none"`,
		"a:x=1:2":         `network "a" provided with invalid arguments`,
		"a,b:x=1;y=2|all": "", "default": "", "host": "",
	} {
		err := checkNets(strings.Split(values, "|"))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", values, err, want)
		}
	}
	if err := checkNets(nil); err != nil {
		t.Error(err)
	}
}
