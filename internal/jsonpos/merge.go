package jsonpos

// Merge applies patches to an object as RFC 7396 says, nulls of the object itself
// removed, too; docs[0] is the object, all are objects. It takes all at once: one
// after the other each would cost a copy of what there is. The result shares lists
// and scalars with the documents, none of which is changed; every part keeps its
// position.
func Merge(docs []*Value) *Value {
	out := &Value{Kind: Object, Pos: docs[0].Pos, Members: make([]Member, 0, len(docs[0].Members))}
	if len(docs) == 1 {
		for _, m := range docs[0].Members {
			switch m.Value.Kind {
			case Null:
				continue
			case Object:
				m.Value = Merge([]*Value{m.Value})
			}
			out.Members = append(out.Members, m)
		}
		return out
	}
	// slot is a member to be: the last value, and if it is an object the ones
	// that it is merged over.
	type slot struct {
		Member
		below []*Value
	}
	var slots []slot
	byKey := make(map[string]int, len(docs[0].Members))
	for _, d := range docs {
		for _, m := range d.Members {
			i, ok := byKey[m.Key]
			switch {
			case m.Value.Kind == Null && ok:
				slots[i].Value = nil
				delete(byKey, m.Key) // it would come back as the last
			case m.Value.Kind == Null:
			case !ok:
				byKey[m.Key] = len(slots)
				slots = append(slots, slot{Member: m})
			case m.Value.Kind == Object && slots[i].Value.Kind == Object:
				slots[i].below = append(slots[i].below, slots[i].Value)
				slots[i].Member = m
			default:
				slots[i] = slot{Member: m}
			}
		}
	}
	for _, s := range slots {
		if s.Value == nil {
			continue
		}
		if s.Value.Kind == Object {
			s.Value = Merge(append(s.below, s.Value))
		}
		out.Members = append(out.Members, s.Member)
	}
	return out
}
