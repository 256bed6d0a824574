package front

// Functions returns the paths of the rules that are functions, for instance
// "data.lib.f".
func (c *Compiled) Functions() map[string]bool {
	paths := map[string]bool{}
	for _, m := range c.compiler.Modules {
		for _, r := range m.Rules {
			if len(r.Head.Args) > 0 {
				paths[r.Ref().String()] = true
			}
		}
	}
	return paths
}
