package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	tests := []struct {
		name string
		in   []string
		want counts
		show []string // in the output
		hide []string // not in the output
	}{
		{
			name: "pass, skip and subtests",
			in: []string{
				`{"Action":"start","Package":"p"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}`,
				`{"Action":"pass","Package":"p","Test":"TestA/sub"}`,
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestB","Output":"    x.go:1: the reason\n"}`,
				`{"Action":"skip","Package":"p","Test":"TestB"}`,
				`{"Action":"pass","Package":"p","Elapsed":0.5}`,
			},
			want: counts{passed: 2, skipped: 1},
			show: []string{"ok   p 0.5s", "the reason"},
			hide: []string{"noise"},
		},
		{
			name: "a failure shows what the test wrote",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA","Output":"why\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"fail","Package":"p"}`,
			},
			want: counts{failed: 1},
			show: []string{"why", "FAIL p"},
		},
		{
			name: "a package that does not build is one failure",
			in: []string{
				`{"ImportPath":"p","Action":"build-output","Output":"x.go:1: undefined: y\n"}`,
				`{"Action":"fail","Package":"p","FailedBuild":"p"}`,
			},
			want: counts{failed: 1},
			show: []string{"undefined: y"},
		},
		{
			name: "lines of the go command pass through",
			in:   []string{`go: downloading something`, `{"Action":"pass","Package":"p"}`},
			show: []string{"go: downloading something"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			got, err := report(strings.NewReader(strings.Join(tt.in, "\n")), &out, false)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("counts %+v, want %+v", got, tt.want)
			}
			for _, s := range tt.show {
				if !strings.Contains(out.String(), s) {
					t.Errorf("%q is not in the output:\n%s", s, out.String())
				}
			}
			for _, s := range tt.hide {
				if strings.Contains(out.String(), s) {
					t.Errorf("%q is in the output:\n%s", s, out.String())
				}
			}
		})
	}
	if _, err := report(strings.NewReader(""), &strings.Builder{}, false); err == nil {
		t.Error("no input must be an error")
	}
}
