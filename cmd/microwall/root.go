package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/policy"
)

// The groups of commands in the help.
const (
	groupServe  = "serve"
	groupAuthor = "author"
	groupAsk    = "ask"
	groupTrust  = "trust"
)

func newRoot(w world) *cobra.Command {
	root := &cobra.Command{
		Use:   "microwall",
		Short: "A Policy Decision Point for microservices",
		Long: `Microwall decides who may call what: every team puts its own wall around its
own service, writes it in Rego, and pushes it from CI.

Exit codes: 0 yes or done, 1 no (a denial, a finding, a failed test), 2 error.`,
		Example: `  microwall demo                          the whole story, in under a minute
  microwall serve --dir policies --watch  decide by a folder, for development
  microwall authorize --subject workload:spiffe://boutique.example/ns/default/sa/frontend \
      --action AddItem --resource grpc:hipstershop.CartService --namespace boutique.cart`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddGroup(
		&cobra.Group{ID: groupServe, Title: "Deciding:"},
		&cobra.Group{ID: groupAuthor, Title: "Writing and releasing policies:"},
		&cobra.Group{ID: groupTrust, Title: "Saying whom to believe:"},
		&cobra.Group{ID: groupAsk, Title: "Asking:"},
	)
	root.AddCommand(commands(w)...)
	return root
}

// strictHelp makes errors of `help nosuch` and `completion nosuch`, which cobra
// answers with other help. What root writes to must have been set.
func strictHelp(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		case "help":
			help := cmd.Run
			cmd.Run = nil
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
					return policy.Errorf(policy.BadRequest, "there is no command %q; `%s --help` lists those that there are", strings.Join(args, " "), root.Name())
				}
				help(cmd, args)
				return nil
			}
		}
	}
}
