package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// What a key signs.
const (
	forReleases = "releases"
	forBeacons  = "beacons"
	forRoots    = "roots" // trust files
)

var keyUses = []string{forReleases, forBeacons, forRoots}

// newKey is what keygen says of a key. It has nothing of the private half.
type newKey struct {
	Name      string `json:"name"`
	KeyFile   string `json:"key_file"`
	PublicKey string `json:"public_key"`
}

func newKeygen(w world) *cobra.Command {
	var out output
	var file, use string
	cmd := &cobra.Command{
		Use:     "keygen NAME",
		GroupID: groupAuthor,
		Short:   "Make a key that signs releases, beacons or trust files",
		Long: `Make an Ed25519 key pair in the form of signed notes. The private key goes to a
new file that only you may read; it is never printed, and no file is ever
overwritten. What is printed are the lines for trust.yaml.

NAME is how trust.yaml and signatures call the key: who signs with it, for
instance the CI of a team. The key is the same whatever it is --for; the lines are
not, and they say what to do with it.`,
		Example: `  microwall keygen cart-ci
  microwall keygen pdp-beacon --for beacons
  microwall keygen cart-ci --out /run/secrets/cart-ci.key --format json`,
		Args:              one("key"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if !slices.Contains(keyUses, use) {
				return policy.Errorf(policy.BadRequest, "--for is %q; it is %s", use, strings.Join(keyUses, ", "))
			}
			key, err := keygen(args[0], file)
			if err != nil {
				return err
			}
			if out.format == formatJSON {
				return writeJSON(w.stdout, key)
			}
			return key.print(w, use)
		},
	}
	cmd.Flags().StringVar(&use, "for", forReleases, "what the key signs: "+strings.Join(keyUses, ", "))
	completeValues(cmd, "for", keyUses...)
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

func (k newKey) print(w world, use string) error {
	if use != forReleases {
		return k.printOther(w, use)
	}
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

// printOther prints the lines of a key that signs no releases.
func (k newKey) printOther(w world, use string) error {
	list, then := fmt.Sprintf("beacons: [%s]", k.Name), "microwall serve --beacon-key "+k.KeyFile
	if use == forRoots {
		list, then = fmt.Sprintf("roots: {keys: [%s], threshold: 1}", k.Name), fmt.Sprintf("microwall trust sign new.yaml --key %s -o new.note", k.KeyFile)
	}
	_, err := fmt.Fprintf(w.stdout, `The private key is in %s. Only you may read it: keep it out of git.

In trust.yaml add the key, beside those that are there, and raise version by one:

keys:
  %s: %s
%s

Then: %s
`, k.KeyFile, k.Name, k.PublicKey, list, then)
	return err
}
