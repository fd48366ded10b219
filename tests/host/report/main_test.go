package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	tests := []struct {
		name string
		in   []string
		want counts
		list []string // what failed
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
			name: "tests that took long",
			in: []string{
				`{"Action":"pass","Package":"p","Test":"TestA","Elapsed":11}`,
				`{"Action":"pass","Package":"p","Test":"TestB/sub","Elapsed":29}`,
				`{"Action":"pass","Package":"p","Test":"TestB","Elapsed":30.4}`,
				`{"Action":"pass","Package":"p","Test":"TestC","Elapsed":9}`,
				`{"Action":"pass","Package":"p","Elapsed":50}`,
				`{"Action":"pass","Package":"q","Elapsed":1}`,
			},
			want: counts{passed: 4},
			show: []string{"ok   p 50.0s\n     longest: TestB 30s, TestA 11s\nok   q 1.0s\n"},
		},
		{
			name: "a failure shows what the test wrote",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"why\n"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"--- FAIL: TestA (0.00s)\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"fail","Package":"p"}`,
			},
			want: counts{failed: 1},
			list: []string{"p TestA\n     why\n"},
			show: []string{"why", "FAIL p"},
		},
		{
			name: "of a test of which subtests fail the list has those, unless it has something to say itself",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA/sub","Output":"a\nb\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestA/sub"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"fail","Package":"p","Test":"TestB/sub"}`,
				`{"Action":"output","Package":"p","Test":"TestB","Output":"own\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestB"}`,
			},
			want: counts{failed: 4},
			list: []string{"p TestA/sub\n     a\n     b\n", "p TestB/sub\n", "p TestB\n     own\n"},
		},
		{
			name: "the list has the first and last lines",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA","Output":"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
			},
			want: counts{failed: 1},
			list: []string{"p TestA\n     1\n     2\n     3\n     4\n     …\n     7\n     8\n     9\n     10\n     11\n     12\n"},
		},
		{
			name: "a package that does not build is one failure",
			in: []string{
				`{"ImportPath":"p","Action":"build-output","Output":"x.go:1: undefined: y\n"}`,
				`{"Action":"fail","Package":"p","FailedBuild":"p"}`,
			},
			want: counts{failed: 1},
			list: []string{"p\n"},
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
			got, list, err := report(strings.NewReader(strings.Join(tt.in, "\n")), &out, false)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("counts %+v, want %+v", got, tt.want)
			}
			if !slices.Equal(list, tt.list) {
				t.Errorf("failed: %q, want %q", list, tt.list)
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
	if _, _, err := report(strings.NewReader(""), &strings.Builder{}, false); err == nil {
		t.Error("no input must be an error")
	}
}
