package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The JUnit XML that CI systems read. There is no standard; these are the
// elements that Jenkins, GitLab and GitHub's actions agree on
// (github.com/testmoapp/junitxml).
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Skipped  int          `xml:"skipped,attr"`
	Time     junitSeconds `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Skipped  int          `xml:"skipped,attr"`
	Time     junitSeconds `xml:"time,attr"`
	Cases    []junitCase  `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	File    string        `xml:"file,attr"`
	Line    int           `xml:"line,attr,omitempty"`
	Time    junitSeconds  `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
	Skipped *struct{}     `xml:"skipped"`
	Output  string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// junitSeconds is a time as JUnit has it.
type junitSeconds float64

// MarshalText writes the time to the microsecond.
func (s junitSeconds) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%.6f", float64(s)), nil }

// junit writes the report as JUnit XML. What keeps the policy from being tested
// and a threshold that is not reached are failed cases, too: a CI system that
// reads nothing but the report must see them.
func (r *testReport) junit(to io.Writer) error {
	all := junitSuites{Name: "microwall test " + r.Folder}
	if len(r.Problems) > 0 {
		all.add("check", problemCases(r))
	}
	all.add("tests", r.Tests)
	all.add("decisions", r.Decisions)
	if r.Coverage != nil && r.Coverage.Threshold != nil {
		all.add("coverage", []testCase{r.Coverage.testCase(r.Folder)})
	}
	if _, err := io.WriteString(to, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(to)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	_, err := io.WriteString(to, "\n")
	return err
}

func (all *junitSuites) add(name string, cases []testCase) {
	s := junitSuite{Name: name, Tests: len(cases), Failures: count(cases, statusFailed), Skipped: count(cases, statusSkipped)}
	for _, c := range cases {
		j := junitCase{Name: c.Name, Class: name, File: c.File, Line: c.Line, Time: junitSeconds(c.Seconds), Output: c.Output}
		switch c.Status {
		case statusFailed:
			first, _, _ := strings.Cut(c.Failure, "\n")
			j.Failure = &junitFailure{Message: first, Text: c.Failure}
		case statusSkipped:
			j.Skipped = &struct{}{}
		}
		s.Cases = append(s.Cases, j)
		s.Time += j.Time
	}
	all.Suites = append(all.Suites, s)
	all.Tests += s.Tests
	all.Failures += s.Failures
	all.Skipped += s.Skipped
	all.Time += s.Time
}

func problemCases(r *testReport) []testCase {
	cases := make([]testCase, len(r.Problems))
	for i, p := range r.Problems {
		cases[i] = testCase{Name: p.Message, File: p.File, Line: p.Line, Status: statusFailed, Failure: p.String()}
	}
	return cases
}

func (c *coverage) testCase(dir string) testCase {
	t := testCase{Name: fmt.Sprintf("coverage is at least %v%%", *c.Threshold), File: dir, Status: statusPassed}
	if c.missed() {
		t.Status = statusFailed
		t.Failure = "coverage is " + percent(c.Percent) + "\nnot covered: " + strings.Join(c.NotCovered, ", ")
	}
	return t
}
