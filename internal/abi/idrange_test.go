package abi

import "testing"

func TestIDRange(t *testing.T) {
	r, err := ParseIDRange("1879113728:65536")
	if err != nil || r != (IDRange{1879113728, 65536}) || r.String() != "1879113728:65536" {
		t.Fatalf("%v, %v", r, err)
	}
	for _, bad := range []string{"", ":", "1", "0:65536", "65536:0", "-1:65536", "65536:65536:1", "a:b", " 65536:65536", "2147483647:2", "4294967295:1", "1:99999999999"} {
		if got, err := ParseIDRange(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
	if out, ok := r.Outside(65535); out != 1879113728+65535 || !ok {
		t.Errorf("65535 is %d, %v", out, ok)
	}
	if _, ok := r.Outside(65536); ok {
		t.Error("65536 is in the range")
	}
	if in, ok := r.Inside(1879113728 + 7); in != 7 || !ok {
		t.Errorf("inside: %d, %v", in, ok)
	}
	for _, id := range []uint32{0, 65534, 1879113727, 1879113728 + 65536} {
		if _, ok := r.Inside(id); ok {
			t.Errorf("%d is in the range", id)
		}
	}
	if id, ok := (IDRange{}).Inside(7); id != 7 || !ok {
		t.Errorf("without a namespace 7 is %d, %v", id, ok)
	}
}

func FuzzIDRange(f *testing.F) {
	f.Add("65536:65536")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseIDRange(s)
		if err != nil {
			return
		}
		if again, err := ParseIDRange(r.String()); err != nil || again != r || uint64(r.Shift)+uint64(r.Count) > 1<<31 {
			t.Errorf("%q: %v, %v, %v", s, r, again, err)
		}
	})
}
