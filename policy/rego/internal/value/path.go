package value

// Path is a look-up of one name after the other, prepared.
type Path struct {
	keys []Key
	// part, if it is not 0, says what the first few names, known of them, are of
	// an input.
	part  uint8
	known int
}

// The members of an input that are found without looking for them.
const (
	subjectType = 1 + iota
	subjectID
	subjectProperties
	actionName
	actionProperties
	resourceType
	resourceID
	resourceProperties
	context
)

var inputParts = map[[2]string]uint8{
	{"subject", "type"}: subjectType, {"subject", "id"}: subjectID, {"subject", "properties"}: subjectProperties,
	{"action", "name"}: actionName, {"action", "properties"}: actionProperties,
	{"resource", "type"}: resourceType, {"resource", "id"}: resourceID, {"resource", "properties"}: resourceProperties,
}

// Path prepares the look-up of names. d, which may be nil, is the data that most
// of them are looked up in, if they are looked up in data.
func (d *Data) Path(names ...string) *Path {
	p := &Path{}
	for _, name := range names {
		p.keys = append(p.keys, d.Key(name))
	}
	switch {
	case len(names) > 0 && names[0] == "context":
		p.part, p.known = context, 1
	case len(names) > 1:
		p.part, p.known = inputParts[[2]string{names[0], names[1]}], 2
	}
	return p
}

// Of looks the names up from v: the undefined Value if one of them is not there.
func (p *Path) Of(v Value) Value {
	keys := p.keys
	if p.part != 0 && v.form() == view && v.num == viewInput {
		v = v.ref.(*Input).direct(p.part)
		keys = keys[p.known:]
	}
	for i := range keys {
		v = v.GetKey(&keys[i])
	}
	return v
}

func (in *Input) direct(part uint8) Value {
	r := &in.Request
	switch part {
	case subjectType:
		return Text(r.Subject.Type)
	case subjectID:
		return Text(r.Subject.ID)
	case subjectProperties:
		return properties(r.Subject.Properties)
	case actionName:
		return Text(r.Action.Name)
	case actionProperties:
		return properties(r.Action.Properties)
	case resourceType:
		return Text(r.Resource.Type)
	case resourceID:
		return Text(r.Resource.ID)
	case resourceProperties:
		return properties(r.Resource.Properties)
	}
	return properties(r.Context)
}
