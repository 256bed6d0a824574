package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// newKey is what keygen says of a key. It has nothing of the private half.
type newKey struct {
	Name      string `json:"name"`
	KeyFile   string `json:"key_file"`
	PublicKey string `json:"public_key"`
}

func newKeygen(w world) *cobra.Command {
	var out output
	var file string
	cmd := &cobra.Command{
		Use:     "keygen NAME",
		GroupID: groupAuthor,
		Short:   "Make a key that signs releases or beacons",
		Long: `Make an Ed25519 key pair in the form of signed notes. The private key goes to a
new file that only you may read; it is never printed, and no file is ever
overwritten. What is printed are the lines for trust.yaml.

NAME is how trust.yaml and signatures call the key: who signs with it, for
instance the CI of a team. A key that trust.yaml lists under beacons is for
"microwall serve --beacon-key".`,
		Example: `  microwall keygen cart-ci
  microwall keygen cart-ci --out /run/secrets/cart-ci.key --format json`,
		Args:              one("key"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			key, err := keygen(args[0], file)
			if err != nil {
				return err
			}
			if out.format == formatJSON {
				return writeJSON(w.stdout, key)
			}
			return key.print(w)
		},
	}
	cmd.Flags().StringVarP(&file, "out", "o", "", "file for the private key (default NAME.key)")
	out.flag(cmd, formatJSON)
	return cmd
}

func keygen(name, file string) (newKey, error) {
	private, public, err := bundles.GenerateKey(name)
	if err != nil {
		return newKey{}, err
	}
	switch {
	case file == "-":
		return newKey{}, policy.Errorf(policy.BadRequest, "--out is -, but a private key is never printed; name a file")
	case file == "" && strings.Contains(name, "/"):
		return newKey{}, policy.Errorf(policy.BadRequest, "the name %s has a slash in it, so it makes no file name; say where the private key goes with --out FILE", name)
	case file == "":
		file = name + ".key"
	}
	if err := bundles.WriteKey(file, private); err != nil {
		return newKey{}, err
	}
	return newKey{Name: name, KeyFile: file, PublicKey: public}, nil
}

// trustLines begin a trust file.
type trustLines struct {
	Domain     string             `yaml:"domain"`
	Version    int                `yaml:"version"`
	Epoch      int                `yaml:"epoch"`
	Keys       map[string]string  `yaml:"keys"`
	Namespaces map[string]signers `yaml:"namespaces"`
}

type signers struct {
	Signers []string `yaml:"signers,flow"`
}

func (k newKey) print(w world) error {
	var lines bytes.Buffer
	e := yaml.NewEncoder(&lines)
	e.SetIndent(2)
	err := e.Encode(trustLines{
		Domain: "boutique", Version: 1, Epoch: 1,
		Keys:       map[string]string{k.Name: k.PublicKey},
		Namespaces: map[string]signers{"boutique": {[]string{k.Name}}},
	})
	if err != nil {
		return fmt.Errorf("write the lines for trust.yaml: %w", err)
	}
	_, err = fmt.Fprintf(w.stdout, `The private key is in %[2]s. Only you may read it: keep it out of git.

A trust.yaml that trusts the key, with boutique for the name of your domain:

%[3]s
If you have a trust.yaml, add the line under keys, name %[1]s among the signers
of its namespaces, and raise version by one.

Then sign with it: microwall push DIR --key %[2]s
In CI, give the content of %[2]s as the secret MICROWALL_KEY.
`, k.Name, k.KeyFile, lines.String())
	return err
}
