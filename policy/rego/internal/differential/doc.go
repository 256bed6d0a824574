// Package differential looks for policies on which two evaluators of Rego
// disagree. [Generate] makes a case from a seed: modules, data and inputs that
// use the language widely, with values that meet each other and calls that may
// fail. [Compare] puts it to two evaluators and judges how their answers differ.
// [Shrink] makes a case on which they do as small as it can.
//
// One of the two is the reference. What it reports as an error the other must
// report, too. Where several calls fail, evaluators may come to another one
// first. Where only the other one reports an error, the case is asked once more
// with the policy rewritten so that the reference skips nothing: if it reports
// that error then, it had stopped early before, which is known and no fault.
package differential
