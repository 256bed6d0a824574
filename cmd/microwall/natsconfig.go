package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

// natsConfigFlags are those of the nats-config command.
type natsConfigFlags struct {
	output
	trust             string
	creds, out        string
	listen, store     string
	cert, key, caFile string
	connections       int
}

// firstLine begins every file that this command has made, and may replace.
const firstLine = "# Made by `microwall nats-config`. Change the list of principals, and make it again.\n"

func newNATSConfig(w world) *cobra.Command {
	var f natsConfigFlags
	cmd := &cobra.Command{
		Use:     "nats-config PRINCIPALS.yaml",
		GroupID: groupServe,
		Short:   "Say who may connect to NATS: make its configuration and credentials",
		Long: `Make the configuration of a NATS server, and the credentials of all who connect
to it. The same file is for nats-server and for the NATS server inside
microwall serve (--nats-config).

The streams are in one account, the clients of the domain in another without
streams of their own. A client may read the releases and beacons of its
namespaces and of the guardrails that the trust file names for them, ask PDPs to
confirm them, and say how it is doing. PRINCIPALS.yaml lists who there is:

  principals:
    - {name: pdp-1, kind: pdp}
    - {name: cart-1, kind: client, namespaces: [boutique.cart]}
    - {name: watcher, kind: fleet}

A pdp has the streams: each replica of microwall serve needs one. A client decides
its namespaces. A fleet reader sees all namespaces, and what clients say of
themselves.

The credentials of NAME are in NAME.nkey in --creds, which only you may read. What is there
is used and never overwritten; what is missing is made. Whoever has made a key
elsewhere gives its public half instead: {name: pay-1, key: U..., ...}.

The configuration is printed, or written to --out. Beyond this machine it needs
--tls-cert and --tls-key.`,
		Example: `  microwall nats-config principals.yaml --creds keys
  microwall nats-config principals.yaml --creds keys --out nats.conf \
      --listen 0.0.0.0:4222 --tls-cert tls.crt --tls-key tls.key
  microwall serve --nats-config nats.conf --nats-creds keys/pdp-1.nkey`,
		Args: one("list of principals"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return f.make(w, args[0])
		},
	}
	f.flag(cmd, formatJSON)
	trustFlag(cmd, w, &f.trust)
	fs := cmd.Flags()
	fs.StringVar(&f.creds, "creds", ".", "folder of the credentials")
	fs.StringVarP(&f.out, "out", "o", "", "file for the configuration (default: it is printed)")
	fs.StringVar(&f.listen, "listen", defaultNATS, "address that NATS listens on")
	fs.StringVar(&f.store, "store-dir", "nats", "folder of the streams, for nats-server")
	fs.StringVar(&f.cert, "tls-cert", "", "certificate of the NATS server")
	fs.StringVar(&f.key, "tls-key", "", "key of the certificate")
	fs.StringVar(&f.caFile, "client-ca", "", "ask who connects for a certificate, too, that one of these CAs has signed")
	fs.IntVar(&f.connections, "max-connections", 0, fmt.Sprintf("connections of clients at most, all together (default %d)", jetstream.DefaultMaxConnections))
	completeFolders(cmd, "creds", "store-dir")
	return cmd
}

// check refuses flags that would make an unsafe server.
func (f *natsConfigFlags) check() error {
	if err := f.output.check(); err != nil {
		return err
	}
	if err := checkAddr("--listen", f.listen); err != nil {
		return err
	}
	switch {
	case (f.cert == "") != (f.key == ""):
		return policy.Errorf(policy.BadRequest, "--tls-cert and --tls-key go together")
	case f.caFile != "" && f.cert == "":
		return policy.Errorf(policy.BadRequest, "--client-ca needs --tls-cert and --tls-key: client certificates exist only in TLS")
	case f.cert == "" && !isLoopback(f.listen):
		return policy.Errorf(policy.BadRequest, "--listen %s leaves this machine without TLS: anybody on the way could take connections over; pass --tls-cert and --tls-key", f.listen)
	}
	return nil
}

// principalsFile is what PRINCIPALS.yaml says.
type principalsFile struct {
	Principals []listedPrincipal `yaml:"principals"`
}

type listedPrincipal struct {
	Name       string             `yaml:"name"`
	Kind       string             `yaml:"kind"`
	Namespaces []policy.Namespace `yaml:"namespaces"`
	Key        string             `yaml:"key"`
}

// maxPrincipalsFile is how large the list may be, in bytes.
const maxPrincipalsFile = 16 << 20

// parsePrincipals reads the list strictly: a word that is not known may be a
// misspelt one.
func parsePrincipals(raw []byte, trust *bundles.Trust) (users []jetstream.User, err error) {
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	var file principalsFile
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, policy.Errorf(policy.BadRequest, "no list of principals: %w; `microwall nats-config --help` shows one", err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, policy.Errorf(policy.BadRequest, "there is more than one YAML document; put all principals into one list")
	}
	if len(file.Principals) == 0 {
		return nil, policy.Errorf(policy.BadRequest, "it lists no principals; `microwall nats-config --help` shows a list")
	}
	for _, p := range file.Principals {
		kind, err := jetstream.ParseKind(p.Kind)
		if err != nil {
			return nil, policy.Errorf(policy.BadRequest, "principal %.100q: %w", p.Name, err)
		}
		u := jetstream.User{Principal: jetstream.Principal{Name: p.Name, Kind: kind, Namespaces: p.Namespaces}, Key: p.Key}
		for _, ns := range p.Namespaces {
			u.Guardrails = append(u.Guardrails, trust.Guardrails(ns)...)
		}
		if _, err := u.Permissions(trust.Domain()); err != nil { // before its name becomes that of a file
			return nil, err
		}
		users = append(users, u)
	}
	return users, nil
}

// configured is what is told of a principal.
type configured struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Key  string `json:"key"`
	// CredsFile has its credentials; "" if they are elsewhere.
	CredsFile string `json:"creds_file,omitempty"`
	// Made is true if they were not there before.
	Made bool `json:"made"`
}

// make makes the configuration and what is missing of the credentials.
func (f *natsConfigFlags) make(w world, list string) error {
	trust, err := bundles.LoadTrust(f.trust)
	if err != nil {
		return err
	}
	raw, err := readBounded(list, maxPrincipalsFile)
	if err != nil {
		return err
	}
	users, err := parsePrincipals(raw, trust)
	if err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	notes := unlisted(users, trust)
	told := make([]configured, len(users))
	made := map[string]jetstream.Credentials{}
	for i := range users {
		u := &users[i]
		told[i] = configured{Name: u.Name, Kind: u.Kind.String(), Key: u.Key}
		if u.Key != "" {
			continue
		}
		path := filepath.Join(f.creds, u.Name+".nkey")
		creds, err := jetstream.LoadCredentials(path)
		if errors.Is(err, fs.ErrNotExist) {
			if creds, err = jetstream.NewCredentials(u.Name); err == nil {
				made[path], told[i].Made = creds, true
			}
		}
		switch {
		case err != nil:
			return err
		case creds.Principal() != u.Name:
			return policy.Errorf(policy.BadRequest, "%s has the credentials of %s, not of %s; put each file under the name of its principal", path, creds.Principal(), u.Name)
		}
		u.Key, told[i].Key, told[i].CredsFile = creds.Key(), creds.Key(), path
	}
	accounts := jetstream.Accounts{Domain: trust.Domain(), Users: users, MaxConnections: f.connections}
	text, err := accounts.Config()
	if err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	config := f.config(text)
	if f.out != "" {
		if err := replaceable(f.out); err != nil {
			return err
		}
	}
	// Keys first: a configuration whose keys nobody has is of no use.
	if err := os.MkdirAll(f.creds, 0o700); err != nil {
		return policy.Errorf(policy.BadRequest, "--creds: %w; name a folder that can be written", err)
	}
	for path, creds := range made {
		if err := creds.Write(path); err != nil {
			return err
		}
	}
	if f.out != "" {
		if err := writeFile(f.out, config); err != nil {
			return policy.Errorf(policy.BadRequest, "--out: %w", err)
		}
	}
	return f.print(w, config, told, notes)
}

// unlisted names the namespaces that the trust file does not list beside others of
// the same level: they may be misspelt.
func unlisted(users []jetstream.User, trust *bundles.Trust) (notes []string) {
	for _, u := range users {
		for _, ns := range u.Namespaces {
			beside := slices.DeleteFunc(trust.Namespaces(), func(n policy.Namespace) bool { return n.Parent() != ns.Parent() })
			if len(beside) > 0 && !slices.Contains(beside, ns) {
				notes = append(notes, fmt.Sprintf("%s: the trust file does not list %s, only %s; see that it is spelt right", u.Name, ns, listOf(beside)))
			}
		}
	}
	return notes
}

func (f *natsConfigFlags) print(w world, config []byte, told []configured, notes []string) error {
	if f.format == formatJSON {
		return writeJSON(w.stdout, struct {
			Config     string       `json:"config,omitempty"`
			ConfigFile string       `json:"config_file,omitempty"`
			Principals []configured `json:"principals"`
			Notes      []string     `json:"notes,omitempty"`
		}{Config: string(config), ConfigFile: f.out, Principals: told, Notes: notes})
	}
	var b strings.Builder
	for _, p := range told {
		switch {
		case p.Made:
			fmt.Fprintf(&b, "%s (%s): made %s; only you may read it: give it to %s and nobody else\n", p.Name, p.Kind, p.CredsFile, p.Name)
		case p.CredsFile != "":
			fmt.Fprintf(&b, "%s (%s): %s is used as it is\n", p.Name, p.Kind, p.CredsFile)
		default:
			fmt.Fprintf(&b, "%s (%s): has its credentials elsewhere\n", p.Name, p.Kind)
		}
	}
	for _, text := range notes {
		fmt.Fprintf(&b, "note: %s\n", text)
	}
	if f.out == "" {
		// So that what is printed can go into a file.
		_, err := fmt.Fprint(w.stderr, b.String())
		if err == nil {
			_, err = w.stdout.Write(config)
		}
		return err
	}
	own := filepath.Join(f.creds, "NAME.nkey")
	if i := slices.IndexFunc(told, func(p configured) bool { return p.Kind == jetstream.PDP.String() }); i >= 0 {
		own = cmp.Or(told[i].CredsFile, told[i].Name+".nkey")
	} else {
		fmt.Fprintf(&b, "no principal is of kind pdp: add one to the list for each replica of microwall serve, which needs its credentials\n")
	}
	_, err := fmt.Fprintf(w.stdout, `%[1]s%[2]s is written. Start NATS with it in one of two ways: inside a PDP,
  microwall serve --nats-config %[2]s --nats-creds %[3]s
or alone, and then a PDP that uses it:
  nats-server -c %[2]s
  microwall serve --nats %[4]s --nats-creds %[3]s
`, b.String(), f.out, own, f.url())
	return err
}

// url is where others find the server, as far as the flags tell.
func (f *natsConfigFlags) url() string {
	scheme := "nats://"
	if f.cert != "" {
		scheme = "tls://"
	}
	host, port, err := net.SplitHostPort(f.listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return scheme + "HOST:" + port
	}
	return scheme + f.listen
}

// config returns the whole file.
func (f *natsConfigFlags) config(accounts []byte) []byte {
	var b bytes.Buffer
	b.WriteString(firstLine)
	fmt.Fprintf(&b, "listen: %s\n", strconv.Quote(f.listen))
	// Room for PDPs, whatever clients do.
	connections := cmp.Or(f.connections, jetstream.DefaultMaxConnections) + 1000
	fmt.Fprintf(&b, `
# What somebody asked for and does not read waits in the memory of the server, up
# to max_pending for each connection, which is cut then: at worst %d GiB if
# everybody does so at once (max_connections times max_pending). Whoever has
# credentials can. Choose --max-connections by it.
max_connections: %d
max_payload: %d
max_pending: %d
`, (connections*maxPending)>>30, connections, 1<<20, maxPending)
	if f.cert != "" {
		fmt.Fprintf(&b, "tls {\n  cert_file: %s\n  key_file: %s\n", strconv.Quote(f.cert), strconv.Quote(f.key))
		if f.caFile != "" {
			fmt.Fprintf(&b, "  ca_file: %s\n  verify: true\n", strconv.Quote(f.caFile))
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, "\n# What is acknowledged is on disk. Microwall has a store of its own instead.\njetstream {\n  store_dir: %s\n  sync_interval: always\n}\n\n# A cache in each connection, of subjects that are seldom the same: memory for nothing.\ndisable_sublist_cache: true\n\n", strconv.Quote(f.store))
	b.Write(accounts)
	return b.Bytes()
}

// replaceable refuses a file that this command has not made.
func replaceable(path string) error {
	raw, err := readBounded(path, 1<<30)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--out: %w", err)
	case !bytes.HasPrefix(raw, []byte(firstLine)):
		return policy.Errorf(policy.BadRequest, "--out: %s exists, and was not made by this command; name another file", path)
	}
	return nil
}

// readBounded reads a file of at most most bytes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "cannot open: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "cannot read: %w", err)
	}
	if int64(len(raw)) > most {
		return nil, policy.Errorf(policy.Exhausted, "%s is larger than %d bytes", path, most)
	}
	return raw, nil
}
