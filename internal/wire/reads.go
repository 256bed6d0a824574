package wire

import (
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// ReadsProto writes the paths that policies read.
func ReadsProto(paths []policy.ReadPath) []*microwallv1.ReadPath {
	all := make([]*microwallv1.ReadPath, len(paths))
	for i, p := range paths {
		all[i] = &microwallv1.ReadPath{}
		for _, s := range p {
			step := &microwallv1.ReadStep{Step: &microwallv1.ReadStep_Name{Name: s.Name}}
			if s.Element {
				step.Step = &microwallv1.ReadStep_Index{Index: s.Index}
			}
			all[i].Steps = append(all[i].Steps, step)
		}
	}
	return all
}

// Reads reads the paths that policies read. A step of a kind that is not known
// here ends its path: then more is taken to be read.
func Reads(ms []*microwallv1.ReadPath) []policy.ReadPath {
	all := make([]policy.ReadPath, len(ms))
	for i, m := range ms {
		p := policy.ReadPath{}
		for _, s := range m.GetSteps() {
			switch step := s.GetStep().(type) {
			case *microwallv1.ReadStep_Name:
				p = append(p, policy.Step{Name: step.Name})
				continue
			case *microwallv1.ReadStep_Index:
				p = append(p, policy.Step{Element: true, Index: step.Index})
				continue
			}
			break
		}
		all[i] = p
	}
	return all
}
