package boutique_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/examples/boutique"
	"github.com/microwall/microwall/internal/decisions"
	"github.com/microwall/microwall/policy"
)

// The demo's call graph, written down a second time and by hand.
var wanted = map[string][]string{
	"loadgenerator -> frontend": {
		"GET /", "GET /product/{id}", "GET /cart", "POST /cart", "POST /cart/empty", "POST /setCurrency",
		"GET /logout", "POST /cart/checkout",
	},
	"frontend -> hipstershop.AdService":                          {"GetAds"},
	"frontend -> hipstershop.RecommendationService":              {"ListRecommendations"},
	"frontend -> hipstershop.ProductCatalogService":              {"ListProducts", "GetProduct"},
	"frontend -> hipstershop.CartService":                        {"AddItem", "GetCart", "EmptyCart"},
	"frontend -> hipstershop.ShippingService":                    {"GetQuote"},
	"frontend -> hipstershop.CurrencyService":                    {"GetSupportedCurrencies", "Convert"},
	"frontend -> hipstershop.CheckoutService":                    {"PlaceOrder"},
	"recommendationservice -> hipstershop.ProductCatalogService": {"ListProducts"},
	"checkoutservice -> hipstershop.CartService":                 {"GetCart", "EmptyCart"},
	"checkoutservice -> hipstershop.ProductCatalogService":       {"GetProduct"},
	"checkoutservice -> hipstershop.CurrencyService":             {"Convert"},
	"checkoutservice -> hipstershop.ShippingService":             {"GetQuote", "ShipOrder"},
	"checkoutservice -> hipstershop.PaymentService":              {"Charge"},
	"checkoutservice -> hipstershop.EmailService":                {"SendOrderConfirmation"},
}

func TestGraphIsTheDemosOwn(t *testing.T) {
	want := map[string]bool{}
	for edge, methods := range wanted {
		for _, method := range methods {
			want[edge+" "+method] = true
		}
	}
	got := map[string]bool{}
	for _, c := range boutique.Graph().Calls() {
		if !c.Allowed {
			continue
		}
		if c.ResourceType == "route" {
			got[c.Caller+" -> frontend "+c.Action+" "+c.ResourceID] = true
		} else {
			got[c.Caller+" -> "+c.ResourceID+" "+c.Action] = true
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the graph allows\n%s\nwant\n%s", lines(got), lines(want))
	}
}

func TestCallsAreEveryCallerAndEveryMethod(t *testing.T) {
	g := boutique.Graph()
	methods := 0
	for _, s := range g.Services {
		methods += len(s.Methods)
		if !slices.Contains(g.Callers, s.Account) {
			t.Errorf("%s: account %q is not among the callers", s.Namespace, s.Account)
		}
		for _, m := range s.Methods {
			for _, caller := range m.Callers {
				if !slices.Contains(g.Callers, caller) {
					t.Errorf("%s %s: caller %q is not among the callers", s.Namespace, m.Name, caller)
				}
			}
		}
	}
	seen := map[string]bool{}
	for _, c := range g.Calls() {
		seen[strings.Join([]string{c.Namespace, c.Caller, c.Action, c.ResourceType, c.ResourceID}, " ")] = true
		callPath := c.Context["call_path"].([]string)
		if last := callPath[len(callPath)-1]; last != c.Subject {
			t.Errorf("%s %s: call path ends with %s, want the subject %s", c.Namespace, c.Action, last, c.Subject)
		}
	}
	if want := methods * len(g.Callers); len(seen) != want || len(g.Calls()) != want {
		t.Errorf("%d calls, %d of them different, want %d", len(g.Calls()), len(seen), want)
	}
}

func TestCallPathBeginsAtTheEdge(t *testing.T) {
	g := boutique.Graph()
	want := []string{g.SPIFFE("loadgenerator"), g.SPIFFE("frontend"), g.SPIFFE("checkoutservice")}
	for _, c := range g.Calls() {
		if c.Caller == "checkoutservice" && c.Action == "Charge" {
			if got := c.Context["call_path"].([]string); !slices.Equal(got, want) {
				t.Errorf("call path %q, want %q", got, want)
			}
			if c.Context["amount"] == nil {
				t.Error("a charge without an amount")
			}
			return
		}
	}
	t.Error("no Charge by checkoutservice")
}

// The graph's namespaces and the folders are the same, and each folder has all
// that belongs to a policy.
func TestEveryNamespaceIsAFolder(t *testing.T) {
	g := boutique.Graph()
	want := map[string]string{"guardrails": g.Guardrail}
	for _, s := range g.Services {
		want[strings.TrimPrefix(s.Namespace, g.Guardrail+".")] = s.Namespace
	}
	got := map[string]string{}
	for _, folder := range folders(t) {
		got[folder] = manifestNamespace(t, folder)
		for _, name := range []string{"authz.rego", "authz_test.rego", "decisions.yaml"} {
			if _, err := fs.Stat(boutique.FS, path.Join(folder, name)); err != nil {
				t.Error(err)
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("folders %v, want %v", got, want)
	}
}

// A file that is on disk and not in FS would be a policy that the demo lacks.
func TestFSHoldsEveryFolderOfTheDisk(t *testing.T) {
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) == ".go" {
			return err
		}
		onDisk, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		embedded, err := boutique.FS.ReadFile(name)
		if err != nil {
			return err
		}
		if !bytes.Equal(onDisk, embedded) {
			t.Errorf("%s differs", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The trust file names the guardrails, and lets nobody sign: its key was not made
// from a private one.
func TestTheTrustFileNamesTheGuardrailsAndNoSigner(t *testing.T) {
	text, err := boutique.FS.ReadFile(live.TrustFile)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := bundles.ParseTrust(text)
	if err != nil {
		t.Fatal(err)
	}
	guardrail := policy.Namespace(boutique.Graph().Guardrail)
	if got := trust.Namespaces(); len(got) != 1 || got[0] != guardrail || !trust.IsGuardrail(guardrail) {
		t.Errorf("it names %v, want %s as a guardrail", got, guardrail)
	}
	nobody := sha256.Sum256([]byte("nobody holds this key"))
	key := base64.StdEncoding.EncodeToString(append([]byte{1}, nobody[:]...)) // 1 is Ed25519
	if keys := regexp.MustCompile(`\w+\+[0-9a-f]{8}\+\S+`).FindAllString(string(text), -1); len(keys) != 1 || !strings.HasSuffix(keys[0], "+"+key) {
		t.Errorf("its keys are %q, want one that ends with %s", keys, key)
	}
}

// The decisions that a team writes down allow every call of the graph, and none
// besides.
func TestDecisionsAllowWhatTheGraphAllows(t *testing.T) {
	g := boutique.Graph()
	want := map[string]map[string]bool{g.Guardrail: {}}
	for _, c := range g.Calls() {
		if want[c.Namespace] == nil {
			want[c.Namespace] = map[string]bool{}
		}
		if c.Allowed {
			want[c.Namespace][edge("workload", c.Subject, c.Action, c.ResourceType, c.ResourceID)] = true
		}
	}
	for _, folder := range folders(t) {
		t.Run(folder, func(t *testing.T) {
			got, denied := map[string]bool{}, 0
			for _, c := range cases(t, folder) {
				if c.Want.Error != "" || !c.Want.Allowed {
					denied++
					continue
				}
				r := c.Request
				got[edge(r.Subject.Type, r.Subject.ID, r.Action.Name, r.Resource.Type, r.Resource.ID)] = true
			}
			if want := want[manifestNamespace(t, folder)]; !maps.Equal(got, want) {
				t.Errorf("decisions allow\n%s\nwant\n%s", lines(got), lines(want))
			}
			if denied == 0 {
				t.Error("no decision is a denial")
			}
		})
	}
}

func cases(t *testing.T, folder string) []decisions.Case {
	t.Helper()
	text, err := boutique.FS.ReadFile(path.Join(folder, decisions.File))
	if err != nil {
		t.Fatal(err)
	}
	all, err := decisions.Parse(text, policy.Namespace(manifestNamespace(t, folder)))
	if err != nil {
		t.Fatalf("%s/%s: %v", folder, decisions.File, err)
	}
	return all
}

func manifestNamespace(t *testing.T, folder string) string {
	t.Helper()
	text, err := boutique.FS.ReadFile(path.Join(folder, ".manifest"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Metadata struct {
			Microwall struct {
				Namespace string `json:"namespace"`
			} `json:"microwall"`
		} `json:"metadata"`
		RegoVersion int      `json:"rego_version"`
		Roots       []string `json:"roots"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&manifest); err != nil {
		t.Fatalf("%s/.manifest: %v", folder, err)
	}
	if manifest.RegoVersion != 1 || !slices.Equal(manifest.Roots, []string{""}) {
		t.Errorf("%s/.manifest: rego_version %d and roots %q, want 1 and the whole of data", folder, manifest.RegoVersion, manifest.Roots)
	}
	return manifest.Metadata.Microwall.Namespace
}

func folders(t *testing.T) []string {
	t.Helper()
	entries, err := boutique.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

func edge(subjectType, subject, action, resourceType, resource string) string {
	return fmt.Sprintf("%s %s -> %s %s %s", subjectType, subject, resourceType, resource, action)
}

func lines(set map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(set)), "\n")
}
