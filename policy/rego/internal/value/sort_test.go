package value_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

// tally pays for so many steps.
type tally struct{ left int64 }

var errSpent = errors.New("spent")

func (t *tally) charge(steps int64) error {
	if t.left -= steps; t.left < 0 {
		return errSpent
	}
	return nil
}

// A set of anything is gone through in the order of Compare, however its members
// came, whether for a charge or without, and also if that was given up before.
func TestMembersAreInOrder(t *testing.T) {
	g := valuetest.New(11)
	for range 300 {
		n := g.IntN(100)
		members := make([]value.Value, n)
		for i := range members {
			members[i] = g.Value(3)
		}
		set := value.SetOf(members...)
		for left := int64(0); ; left = left*2 + 1 {
			if _, err := set.ScanFor((&tally{left}).charge); err == nil {
				break
			} else if !errors.Is(err, errSpent) {
				t.Fatal(err)
			}
		}
		var got []value.Value
		for m := range set.All() {
			got = append(got, m)
		}
		if len(got) != set.Len() || !slices.IsSortedFunc(got, value.Compare) {
			t.Fatalf("%d members of %d, in no order: %v", len(got), set.Len(), got)
		}
		for i := 1; i < len(got); i++ {
			if same, err := value.EqualFor(got[i-1], got[i], (&tally{1 << 40}).charge); same || err != nil {
				t.Fatalf("%v is there twice", got[i])
			}
		}
	}
}

// What is compared, is put in order or is written for a charge costs as many steps
// each time, says nothing if they are too many, and is what it is without.
func TestAChargeEndsWhatItIsAskedFor(t *testing.T) {
	g := valuetest.New(12)
	compared := 0
	for range 2000 {
		a, b := g.Value(4), g.Value(4)
		if g.IntN(2) == 0 {
			b = value.NewArray(a, b)
			a = value.NewArray(a, a)
		}
		for name, do := range map[string]func(value.Charge) (any, error){
			"compare": func(c value.Charge) (any, error) { return value.CompareFor(a, b, c) },
			"equal":   func(c value.Charge) (any, error) { return value.EqualFor(a, b, c) },
			"write": func(c value.Charge) (any, error) {
				text, err := a.AppendJSONFor(nil, c)
				return string(text), err
			},
		} {
			const enough = 1 << 40
			first, second := &tally{enough}, &tally{enough}
			_, _ = do(first.charge) // puts in order what is not
			if _, err := do(second.charge); errors.Is(err, errSpent) {
				t.Fatal(err)
			}
			if second.left < first.left {
				t.Fatalf("%s %v, %v costs more the second time", name, a, b)
			}
			if second.left == enough {
				continue
			}
			compared++
			if got, err := do((&tally{enough - second.left - 1}).charge); !errors.Is(err, errSpent) {
				t.Fatalf("%s %v, %v for less than it costs: %v, %v", name, a, b, got, err)
			}
		}
		order, _ := value.CompareFor(a, b, (&tally{1 << 40}).charge)
		same, _ := value.EqualFor(a, b, (&tally{1 << 40}).charge)
		if order != value.Compare(a, b) || same != value.Equal(a, b) || same != (order == 0) {
			t.Fatalf("%v and %v: %d, %t", a, b, order, same)
		}
	}
	if compared < 1000 {
		t.Errorf("only %d cost anything", compared)
	}
}
