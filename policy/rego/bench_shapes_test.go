package rego_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
)

// shapes returns the shape of each name that a benchmark has.
func shapes() []func(testing.TB) *shape {
	return []func(testing.TB) *shape{
		attributesShape,
		rolesShape,
		func(tb testing.TB) *shape { return rulesShape(tb, "rules100", 100) },
		func(tb testing.TB) *shape { return rulesShape(tb, "rules10k", 10_000) },
		groupsShape,
		comprehensionsShape,
		stringsShape,
	}
}

// attributesShape: three rules over department, owner and role list.
func attributesShape(testing.TB) *shape {
	person := func(id, department string, roles ...any) entity {
		return entity{"user", id, map[string]any{"department": department, "roles": roles, "country": "de", "clearance": 3}}
	}
	document := func(id, department, owner string) entity {
		return entity{"document", id, map[string]any{"department": department, "owner": owner, "title": "Plan for " + id, "version": 7}}
	}
	context := map[string]any{"address": "10.1.2.3", "trace": "4bf92f3577b34da6a3ce929d0e0e4736"}
	ana, ben := person("ana", "engineering", "developer", "reviewer"), person("ben", "sales", "account-manager")
	root := person("root", "operations", "developer", "on-call", "admin")
	plan, offer := document("plan-1", "engineering", "carla"), document("offer-2", "finance", "ben")
	s := &shape{
		name: "attributes",
		module: `package authz

default allow := false

# A department reads what is its own.
allow if {
	input.action.name == "read"
	input.subject.properties.department == input.resource.properties.department
}

allow if input.resource.properties.owner == input.subject.id

allow if "admin" in input.subject.properties.roles
`,
		questions: []question{
			{name: "a colleague reads", subject: ana, action: "read", resource: plan, context: context, allow: true},
			{name: "a colleague writes", subject: ana, action: "write", resource: plan, context: context},
			{name: "an owner writes", subject: ben, action: "write", resource: offer, context: context, allow: true},
			{name: "a stranger reads", subject: ana, action: "read", resource: offer, context: context},
			{name: "an admin deletes", subject: root, action: "delete", resource: offer, context: context, allow: true},
			{name: "a stranger deletes", subject: ben, action: "delete", resource: plan, context: context},
		},
	}
	// Every entity has its attributes, as a schema would demand, so that the
	// policies need no `has`.
	s.cedar = &cedarShape{
		policies: `
permit (principal, action == Action::"read", resource)
when { principal.department == resource.department };
permit (principal, action, resource) when { resource.owner == principal };
permit (principal, action, resource) when { principal.roles.contains("admin") };`,
		entities: cedar.EntityMap{},
	}
	for _, q := range s.questions {
		var roles []cedar.Value
		for _, role := range q.subject.properties["roles"].([]any) {
			roles = append(roles, cedar.String(role.(string)))
		}
		s.cedar.add("User", q.subject.id, cedar.RecordMap{
			"department": cedar.String(q.subject.properties["department"].(string)),
			"roles":      cedar.NewSet(roles...),
			"country":    cedar.String("de"),
			"clearance":  cedar.Long(3),
		})
		s.cedar.add("Document", q.resource.id, cedar.RecordMap{
			"department": cedar.String(q.resource.properties["department"].(string)),
			"owner":      uid("User", q.resource.properties["owner"].(string)),
			"title":      cedar.String("Plan for " + q.resource.id),
			"version":    cedar.Long(7),
		})
	}
	known := cedar.NewRecord(cedar.RecordMap{
		"address": cedar.String(context["address"].(string)), "trace": cedar.String(context["trace"].(string)),
	})
	s.cedar.request = func(q question) cedar.Request {
		return cedar.Request{Principal: uid("User", q.subject.id), Action: uid("Action", q.action), Resource: uid("Document", q.resource.id), Context: known}
	}
	return s
}

// rolesShape: 1,000 users with three of 100 roles each, and ten permissions a
// role, scanned as people write it.
func rolesShape(testing.TB) *shape {
	const users, roles, permissions, each = 1000, 100, 10, 3
	actions := []string{"list", "read", "create", "update", "delete", "approve", "export", "share"}
	resources := []string{"invoice", "order", "customer", "product", "shipment", "refund", "report", "ledger", "contract", "ticket", "campaign", "budget"}
	random := rand.New(rand.NewPCG(3, 1))
	type permission struct{ action, resource string }
	held := make(map[string][]permission, roles)
	roleData := make(map[string]any, roles)
	for r := range roles {
		name := fmt.Sprintf("role-%02d", r)
		var list []any
		for _, n := range random.Perm(len(actions) * len(resources))[:permissions] {
			p := permission{actions[n%len(actions)], resources[n/len(actions)]}
			held[name] = append(held[name], p)
			list = append(list, map[string]any{"action": p.action, "resource": p.resource})
		}
		roleData[name] = list
	}
	userRoles := make(map[string][]string, users)
	userData := make(map[string]any, users)
	for u := range users {
		name := fmt.Sprintf("user-%03d", u)
		var list []any
		for _, r := range random.Perm(roles)[:each] {
			userRoles[name] = append(userRoles[name], fmt.Sprintf("role-%02d", r))
			list = append(list, fmt.Sprintf("role-%02d", r))
		}
		userData[name] = list
	}
	may := func(user string, p permission) bool {
		for _, role := range userRoles[user] {
			if slices.Contains(held[role], p) {
				return true
			}
		}
		return false
	}
	s := &shape{
		name: "roles",
		module: `package authz

default allow := false

allow if {
	some role in data.user_roles[input.subject.id]
	some perm in data.roles[role]
	perm.action == input.action.name
	perm.resource == input.resource.type
}
`,
		data: map[string]any{"user_roles": userData, "roles": roleData},
	}
	ask := func(name, user string, p permission) {
		s.questions = append(s.questions, question{
			name: name, subject: entity{"user", user, nil}, action: p.action,
			resource: entity{p.resource, p.resource + "-4711", nil}, allow: may(user, p),
		})
	}
	ask("the first permission of the first role", "user-007", held[userRoles["user-007"][0]][0])
	ask("in the middle", "user-500", held[userRoles["user-500"][1]][5])
	ask("the last permission of the last role", "user-993", held[userRoles["user-993"][each-1]][permissions-1])
	ask("none of the permissions", "user-250", lacking(may, "user-250", permission{"approve", "contract"}, permission{"delete", "ledger"}, permission{"export", "budget"}))
	ask("an action that nobody may do", "user-700", permission{"destroy", "ledger"})
	ask("a user that has no roles", "user-none", permission{"read", "order"})

	// A permission is an entity above the roles that hold it, and whoever asks
	// names it: of the ways in which Cedar can be asked this (a policy a role,
	// a policy a permission, sets of roles in the resource) the quickest.
	s.cedar = &cedarShape{
		policies: `permit (principal, action, resource) when { principal in context.permission };`,
		entities: cedar.EntityMap{},
		request: func(q question) cedar.Request {
			return cedar.Request{
				Principal: uid("User", q.subject.id), Action: uid("Action", q.action), Resource: uid("Kind", q.resource.kind),
				Context: cedar.NewRecord(cedar.RecordMap{"permission": uid("Permission", q.action+" "+q.resource.kind)}),
			}
		},
	}
	for user, list := range userRoles {
		var parents []cedar.EntityUID
		for _, role := range list {
			parents = append(parents, uid("Role", role))
		}
		s.cedar.add("User", user, nil, parents...)
	}
	for role, list := range held {
		var parents []cedar.EntityUID
		for _, p := range list {
			parents = append(parents, uid("Permission", p.action+" "+p.resource))
		}
		s.cedar.add("Role", role, nil, parents...)
	}
	return s
}

// lacking returns the first of some permissions that a user has not.
func lacking[P any](may func(string, P) bool, user string, some ...P) P {
	for _, p := range some {
		if !may(user, p) {
			return p
		}
	}
	panic("the user may do all of it")
}

// rulesShape: n rules, each two equality tests on the request.
func rulesShape(_ testing.TB, name string, n int) *shape {
	action := func(i int) string { return fmt.Sprintf("action-%05d", i) }
	resource := func(i int) string { return fmt.Sprintf("resource-%05d", i) }
	var module, policies strings.Builder
	module.WriteString("package authz\n\ndefault allow := false\n")
	for i := range n {
		fmt.Fprintf(&module, "\nallow if {\n\tinput.action.name == %q\n\tinput.resource.id == %q\n}\n", action(i), resource(i))
		fmt.Fprintf(&policies, "permit (principal, action == Action::%q, resource == Thing::%q);\n", action(i), resource(i))
	}
	s := &shape{name: name, module: module.String()}
	for _, q := range []struct {
		name             string
		action, resource int
	}{
		{"the first rule", 0, 0},
		{"the last rule", n - 1, n - 1},
		{"two rules, half of each", n / 3, n / 2},
		{"a rule in the middle", n / 2, n / 2},
		{"no rule has the resource", n / 4, n},
		{"no rule has the action", n, n / 4},
	} {
		s.questions = append(s.questions, question{
			name: q.name, subject: entity{"user", "ana", nil}, action: action(q.action),
			resource: entity{"thing", resource(q.resource), nil}, allow: q.action == q.resource,
		})
	}
	s.cedar = &cedarShape{
		policies: policies.String(),
		entities: cedar.EntityMap{},
		request: func(q question) cedar.Request {
			return cedar.Request{Principal: uid("User", q.subject.id), Action: uid("Action", q.action), Resource: uid("Thing", q.resource.id)}
		},
	}
	return s
}

// groupsShape: 1,000 groups nested in one another without a cycle, of which
// nearly all are reached from the ones that people are in.
func groupsShape(testing.TB) *shape {
	const groups, apart = 1000, 20
	name := func(i int) string { return fmt.Sprintf("group-%03d", i) }
	random := rand.New(rand.NewPCG(3, 2))
	parents := make(map[string]any, groups)
	nested := make(map[string][]string, groups)
	for i := range groups {
		// The last few are a chain of their own.
		above, below := []int{2*i + 1, 2*i + 2}, groups-apart
		if i >= below {
			above, below = []int{i + 1}, groups
		} else if i+1 < below {
			above = append(above, i+1+random.IntN(below-i-1))
		}
		list := []any{}
		for _, j := range above {
			if j < below {
				list = append(list, name(j))
				nested[name(i)] = append(nested[name(i)], name(j))
			}
		}
		parents[name(i)] = list
	}
	members := map[string]any{
		"ana": []any{name(0)}, "ben": []any{name(1), name(2)}, "carla": []any{name(groups - apart)},
	}
	readers := map[string]any{
		"handbook": []any{name(groups - apart - 1), name(groups - 1)},
		"payroll":  []any{name(groups - apart/2), name(groups - 2)},
		"wiki":     []any{name(411), name(3)},
	}
	s := &shape{
		name: "groups",
		module: `package authz

default allow := false

allow if {
	input.action.name == "read"
	groups := graph.reachable(data.parents, data.members[input.subject.id])
	some group in data.readers[input.resource.id]
	group in groups
}
`,
		data: map[string]any{"parents": parents, "members": members, "readers": readers},
	}
	for _, q := range []struct {
		name, user, document string
		allow                bool
	}{
		{"far away", "ana", "handbook", true},
		{"nowhere in a thousand", "ana", "payroll", false},
		{"from two groups", "ben", "wiki", true},
		{"nowhere from two groups", "ben", "payroll", false},
		{"another far one", "ben", "handbook", true},
		{"through few groups", "carla", "payroll", true},
	} {
		s.questions = append(s.questions, question{
			name: q.name, subject: entity{"user", q.user, nil}, action: "read",
			resource: entity{"document", q.document, nil}, allow: q.allow,
		})
	}
	s.cedar = &cedarShape{
		policies: `permit (principal, action == Action::"read", resource) when { principal in resource.readers };`,
		entities: cedar.EntityMap{},
		request: func(q question) cedar.Request {
			return cedar.Request{Principal: uid("User", q.subject.id), Action: uid("Action", q.action), Resource: uid("Document", q.resource.id)}
		},
	}
	groupUIDs := func(list []any) (uids []cedar.EntityUID) {
		for _, g := range list {
			uids = append(uids, uid("Group", g.(string)))
		}
		return uids
	}
	for group, list := range parents {
		s.cedar.add("Group", group, nil, groupUIDs(list.([]any))...)
	}
	for user, list := range members {
		s.cedar.add("User", user, nil, groupUIDs(list.([]any))...)
	}
	for document, list := range readers {
		var set []cedar.Value
		for _, g := range groupUIDs(list.([]any)) {
			set = append(set, g)
		}
		s.cedar.add("Document", document, cedar.RecordMap{"readers": cedar.NewSet(set...)})
	}
	return s
}

// comprehensionsShape: an order of 100 lines, looked through by `every`, summed
// and held against a list.
func comprehensionsShape(testing.TB) *shape {
	const lines = 100
	categories := []string{"book", "tool", "toy", "food"}
	sku := func(i int) string { return fmt.Sprintf("sku-%04d", i) }
	order := func(id string, change func(i int, line map[string]any)) entity {
		list := make([]any, lines)
		for i := range list {
			line := map[string]any{"sku": sku(i * 7), "category": categories[i%len(categories)], "quantity": json.Number("3"), "price": json.Number(fmt.Sprint(100 + i))}
			change(i, line)
			list[i] = line
		}
		return entity{"order", id, map[string]any{"lines": list, "customer": "acme"}}
	}
	buyer := func(id, level string) entity { return entity{"user", id, map[string]any{"level": level}} }
	plain := order("order-1", func(int, map[string]any) {})
	var recalled []any
	for i := range 25 {
		recalled = append(recalled, sku(5000+i))
	}
	return &shape{
		name: "comprehensions",
		module: `package authz

default allow := false

allow if {
	input.action.name == "submit"
	every line in input.resource.properties.lines {
		line.quantity > 0
		line.quantity <= data.most[line.category]
	}
	costs := [cost | some line in input.resource.properties.lines; cost := line.quantity * line.price]
	sum(costs) <= data.limits[input.subject.properties.level]
}

deny contains sprintf("%s has been recalled", [sku]) if {
	some sku in {line.sku | some line in input.resource.properties.lines} & {sku | some sku in data.recalled}
}
`,
		data: map[string]any{
			"most":     map[string]any{"book": json.Number("10"), "tool": json.Number("5"), "toy": json.Number("20"), "food": json.Number("50")},
			"limits":   map[string]any{"junior": json.Number("1000"), "senior": json.Number("100000")},
			"recalled": recalled,
		},
		questions: []question{
			{name: "all is well", subject: buyer("ana", "senior"), action: "submit", resource: plain, allow: true},
			{name: "too dear for a junior", subject: buyer("ben", "junior"), action: "submit", resource: plain},
			{name: "one line too large", subject: buyer("ana", "senior"), action: "submit", resource: order("order-2", func(i int, line map[string]any) {
				if i == lines-7 {
					line["quantity"] = json.Number("9")
				}
			})},
			{name: "another that is well", subject: buyer("carla", "senior"), action: "submit", allow: true, resource: order("order-3", func(i int, line map[string]any) {
				line["quantity"] = json.Number(fmt.Sprint(1 + i%3))
			})},
			{name: "one product recalled", subject: buyer("ana", "senior"), action: "submit", allow: true, resource: order("order-4", func(i int, line map[string]any) {
				if i == 50 {
					line["sku"] = sku(5007)
				}
			}), deny: []string{"sku-5007 has been recalled"}},
		},
	}
}

// stringsShape: prefix, glob, regular expression and CIDR.
func stringsShape(testing.TB) *shape {
	from := func(address string) map[string]any { return map[string]any{"address": address} }
	route := func(path string) entity { return entity{"route", path, nil} }
	public, mfa := []string{"everyone may see it"}, `{"mfa":{"max_age":300}}`
	return &shape{
		name: "strings",
		module: "package authz\n" + `
default allow := false

allow if startswith(input.resource.id, "/public/")

allow if {
	glob.match("/teams/*/documents/**", ["/"], input.resource.id)
	regex.match(` + "`^[a-z]+(-[a-z]+)*@example\\.(com|org)$`" + `, input.subject.id)
}

allow if {
	startswith(input.resource.id, "/admin/")
	some network in data.networks
	net.cidr_contains(network, input.context.address)
}

deny contains "the address is blocked" if net.cidr_contains("203.0.113.0/24", input.context.address)

reasons contains "everyone may see it" if startswith(input.resource.id, "/public/")

obligations["mfa"] := {"max_age": 300} if startswith(input.resource.id, "/admin/")
`,
		data: map[string]any{"networks": []any{"192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8"}},
		questions: []question{
			{name: "public", subject: entity{"user", "guest", nil}, action: "GET", resource: route("/public/css/main.css"), context: from("198.51.100.7"), allow: true, reasons: public},
			{name: "a team's document", subject: entity{"user", "anna-maria@example.com", nil}, action: "GET", resource: route("/teams/cart/documents/2026/plan.md"), context: from("198.51.100.8"), allow: true},
			{name: "a document, from elsewhere", subject: entity{"user", "anna@example.net", nil}, action: "GET", resource: route("/teams/cart/documents/plan.md"), context: from("198.51.100.9")},
			{name: "administration from inside", subject: entity{"user", "root", nil}, action: "POST", resource: route("/admin/users"), context: from("10.20.30.40"), allow: true, obligations: mfa},
			{name: "administration from outside", subject: entity{"user", "root", nil}, action: "POST", resource: route("/admin/users"), context: from("198.51.100.10"), obligations: mfa},
			{name: "public, but blocked", subject: entity{"user", "guest", nil}, action: "GET", resource: route("/public/index.html"), context: from("203.0.113.99"), allow: true, reasons: public, deny: []string{"the address is blocked"}},
		},
	}
}
