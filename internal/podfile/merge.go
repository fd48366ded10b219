package podfile

import "github.com/rkt-systemd/rkt/internal/jsonpos"

// merge applies patches to an object as RFC 7396 says; docs[0] is the object, all
// are objects. It is jsonpos.Merge for all of them at once: a pod may have many
// drop-ins, and one after the other each would cost a copy of all the pod. The
// result shares lists and scalars with the documents.
func merge(docs []*jsonpos.Value) *jsonpos.Value {
	out := &jsonpos.Value{Kind: jsonpos.Object, Pos: docs[0].Pos, Members: make([]jsonpos.Member, 0, len(docs[0].Members))}
	if len(docs) == 1 {
		for _, m := range docs[0].Members {
			switch m.Value.Kind {
			case jsonpos.Null:
				continue
			case jsonpos.Object:
				m.Value = merge([]*jsonpos.Value{m.Value})
			}
			out.Members = append(out.Members, m)
		}
		return out
	}
	// slot is a member to be: the last value, and if it is an object the ones
	// that it is merged over.
	type slot struct {
		jsonpos.Member
		below []*jsonpos.Value
	}
	var slots []slot
	byKey := make(map[string]int, len(docs[0].Members))
	for _, d := range docs {
		for _, m := range d.Members {
			i, ok := byKey[m.Key]
			switch {
			case m.Value.Kind == jsonpos.Null && ok:
				slots[i].Value = nil
				delete(byKey, m.Key) // it would come back as the last
			case m.Value.Kind == jsonpos.Null:
			case !ok:
				byKey[m.Key] = len(slots)
				slots = append(slots, slot{Member: m})
			case m.Value.Kind == jsonpos.Object && slots[i].Value.Kind == jsonpos.Object:
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
		if s.Value.Kind == jsonpos.Object {
			s.Value = merge(append(s.below, s.Value))
		}
		out.Members = append(out.Members, s.Member)
	}
	return out
}
