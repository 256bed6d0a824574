package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/examples/boutique"
)

// boutiqueWorld is the folder and the processes of the demo.
type boutiqueWorld struct {
	dir              string
	trust            string
	grpc, http, nats string // where the server listens; kept over a restart

	server, embedded, remote *demoProcess
}

// guardrailFolder is the folder of the namespace boutique.
const guardrailFolder = "guardrails"

// beaconKeyName is the key that the server signs beacons with.
const beaconKeyName = "pdp-beacon"

// folder returns the folder of a team's policy.
func (w *boutiqueWorld) folder(team string) string { return filepath.Join(w.dir, "policies", team) }

// setUp writes the policies, makes a key for every team, and the trust file.
func (w *boutiqueWorld) setUp(g boutique.CallGraph) error {
	if err := os.CopyFS(filepath.Join(w.dir, "policies"), boutique.FS); err != nil {
		return fmt.Errorf("write the policies: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "keys"), 0o700); err != nil {
		return err
	}
	var keys, namespaces strings.Builder
	add := func(team, namespace, more string) error {
		private, public, err := bundles.GenerateKey(team)
		if err != nil {
			return err
		}
		fmt.Fprintf(&keys, "  %s: %s\n", team, public)
		fmt.Fprintf(&namespaces, "  %s: {signers: [%s]%s}\n", namespace, team, more)
		return bundles.WriteKey(w.key(team), private)
	}
	if err := add(guardrailFolder, g.Guardrail, ", guardrail: true"); err != nil {
		return err
	}
	for _, s := range g.Services {
		if err := add(strings.TrimPrefix(s.Namespace, g.Guardrail+"."), s.Namespace, ""); err != nil {
			return err
		}
	}
	if err := w.setUpNATS(g.Guardrail); err != nil {
		return err
	}
	private, public, err := bundles.GenerateKey(beaconKeyName)
	if err != nil {
		return err
	}
	fmt.Fprintf(&keys, "  %s: %s\n", beaconKeyName, public)
	if err := bundles.WriteKey(w.key(beaconKeyName), private); err != nil {
		return err
	}
	w.trust = filepath.Join(w.dir, "trust.yaml")
	text := "domain: " + g.Guardrail + "\nversion: 1\nepoch: 1\nkeys:\n" + keys.String() + "namespaces:\n" + namespaces.String() +
		"beacons: [" + beaconKeyName + "]\n"
	return os.WriteFile(w.trust, []byte(text), 0o600)
}

// thief is the principal whose credentials the attacker of the demo has stolen:
// a replica of the PDP, which may do everything on NATS.
const thief = "stolen"

// setUpNATS makes credentials for the PDP, and for one whose are stolen. Everybody
// else on this machine may read.
func (w *boutiqueWorld) setUpNATS(domain string) error {
	nobody, err := jetstream.NewCredentials("nobody")
	if err != nil {
		return err
	}
	accounts := jetstream.Accounts{Domain: domain, Anonymous: nobody.Key()}
	for _, name := range []string{"pdp", thief} {
		creds, err := jetstream.NewCredentials(name)
		if err != nil {
			return err
		}
		if err := creds.Write(w.creds(name)); err != nil {
			return err
		}
		accounts.Users = append(accounts.Users, jetstream.User{Principal: jetstream.Principal{Name: name, Kind: jetstream.PDP}, Key: creds.Key()})
	}
	config, err := accounts.Config()
	if err != nil {
		return err
	}
	return os.WriteFile(w.natsConfig(), config, 0o600)
}

func (w *boutiqueWorld) creds(principal string) string {
	return filepath.Join(w.dir, "keys", principal+".nkey")
}

func (w *boutiqueWorld) natsConfig() string { return filepath.Join(w.dir, "nats.conf") }

// startServer starts the PDP, at any free ports the first time.
func (w *boutiqueWorld) startServer(ctx context.Context) error {
	p, err := startDemoProcess(ctx, "serve", "--log-format", "json", "--data-dir", filepath.Join(w.dir, "data"), "--trust", w.trust, "--beacon-key", w.key(beaconKeyName),
		"--grpc-addr", orDefault(w.grpc, "127.0.0.1:0"), "--http-addr", orDefault(w.http, "127.0.0.1:0"),
		"--nats-config", w.natsConfig(), "--nats-creds", w.creds("pdp"),
		"--nats-addr", strings.TrimPrefix(orDefault(w.nats, "127.0.0.1:0"), "nats://"))
	if err != nil {
		return err
	}
	w.server = p
	w.grpc, w.http, w.nats, err = p.ready()
	return err
}

func (w *boutiqueWorld) startClients(ctx context.Context) error {
	return errors.Join(w.startEmbedded(ctx), w.startRemote(ctx))
}

func (w *boutiqueWorld) startEmbedded(ctx context.Context) (err error) {
	w.embedded, err = startClient(ctx, "--nats", w.nats, "--trust", w.trust, "--data-dir", filepath.Join(w.dir, "client"))
	return err
}

func (w *boutiqueWorld) startRemote(ctx context.Context) (err error) {
	if w.remote != nil {
		w.remote.end()
	}
	w.remote, err = startClient(ctx, "--server", w.grpc)
	return err
}

// stop ends every process that still runs.
func (w *boutiqueWorld) stop() {
	for _, p := range []*demoProcess{w.embedded, w.remote, w.server} {
		if p != nil {
			p.end()
		}
	}
}

// push runs `microwall push` as an author would, and returns what it printed.
func (w *boutiqueWorld) push(ctx context.Context, team, folder string, more ...string) (string, error) {
	var out bytes.Buffer
	args := append([]string{"push", folder, "--server", w.grpc, "--trust", w.trust, "--key", w.key(team), "--author", team + "-team"}, more...)
	code := run(ctx, world{stdin: strings.NewReader(""), stdout: &out, stderr: &out, getenv: func(string) string { return "" }}, args)
	if code != exitYes {
		return out.String(), fmt.Errorf("microwall %s: exit code %d: %s", strings.Join(args, " "), code, out.String())
	}
	return out.String(), nil
}

// pushTimed pushes and returns when the command began to run.
func (w *boutiqueWorld) pushTimed(ctx context.Context, team, folder string) (time.Time, error) {
	start := time.Now()
	_, err := w.push(ctx, team, folder)
	return start, err
}

// write writes a policy into a folder of its own.
func (w *boutiqueWorld) write(name string, files map[string]string) (string, error) {
	folder := filepath.Join(w.dir, "changed", name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	return folder, nil
}

// edit copies a team's policy into a folder of its own, with texts replaced. A
// text that is not there is an error.
func (w *boutiqueWorld) edit(team string, edits map[string][]replacement) (string, error) {
	files := make(map[string]string)
	err := fs.WalkDir(boutique.FS, team, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := boutique.FS.ReadFile(name)
		if err != nil {
			return err
		}
		text, file := string(raw), strings.TrimPrefix(name, team+"/")
		for _, e := range edits[file] {
			if strings.Count(text, e.old) != 1 {
				return fmt.Errorf("%s does not have %q once", name, e.old)
			}
			text = strings.Replace(text, e.old, e.new, 1)
		}
		files[file] = text
		return nil
	})
	if err != nil {
		return "", err
	}
	return w.write(team, files)
}

type replacement struct{ old, new string }
