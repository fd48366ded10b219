// Command report reads the output of "go test -json" from standard input,
// prints it for people, and adds what it counted to a file.
//
//	go test -json ./... | report [-v] [-counts FILE]
//
// A passing package is one line; a failing test is shown with all it wrote. A
// package that fails without a failing test (it does not build, it panics)
// counts as one failure. The file gets one line, "PASSED FAILED SKIPPED".
// Exit status 1: something failed, or nothing was read.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
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

func main() {
	verbose := flag.Bool("v", false, "print every test's result")
	file := flag.String("counts", "", "file that gets the counts")
	flag.Parse()
	c, err := report(os.Stdin, os.Stdout, *verbose)
	if err == nil && *file != "" {
		err = appendCounts(*file, c)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "report: %v\n", err)
		os.Exit(1)
	}
	if c.failed > 0 {
		os.Exit(1)
	}
}

func report(in io.Reader, out io.Writer, verbose bool) (counts, error) {
	var c counts
	var events int
	output := map[string][]string{} // of a test, by package and name
	failures := map[string]int{}    // failed tests of a package
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
				fmt.Fprint(out, line) // not an event: what the go command itself says
			} else {
				events++
				c.take(e, out, verbose, output, failures)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return c, fmt.Errorf("reading test events: %w", err)
		}
	}
	if events == 0 {
		return c, errors.New("no test event was read")
	}
	return c, nil
}

func (c *counts) take(e event, out io.Writer, verbose bool, output map[string][]string, failures map[string]int) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "output":
		output[key] = append(output[key], e.Output)
	case "build-output":
		fmt.Fprint(out, e.Output)
	case "pass", "skip", "fail":
		if e.Test == "" {
			c.endPackage(e, out, output[key], failures[e.Package])
			break
		}
		switch e.Action {
		case "pass":
			c.passed++
		case "skip":
			c.skipped++
		case "fail":
			c.failed++
			failures[e.Package]++
		}
		switch {
		case e.Action == "fail":
			fmt.Fprint(out, strings.Join(output[key], ""))
		case verbose || e.Action == "skip":
			fmt.Fprint(out, strings.Join(results(output[key], e.Action == "skip"), ""))
		}
		delete(output, key)
	}
}

func (c *counts) endPackage(e event, out io.Writer, output []string, failures int) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(out, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		if failures == 0 {
			c.failed++
			fmt.Fprint(out, strings.Join(output, ""))
		}
		fmt.Fprintf(out, "FAIL %s %.1fs\n", e.Package, e.Elapsed)
	}
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

func appendCounts(name string, c counts) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("adding the counts: %w", err)
	}
	_, err = fmt.Fprintf(f, "%d %d %d\n", c.passed, c.failed, c.skipped)
	return errors.Join(err, f.Close())
}
