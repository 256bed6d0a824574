package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/examples/boutique"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"microwall": main, "fetch": fetch})
}

// TestScript runs testdata/script/*.txtar, in which the command is a process of
// its own, as for its users. Besides testscript's commands there are
//
//	exits CODE PROGRAM [ARG ...]   runs a program that must end with that exit code
//	boutique                       puts examples/boutique into the folder boutique
//	mode FILE OCTAL                wants the permissions of a file
//	filler FILE random|zeros BYTES [HEAD TAIL]
//	                               writes so many bytes of base64, or zeros, between head
//	                               and tail
//
//	domain                         makes keys of the domain shop, center.key, cart.key,
//	                               pay.key, stranger.key, ann.key, bob.key and cay.key, and
//	                               its .microwall/trust.yaml
//	trust FILE [VERSION [EPOCH [WITHOUT ...]]]
//	                               writes such a trust file, without the keys named; with
//	                               shop=KEY,KEY:THRESHOLD, cart=KEY,KEY and
//	                               roots=KEY,KEY:THRESHOLD among them
//	splice NOTE BUNDLE FILE        puts the note of one signed release and the bundle of another
//	                               into one file
//	replace FILE OLD NEW           replaces a text in a file
//	secret VARIABLE FILE           sets a variable to the content of a file
//	ca NAME                        makes a certificate authority, and the file NAME.pem
//	cert CA FILE                   makes a certificate, FILE.pem, and its key, FILE.key,
//	                               or renews them
//	smalldisk FOLDER SIZE          makes a folder on a volume of that size
//
//	serve NAME [unready] [ARG ...] starts a server and waits until it is ready, or only
//	                               until it listens; $GRPC, $HTTP (both on 127.0.0.1)
//	                               and $NATS are where
//	[!] log NAME PATTERN           waits for a line of its log that matches, behind the
//	                               one before; or wants none in all of the log
//	end NAME                       asks it to end, which it must do without an error
//	crash NAME                     ends it at once
//
// and the program `fetch URL`, which prints the status and the body.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(name string) (bool, error) {
			if name == "racing" {
				return underRace, nil
			}
			return false, fmt.Errorf("there is no condition %q", name)
		},
		Setup: func(env *testscript.Env) error {
			// The race detector sleeps for a second before a process exits.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Values[stageKey{}] = &stage{t: env.T().(testing.TB), authorities: map[string]*tlstest.CA{}, servers: map[string]*serving{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     exits,
			"boutique":  putBoutique,
			"mode":      mode,
			"filler":    filler,
			"domain":    makeDomain,
			"trust":     writeTrust,
			"splice":    splice,
			"replace":   replace,
			"secret":    setSecret,
			"remember":  remember,
			"ca":        makeCA,
			"cert":      makeCert,
			"smalldisk": smallDisk,
			"serve":     serveProcess,
			"log":       waitLog,
			"end":       endProcess,
			"crash":     crashProcess,
		},
	})
}

// stage is what the commands of one script share.
type stage struct {
	t           testing.TB
	domain      *testkit.Domain
	authorities map[string]*tlstest.CA
	servers     map[string]*serving
}

type stageKey struct{}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// usage ends the script unless the arguments are as many as they must be.
func usage(ts *testscript.TestScript, neg bool, args []string, least, most int, text string) {
	if neg || len(args) < least || len(args) > most {
		ts.Fatalf("usage: %s", text)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 1000, "exits CODE PROGRAM [ARG ...]")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got, err = exit.ExitCode(), nil
	}
	ts.Check(err)
	if got != want {
		ts.Fatalf("exit code is %d, want %d", got, want)
	}
}

func putBoutique(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 0, 0, "boutique")
	ts.Check(os.CopyFS(ts.MkAbs("boutique"), boutique.FS))
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 2, "mode FILE OCTAL")
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("permissions of %s are %s, want %s", args[0], got, args[1])
	}
}

func filler(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, 5, "filler FILE random|zeros BYTES [HEAD TAIL]")
	args = append(args, "", "")
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	content := make([]byte, n)
	if args[1] == "random" {
		_, _ = rand.Read(content) // it never fails
	}
	text := base64.StdEncoding.EncodeToString(content)[:n]
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o700))
	ts.Check(os.WriteFile(path, []byte(args[3]+text+args[4]), 0o600))
}

func makeDomain(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 0, 0, "domain")
	d := testkit.NewDomain(stageOf(ts).t)
	stageOf(ts).domain = d
	for _, name := range []string{"center", "cart", "pay", "stranger", "ann", "bob", "cay", "beat"} {
		ts.Check(os.WriteFile(ts.MkAbs(name+".key"), []byte(d.Private(name)), 0o600))
	}
	writeTrust(ts, false, []string{".microwall/trust.yaml"})
}

func writeTrust(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1000, "trust FILE [VERSION [EPOCH [WITHOUT ...]]]")
	var o testkit.TrustOptions
	var err error
	if len(args) > 1 {
		o.Version, err = strconv.ParseUint(args[1], 10, 64)
		ts.Check(err)
	}
	if len(args) > 2 {
		o.Epoch, err = strconv.ParseUint(args[2], 10, 64)
		ts.Check(err)
		for _, arg := range args[3:] {
			what, value, ok := strings.Cut(arg, "=")
			keys, threshold, _ := strings.Cut(value, ":")
			least, _ := strconv.Atoi(threshold)
			switch {
			case !ok:
				o.Without = append(o.Without, arg)
			case what == "shop":
				o.ShopSigners, o.ShopThreshold = strings.Split(keys, ","), least
			case what == "cart":
				o.CartSigners = strings.Split(keys, ",")
			case what == "roots":
				o.Roots, o.RootThreshold = strings.Split(keys, ","), least
			case what == "beacons":
				o.Beacons = strings.Split(keys, ",")
			default:
				ts.Fatalf("trust: what is %s", arg)
			}
		}
	}
	d := stageOf(ts).domain
	d.WriteTrust(o)
	content, err := os.ReadFile(d.TrustFile)
	ts.Check(err)
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o700))
	tlstest.Replace(stageOf(ts).t, path, content)
}

func splice(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, 3, "splice NOTE BUNDLE FILE")
	one, err := bundles.ParseSealed([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	other, err := bundles.ParseSealed([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), bundles.Sealed{Note: one.Note, Packed: other.Packed}.Append(nil), 0o600))
}

func replace(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, 3, "replace FILE OLD NEW")
	before := ts.ReadFile(args[0])
	after := strings.ReplaceAll(before, args[1], args[2])
	if before == after {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(after), 0o600))
}

func setSecret(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 2, "secret VARIABLE FILE")
	ts.Setenv(args[0], ts.ReadFile(args[1]))
}

// remember puts what a pattern finds in the last output into a variable.
func remember(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 2, "remember VARIABLE PATTERN")
	found := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("nothing matches %s", args[1])
	}
	ts.Setenv(args[0], found[1])
}

func makeCA(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1, "ca NAME")
	ca := tlstest.NewCA(stageOf(ts).t)
	content, err := os.ReadFile(ca.File)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pem"), content, 0o600))
	stageOf(ts).authorities[args[0]] = ca
}

func makeCert(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 2, "cert CA FILE")
	stageOf(ts).authorities[args[0]].Renew(stageOf(ts).t, args[1], ts.MkAbs(args[1]+".pem"), ts.MkAbs(args[1]+".key"))
}

func smallDisk(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 2, "smalldisk FOLDER SIZE")
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Defer(mountSmall(stageOf(ts).t, dir, args[1]))
}

// mountSmall mounts a volume of that size, which takes root on Linux; elsewhere
// the test is skipped.
func mountSmall(t testing.TB, dir, size string) (unmount func()) {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a small volume cannot be mounted here, which takes root on Linux: %v: %s", err, out)
	}
	return func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	}
}

func serveProcess(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1000, "serve NAME [unready] [ARG ...]")
	name, args := args[0], args[1:]
	unready := len(args) > 0 && args[0] == "unready"
	if unready {
		args = args[1:]
	}
	p, err := startServing(ts.MkAbs("."), args...)
	ts.Check(err)
	ts.Defer(p.kill)
	if !unready {
		_, err := p.waitFor(`"msg":"ready"`)
		ts.Check(err)
		p.taken = 0
	}
	stageOf(ts).servers[name] = p
	// What listens everywhere is asked on loopback, as certificates say.
	for name, addr := range map[string]string{"GRPC": p.GRPC, "HTTP": p.HTTP} {
		_, port, err := net.SplitHostPort(addr)
		ts.Check(err)
		ts.Setenv(name, net.JoinHostPort("127.0.0.1", port))
	}
	ts.Setenv("NATS", p.NATS)
}

func waitLog(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, false, args, 2, 2, "[!] log NAME PATTERN")
	p := stageOf(ts).server(ts, args[0])
	if neg {
		if p.logged(args[1]) {
			ts.Fatalf("a line of the log matches %s:\n%s", args[1], p.text())
		}
		return
	}
	line, err := p.waitFor(args[1])
	ts.Check(err)
	ts.Logf("%s", line)
}

func (s *stage) server(ts *testscript.TestScript, name string) *serving {
	p := s.servers[name]
	if p == nil {
		ts.Fatalf("no server is called %s", name)
	}
	return p
}

func endProcess(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1, "end NAME")
	ts.Check(stageOf(ts).server(ts, args[0]).end())
}

func crashProcess(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 1, "crash NAME")
	stageOf(ts).server(ts, args[0]).kill()
}

// fetch is a program that gets a URL.
func fetch() {
	answer, err := (&http.Client{Transport: &http.Transport{Proxy: nil}, Timeout: patience}).Get(os.Args[1])
	if err == nil {
		defer answer.Body.Close()
		fmt.Println(answer.Status)
		_, err = io.Copy(os.Stdout, answer.Body)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
