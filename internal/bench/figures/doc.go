// Package figures is what commands that measure have in common: figures that are
// held against bars, the flags that choose among them, and the table, the JSON and
// the exit code in which they come out.
//
// A command prints the machine and a table; with -json, one object more on the
// last line:
//
//	{"NAME": {"value": 12.3, "unit": "ms", "bar": 25, "ok": true}}
//
// A figure is ok if its value keeps its bar; one that has none, where bar is 0, always
// is. The exit code is [ExitOK] if all are, [ExitNotOK] if one is not, [ExitError] if
// something could not be measured. Figures of two machines, or of a busy one and an
// idle one, cannot be compared.
package figures
