package abi

import (
	"reflect"
	"testing"
)

func TestVolumeOwners(t *testing.T) {
	m := map[string]string{"b": "app", "a": "idmap", "c": "host"}
	text := FormatVolumeOwners(m)
	if text != "a=idmap,b=app,c=host" {
		t.Errorf("formatted: %q", text)
	}
	if got, err := ParseVolumeOwners(text); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("parsed: %v, %v", got, err)
	}
	if got, err := ParseVolumeOwners(""); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
	for _, bad := range []string{",", "a", "a=", "=app", "a=app,a=app", "a=root", "a=app,", "a=APP"} {
		if got, err := ParseVolumeOwners(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}
