package conf

import "strings"

// maxDepth bounds how deep sections nest; the formats need two.
const maxDepth = 8

// value is one value of an option, and where it stands.
type value struct {
	text string
	line int
}

// item is an option with its values, or a section.
type item struct {
	name    string // lower case
	line    int
	values  []value
	list    bool     // given in braces
	extend  bool     // given with +=
	section *section // nil for an option
}

// section is the content of a file or of one section in it.
type section struct {
	name  string // lower case, dotted path; empty for the file
	line  int
	items []item
}

// parser builds the tree of a file. The first syntax error ends it: what
// follows one is guesswork.
type parser struct {
	lex   lexer
	tok   token
	probs *problems
}

// parse reads the whole text. It reports syntax errors to probs, and returns
// what was read before them.
func parse(src string, getenv func(string) (string, bool), probs *problems) *section {
	p := &parser{probs: probs}
	p.lex = lexer{src: strings.TrimPrefix(src, "\ufeff"), line: 1, getenv: getenv, warn: func(line int, text string) {
		probs.warnf(line, "", "%s", text)
	}}
	p.advance()
	root := &section{line: 1}
	p.body(root, 0)
	return root
}

func (p *parser) advance() { p.tok = p.lex.next() }

func (p *parser) fail(option, format string, args ...any) bool {
	if p.tok.kind == tokenBad {
		p.probs.errorf(p.tok.line, option, "%s", p.tok.text)
		return false
	}
	p.probs.errorf(p.tok.line, option, format, args...)
	return false
}

// body reads items until the end of the section, and reports whether all went well.
func (p *parser) body(s *section, depth int) bool {
	for {
		switch p.tok.kind {
		case tokenEOF:
			if depth > 0 {
				return p.fail(s.name, "the section opened in line %d is never closed with '}'", s.line)
			}
			return true
		case tokenClose:
			if depth == 0 {
				return p.fail("", "'}' closes nothing")
			}
			p.advance()
			return true
		case tokenWord:
			if !p.item(s, depth) {
				return false
			}
		default:
			return p.fail(s.name, "expected the name of an option, found %s", p.tok.describe())
		}
	}
}

func (p *parser) item(s *section, depth int) bool {
	name := p.tok
	it := item{name: strings.ToLower(name.text), line: name.line}
	path := join(s.name, it.name)
	p.advance()
	switch p.tok.kind {
	case tokenOpen:
		if depth+1 >= maxDepth {
			return p.fail(path, "sections are nested too deeply")
		}
		it.section = &section{name: path, line: name.line}
		p.advance()
		ok := p.body(it.section, depth+1)
		s.items = append(s.items, it)
		return ok
	case tokenEqual, tokenAppend:
		it.extend = p.tok.kind == tokenAppend
		p.advance()
		ok := p.values(&it, path)
		s.items = append(s.items, it)
		return ok
	default:
		return p.fail(path, "expected '=' or '{' behind '%s', found %s", name.text, p.tok.describe())
	}
}

// values reads the value, or the list of values, behind an equal sign.
func (p *parser) values(it *item, path string) bool {
	if p.tok.kind == tokenWord {
		it.values = []value{{p.tok.text, p.tok.line}}
		p.advance()
		return true
	}
	if p.tok.kind != tokenOpen {
		return p.fail(path, "expected a value, found %s", p.tok.describe())
	}
	it.list = true
	p.advance()
	for {
		if p.tok.kind == tokenClose { // an empty list, or a comma before the brace
			p.advance()
			return true
		}
		if p.tok.kind != tokenWord {
			return p.fail(path, "expected a value of the list, found %s", p.tok.describe())
		}
		it.values = append(it.values, value{p.tok.text, p.tok.line})
		p.advance()
		switch p.tok.kind {
		case tokenComma:
			p.advance()
		case tokenClose:
		default:
			return p.fail(path, "expected ',' or '}' in the list opened in line %d, found %s", it.line, p.tok.describe())
		}
	}
}

// join makes a dotted path.
func join(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}
