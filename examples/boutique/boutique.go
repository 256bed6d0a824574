// Package boutique is the Online Boutique, Google's microservice demo, as
// Microwall policies: one folder a namespace, one namespace a team, and one
// namespace of guardrails above them all.
//
// [FS] holds the folders. [Graph] is the truth that they are held against: which
// service account calls which method. Everything that is not in the graph is to
// be denied, methods that exist but that nobody calls included.
package boutique

import (
	"bytes"
	"embed"
	"encoding/json"
	"maps"
	"slices"
)

// FS is this folder. Every namespace is one folder at its root, an OPA bundle
// with its tests; the folder of the namespace boutique is guardrails, the folder
// of boutique.cart is cart.
//
//go:embed README.md callgraph.json trust.yaml
//go:embed all:guardrails
//go:embed all:ad all:cart all:checkout all:currency all:email all:frontend
//go:embed all:payment all:productcatalog all:recommendation all:shipping
var FS embed.FS

//go:embed callgraph.json
var callgraph []byte

// A CallGraph says who calls whom in the boutique.
type CallGraph struct {
	// TrustDomain is the SPIFFE trust domain of every caller: "boutique.example".
	TrustDomain string `json:"trust_domain"`
	// Guardrail is the namespace whose denies bind all services: "boutique".
	Guardrail string `json:"guardrail"`
	// Callers are all service accounts of the boutique, sorted, those that call
	// nobody included.
	Callers []string `json:"callers"`
	// Services are what can be called, the edge first.
	Services []Service `json:"services"`
}

// A Service is what one team owns.
type Service struct {
	// Namespace is the service's own: "boutique.cart".
	Namespace string `json:"namespace"`
	// Account is the service account under which it calls others: "cartservice".
	Account string `json:"account"`
	// Name is the full name of the gRPC service, "hipstershop.CartService". It is
	// empty for the frontend, which speaks HTTP.
	Name string `json:"service"`
	// Methods are all methods that the service has.
	Methods []Method `json:"methods"`
}

// A Method is one gRPC method of a service, or one HTTP method of one route.
type Method struct {
	// Name is "AddItem", or "POST".
	Name string `json:"name"`
	// Route is the HTTP route as the router knows it, "/product/{id}", and Path one
	// path on it. Both are empty for gRPC.
	Route string `json:"route"`
	Path  string `json:"path"`
	// Callers are the service accounts that may call the method; none may call it
	// if there are none.
	Callers []string `json:"callers"`
	// Context is what an honest request carries in its context besides the call
	// path, such as the amount of a charge; nil for nothing.
	Context map[string]any `json:"context"`
}

// A Call is one caller trying one method: an AuthZEN request, and whether the
// graph has it. The type of the subject is "workload".
type Call struct {
	// Namespace is the one that decides.
	Namespace string
	// Caller is the service account, Subject its SPIFFE ID.
	Caller  string
	Subject string
	// Action is the method's name.
	Action string
	// ResourceType is "grpc" or "route", ResourceID the service or the route, and
	// Properties the resource's properties, nil for gRPC.
	ResourceType string
	ResourceID   string
	Properties   map[string]any
	// Context holds call_path, a []string of SPIFFE IDs from the edge to the
	// subject, and what the method's own Context has.
	Context map[string]any
	// Allowed says whether the graph has this call.
	Allowed bool
}

// Graph returns the call graph in callgraph.json. Each call returns a copy of its
// own. It panics if the file, which is part of the program, cannot be read.
func Graph() CallGraph {
	var g CallGraph
	d := json.NewDecoder(bytes.NewReader(callgraph))
	d.DisallowUnknownFields()
	if err := d.Decode(&g); err != nil {
		panic("boutique: callgraph.json: " + err.Error())
	}
	return g
}

// SPIFFE returns the SPIFFE ID of a service account.
func (g CallGraph) SPIFFE(account string) string {
	return "spiffe://" + g.TrustDomain + "/ns/default/sa/" + account
}

// Calls returns the whole matrix, every caller with every method, in the order of
// Services, Methods and Callers.
func (g CallGraph) Calls() []Call {
	var calls []Call
	for _, s := range g.Services {
		for _, m := range s.Methods {
			for _, caller := range g.Callers {
				calls = append(calls, g.call(s, m, caller))
			}
		}
	}
	return calls
}

func (g CallGraph) call(s Service, m Method, caller string) Call {
	c := Call{
		Namespace:    s.Namespace,
		Caller:       caller,
		Subject:      g.SPIFFE(caller),
		Action:       m.Name,
		ResourceType: "grpc",
		ResourceID:   s.Name,
		Context:      map[string]any{"call_path": g.path(caller)},
		Allowed:      slices.Contains(m.Callers, caller),
	}
	if m.Route != "" {
		c.ResourceType, c.ResourceID = "route", m.Route
		c.Properties = map[string]any{"path": m.Path}
	}
	maps.Copy(c.Context, m.Context)
	return c
}

// path returns the SPIFFE IDs from the edge to an account: the path of the first
// that calls it, then itself. The graph has no circles.
func (g CallGraph) path(account string) []string {
	for _, s := range g.Services {
		if s.Account != account {
			continue
		}
		for _, m := range s.Methods {
			if len(m.Callers) > 0 {
				return append(g.path(m.Callers[0]), g.SPIFFE(account))
			}
		}
	}
	return []string{g.SPIFFE(account)}
}
