package exactness_test

import "flag"

var mutants = flag.Bool("mutants", false, "test whether the model finds the clients that are broken on purpose")
