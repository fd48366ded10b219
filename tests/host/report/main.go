// Command report reads the output of "go test -json" from standard input,
// prints it for people, and adds what it counted to a file.
//
//	go test -json ./... | report [-v] [-counts FILE] [-failures FILE]
//
// A passing package is one line, two if tests took long: their names and times
// (without subtests). A failing test is shown with all it wrote. A
// package that fails without a failing test (it does not build, it panics)
// counts as one failure. One file gets one line, "PASSED FAILED SKIPPED", the
// other the names of what failed, with the first and last lines of each.
// Exit status 1: something failed, or nothing was read.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is one line of go test -json (see "go doc test2json").
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

type counts struct{ passed, failed, skipped int }

// run is what is known of the tests so far; its maps are by package, or by
// package and name of a test.
type run struct {
	counts
	out      io.Writer
	verbose  bool
	output   map[string][]string
	failures map[string]int     // failed tests of a package
	long     map[string][]event // ends of a package's tests that took long
	list     []string           // what failed: name and some of what it wrote
	parents  map[string]bool    // of subtests that failed
}

const (
	longTest  = 10 // seconds
	mostTests = 8
	// Of a failure, in the list of them: enough to tell why.
	firstLines, lastLines, longLine = 4, 6, 240
)

func main() {
	verbose := flag.Bool("v", false, "print every test's result")
	file := flag.String("counts", "", "file that gets the counts")
	failures := flag.String("failures", "", "file that gets what failed")
	flag.Parse()
	c, failed, err := report(os.Stdin, os.Stdout, *verbose)
	if err == nil && *file != "" {
		err = add(*file, fmt.Sprintf("%d %d %d\n", c.passed, c.failed, c.skipped))
	}
	if err == nil && *failures != "" && len(failed) > 0 {
		err = add(*failures, strings.Join(failed, ""))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "report: %v\n", err)
		os.Exit(1)
	}
	if c.failed > 0 {
		os.Exit(1)
	}
}

func report(in io.Reader, out io.Writer, verbose bool) (counts, []string, error) {
	c := run{out: out, verbose: verbose, output: map[string][]string{}, failures: map[string]int{}, long: map[string][]event{}, parents: map[string]bool{}}
	var events int
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
				fmt.Fprint(out, line) // not an event: what the go command itself says
			} else {
				events++
				c.take(e)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return c.counts, c.list, fmt.Errorf("reading test events: %w", err)
		}
	}
	if events == 0 {
		return c.counts, c.list, errors.New("no test event was read")
	}
	return c.counts, c.list, nil
}

func (c *run) take(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "output":
		c.output[key] = append(c.output[key], e.Output)
	case "build-output":
		fmt.Fprint(c.out, e.Output)
	case "pass", "skip", "fail":
		if e.Test == "" {
			c.endPackage(e, c.output[key])
			longest(c.out, c.long[e.Package])
			break
		}
		switch e.Action {
		case "pass":
			c.passed++
		case "skip":
			c.skipped++
		case "fail":
			c.failed++
			c.failures[e.Package]++
			c.fail(e, c.output[key])
		}
		switch {
		case e.Action == "fail":
			fmt.Fprint(c.out, strings.Join(c.output[key], ""))
		case c.verbose || e.Action == "skip":
			fmt.Fprint(c.out, strings.Join(results(c.output[key], e.Action == "skip"), ""))
		}
		delete(c.output, key)
		if e.Elapsed >= longTest && !strings.Contains(e.Test, "/") {
			c.long[e.Package] = append(c.long[e.Package], e)
		}
	}
}

// fail adds to the list of what failed, tests of which only subtests failed left out.
func (c *run) fail(e event, output []string) {
	key := e.Package + "\x00" + e.Test
	if i := strings.LastIndex(key, "/"); i > len(e.Package) {
		c.parents[key[:i]] = true
	}
	var lines []string
	for _, line := range strings.Split(strings.Join(output, ""), "\n") {
		if trimmed := strings.TrimSpace(line); trimmed == "" || strings.HasPrefix(trimmed, "=== ") || strings.HasPrefix(trimmed, "--- ") {
			continue
		}
		if len(line) > longLine {
			line = strings.ToValidUTF8(line[:longLine], "") + "…"
		}
		lines = append(lines, "     "+line+"\n")
	}
	if c.parents[key] && len(lines) == 0 {
		return
	}
	if len(lines) > firstLines+lastLines {
		lines = slices.Replace(lines, firstLines, len(lines)-lastLines, "     …\n")
	}
	c.list = append(c.list, strings.TrimSpace(e.Package+" "+e.Test)+"\n"+strings.Join(lines, ""))
}

func (c *run) endPackage(e event, output []string) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(c.out, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		if c.failures[e.Package] == 0 {
			c.failed++
			c.fail(e, output)
			fmt.Fprint(c.out, strings.Join(output, ""))
		}
		fmt.Fprintf(c.out, "FAIL %s %.1fs\n", e.Package, e.Elapsed)
	}
}

func longest(out io.Writer, long []event) {
	if len(long) == 0 {
		return
	}
	slices.SortStableFunc(long, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	var names []string
	for _, t := range long[:min(len(long), mostTests)] {
		names = append(names, fmt.Sprintf("%s %.0fs", t.Test, t.Elapsed))
	}
	fmt.Fprintf(out, "     longest: %s\n", strings.Join(names, ", "))
}

// results keeps the result lines of a test's output; with reasons, all but the
// line that says it started.
func results(output []string, reasons bool) []string {
	var kept []string
	for _, line := range output {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "--- ") || (reasons && !strings.HasPrefix(trimmed, "=== ")) {
			kept = append(kept, line)
		}
	}
	return kept
}

// add appends to a file.
func add(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("adding what was found: %w", err)
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
