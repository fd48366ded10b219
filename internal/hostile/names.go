package hostile

import "strings"

// names are entries whose names lead elsewhere, or nearly.
func (c *corpus) names() {
	for _, r := range []struct{ name, text, layer, image string }{
		{"up", "../x=1", "!", "!"},
		{"up from below", "a/../../x=1", "!", "!"},
		{"up within", "a/../x=1", "!", "!"},
		{"up after a slash", "/../x=1", "!", "!"},
		{"up after a dot", "./../x=1", "!", "!"},
		{"up after dots", "././../x=1", "!", "!"},
		{"up last", "a/..=1", "!", "!"},
		{"up as a directory", "../", "!", "!"},
		{"up within as a directory", "a/../", "!", "!"},
		{"only up", "..=1", "!", "!"},
		{"up to the decoy", "../../../../../../../../../../..$C/secret=1", "!", "!"},
		{"up beside", "../canary/secret=1", "!", "!"},
		{"up with a link", "../x->$C", "!", "!"},
		{"up with a hard link", "a=1 ../x=>a", "!", "!"},
		{"absolute", "/abs=1", "abs=1", "abs=1"},
		{"absolute decoy", "$C/secret=1", "", ""},
		{"two slashes", "//abs=1", "!", "abs=1"},
		{"dot and slashes", ".//abs=1", "abs=1", "abs=1"},
		{"slashes within", "a//b=1", "a/ a/b=1", "a/ a/b=1"},
		{"dots within", "./a/./b=1", "a/ a/b=1", "a/ a/b=1"},
		{"three dots", "...=1 a/...=2", "...=1 a/ a/...=2", "...=1 a/ a/...=2"},
		{"dots and a letter", "..a=1", "..a=1", "..a=1"},
		{"backslashes", `..\..\x=1`, `..\..\x=1`, `..\..\x=1`},
		{"root as a file", ".=1", "!", "!"},
		{"root as a file with a slash", "./=1", "!", "!"},
		{"root as a link", "./->$C", "!", "!"},
		{"root as a hard link", "a=1 ./=>a", "!", "!"},
		{"root again", "./ a=1 ./", "a=1", "!"},
		{"slash as the root", "/ a=1", "a=1", "!"},
		{"file with a slash", "a/=1", "a=1", "a=1"},
		{"link with a slash, then through it", "l/->$C l/secret=x", "", "l/ l/secret=x"},
		{"case twins", "a=1 A=2", "A=2 a=1", "A=2 a=1"},
		{"composed twins", "\u00e9=1 e\u0301=2", "e\u0301=2 \u00e9=1", "e\u0301=2 \u00e9=1"},
		{"not UTF-8", "\xff\xfe=1", "\xff\xfe=1", "\xff\xfe=1"},
		{"terminal escapes", "\x1b]0;x\x07=1", "\x1b]0;x\x07=1", "\x1b]0;x\x07=1"},
		{"component of 255", strings.Repeat("a", 255) + "=1", strings.Repeat("a", 255) + "=1", strings.Repeat("a", 255) + "=1"},
		{"component of 256", strings.Repeat("a", 256) + "=1", "!", "!"},
		{"path of 4090", strings.Repeat("a/", 2044) + "x=1", "?", "?"},
		{"path of 4096", strings.Repeat("a/", 2047) + "xy=1", "?", "!"},
		{"path of 5000", strings.Repeat("a/", 2500) + "x=1", "!", "!"},
		{"path of 100000", strings.Repeat("abcdefghi/", 10000) + "x=1", "!", "!"},
		{"nothing at all", "", "/", "/"},
		{"file in the place of a parent", "a=1 a/b=2", "a/ a/b=2", "a/ a/b=2"},
		{"directory, then file", "a/ a/b=1 a=2", "a=2", "!"},
		{"file twice", "a=1 a=2", "a=2", "!"},
		{"directory twice", "a/ a/b=1 a/", "a/ a/b=1", "!"},
	} {
		c.lines(r.name, r.text, r.layer, r.image)
	}
	// Names that the lines cannot say.
	c.both("empty name", "!", "?", func(b *builder, top string) { b.file(top, "1") })
	c.both("name with a NUL", "a=1", "a=1", func(b *builder, top string) {
		b.file(top+"a\x00/../../x", "1")
	})
	c.both("prefix field up", "!", "!", func(b *builder, top string) {
		b.put(header{name: "x", body: []byte("1"), before: func(h []byte) { copy(h[345:], top+"a/../..") }})
	})
	c.both("prefix field", "p/ p/x=1", "p/ p/x=1", func(b *builder, top string) {
		b.put(header{name: "x", body: []byte("1"), before: func(h []byte) { copy(h[345:], top+"p") }})
	})
	c.both("old archive", "x=1", "x=1", func(b *builder, top string) {
		b.put(header{name: top + "x", body: []byte("1"), before: func(h []byte) { clear(h[257:]) }})
	})
	c.both("old archive with a slash", "x/", "x/", func(b *builder, top string) {
		b.put(header{name: top + "x/", before: func(h []byte) { clear(h[257:]); h[156] = 0 }})
	})
}

// links are symbolic and hard links in every order.
func (c *corpus) links() {
	up := strings.Repeat("../", 20)
	for _, r := range []struct{ name, text, layer, image string }{
		{"absolute link, write through", "l->$C l/secret=x", "", "l/ l/secret=x"},
		{"relative link, write through", "l->" + up + "canary l/secret=x", "", "l/ l/secret=x"},
		{"link beside the tree", "l->../canary l/secret=x l/new=y", "", "l/ l/new=y l/secret=x"},
		{"link beside the layer", "l->../../canary l/secret=x", "", "l/ l/secret=x"},
		{"link in a directory", "d/ d/l->../../canary d/l/secret=x", "", "d/ d/l/ d/l/secret=x"},
		{"link with dots in its middle", "d/ l->d/../../../canary l/secret=x", "", "d/ l/ l/secret=x"},
		{"chain", "a->b b->c c->$C a/secret=x", "", "a/ a/secret=x b->c c->$C"},
		{"circle", "a->b b->a a/x=1", "!", "a/ a/x=1 b->a"},
		{"own circle", "a->a a/x=1", "!", "a/ a/x=1"},
		{"circle not gone through", "a->b b->a", "a->b b->a", "a->b b->a"},
		{"link to the parent", "l->.. l/x=1", "l->.. x=1", "l/ l/x=1"},
		{"link to itself's directory", "l->. l/x=1", "l->. x=1", "l/ l/x=1"},
		{"link to the root", "l->/ l/x=1", "l->/ x=1", "l/ l/x=1"},
		{"link to nothing, write through", "l->nowhere l/x=1", "l->nowhere nowhere/ nowhere/x=1", "l/ l/x=1"},
		{"link to a file, write through", "f=1 l->f l/x=2", "f/ f/x=2 l->f", "f=1 l/ l/x=2"},
		{"file over a link", "l->$C/secret l=x", "l=x", "!"},
		{"directory over a link", "l->$C l/", "l/", "!"},
		{"directory over a link, then below", "l->$C l/ l/secret=x", "l/ l/secret=x", "!"},
		{"directory over a link gone through", "l->c l/x=1 l/ l/y=2", "c/ c/x=1 l/ l/y=2", "!"},
		{"link over a directory", "d/ d/secret=1 d->$C d/secret=2", "", "!"},
		{"link over a directory of directories", "c/ a/ a/b/ a/b/f=1 a->c a/b/g=2", "a->c c/ c/b/ c/b/g=2", "!"},
		{"link over a link gone through", "a->b a/x=1 a->c a/y=2", "a->c b/ b/x=1 c/ c/y=2", "!"},
		{"link's target replaced", "b/ a->b a/x=1 b->c a/y=2", "a->b b->c c/ c/y=2", "!"},
		{"hard link to a link, then over it", "l->$C/secret h=>l h=x", "h=x l->$C/secret", "!"},
		{"hard link to a link, write through", "l->$C h=>l h/secret=x", "", "h/ h/secret=x l->$C"},
		{"hard link to a link", "l->$C/secret h=>l", "h->$C/secret l->$C/secret", "h->$C/secret l->$C/secret"},
		{"hard link to an absolute path", "h=>$C/secret", "!", "!"},
		{"hard link up", "h=>../../canary/secret", "!", "!"},
		{"hard link far up", "h=>" + up + "$C/secret", "!", "!"},
		{"hard link through a link", "l->$C h=>l/secret", "!", "!"},
		{"hard link through a relative link", "l->../../canary h=>l/secret h=x", "!", "!"},
		{"hard link through a good link", "d/ d/f=1 l->d h=>l/f", "d/ d/f=1 h=1 l->d", "!"},
		{"hard link before its target", "h=>a a=1", "!", "!"},
		{"hard link to a directory", "d/ h=>d", "!", "!"},
		{"hard link to itself", "h=>h", "!", "!"},
		{"hard link to itself, a file", "a=1 a=>a", "!", "!"},
		{"hard link to no name", "h=>", "!", "!"},
		{"hard link to the root", "h=>/", "!", "!"},
		{"hard link to a dot", "h=>.", "!", "!"},
		{"hard link to the parent", "h=>..", "!", "!"},
		{"hard link with a dot", "a=1 h=>./a", "a=1 h=1", "a=1 h=1"},
		{"hard link with a slash", "a=1 h=>/a", "a=1 h=1", "a=1 h=1"},
		{"hard link with up within", "a=1 h=>b/../a", "!", "!"},
		{"hard link over its target's directory", "d/ d/x=1 d=>d/x", "!", "!"},
		{"hard link, then another original", "a=1 h=>a a=2", "a=2 h=1", "!"},
		{"hard link, then over it", "a=1 h=>a h=2", "a=1 h=2", "!"},
		{"hard link over a directory", "a=1 d/ d/x=2 d=>a", "a=1 d=1", "!"},
		{"hard link over a link", "a=1 l->$C/secret l=>a", "a=1 l=1", "!"},
		{"hard link to the manifest", "h=>../manifest", "!", "!"},
		{"proc root", "l->/proc/self/root$C l/secret=x", "", "l/ l/secret=x"},
		{"proc cwd", "l->/proc/self/cwd/canary l/secret=x", "", "l/ l/secret=x"},
		{"proc fd", "l->/proc/self/fd/3 l/secret=x", "", "l/ l/secret=x"},
		{"dev fd", "l->/dev/fd/4 l/secret=x", "", "l/ l/secret=x"},
		{"proc exe, file over it", "l->/proc/self/exe l=x", "l=x", "!"},
		{"forty links", repeat(39, "l#->l#x/../l#y") + "l0/x=1", "", ""},
		{"chain of 60", "l60/ " + repeat(60, "l#->m#") + repeat(60, "m#->l#") + "l0/x=1", "!", ""},
		{"chain of 39", chain(39) + "l0/x=1", "", ""},
		{"chain of 41", chain(41) + "l0/x=1", "!", ""},
		{"links that double", doubling(30) + "l29/x=1", "!", ""},
		{"link of 1000", "l->" + strings.Repeat("a", 1000), "", ""},
		{"link of 4095", "l->" + strings.Repeat("a", 4095), "?", "?"},
		{"link of 4096", "l->" + strings.Repeat("a", 4096), "!", "!"},
		{"link of 4095 gone through", "l->" + strings.Repeat("a/", 2047) + "a l/x=1", "?", "l/ l/x=1"},
		{"long links in a row", "l->" + strings.Repeat("a/", 2000) + "m a/m->x " + strings.Repeat("a/", 20) + "x=1 l/y=2", "?", "?"},
		{"link with a long component", "l->" + strings.Repeat("a", 300) + " l/x=1", "!", "l/ l/x=1"},
	} {
		c.lines(r.name, r.text, r.layer, r.image)
	}
	c.both("link to nothing", "!", "!", func(b *builder, top string) { b.sym(top+"l", "") })
	c.both("link target with a NUL", "!", "!", func(b *builder, top string) {
		b.put(header{name: top + "l", typ: '2', records: []string{"linkpath=a\x00b"}})
	})
	c.both("hard link with content", "?", "?", func(b *builder, top string) {
		b.file(top+"a", "1")
		b.put(header{name: top + "h", link: top + "a", typ: '1', body: []byte("content")})
	})
	c.both("directory with content", "?", "?", func(b *builder, top string) {
		b.put(header{name: top + "d", typ: '5', mode: 0o755, body: []byte("content"), before: nil})
		b.file(top+"a", "1")
	})
	c.both("link with content", "?", "?", func(b *builder, top string) {
		b.put(header{name: top + "l", link: c.decoy, typ: '2', body: []byte("content")})
		b.file(top+"a", "1")
	})
}

// chain is n links that lead to one another and to a directory.
func chain(n int) string {
	var out strings.Builder
	for i := range n {
		out.WriteString("l" + itoa(i) + "->l" + itoa(i+1) + " ")
	}
	return out.String() + "l" + itoa(n) + "/ "
}

// doubling is links each of which goes through the one before twice.
func doubling(n int) string {
	out := strings.Builder{}
	out.WriteString("d/ l0->d ")
	for i := 1; i < n; i++ {
		p := "l" + itoa(i-1)
		out.WriteString("l" + itoa(i) + "->" + p + "/../" + p + " ")
	}
	return out.String()
}
