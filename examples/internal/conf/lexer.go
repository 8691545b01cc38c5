package conf

import (
	"os"
	"strings"
)

// tokenKind is what the lexer found.
type tokenKind uint8

const (
	tokenEOF    tokenKind = iota
	tokenWord             // a name or a value, quoted or not
	tokenOpen             // {
	tokenClose            // }
	tokenEqual            // =
	tokenAppend           // +=
	tokenComma            // ,
	tokenBad              // text says what is wrong
)

// token is one lexical element. For words, text is the value without quotes
// and with its escapes and variables replaced.
type token struct {
	kind   tokenKind
	text   string
	line   int
	quoted bool
}

// describe names the token for an error message.
func (t token) describe() string {
	switch t.kind {
	case tokenEOF:
		return "the end of the file"
	case tokenWord:
		return "'" + t.text + "'"
	case tokenOpen:
		return "'{'"
	case tokenClose:
		return "'}'"
	case tokenEqual:
		return "'='"
	case tokenAppend:
		return "'+='"
	case tokenComma:
		return "','"
	case tokenBad:
	}
	return t.text
}

// lexer splits the text of a file into tokens. It never fails: what it does
// not understand becomes a tokenBad.
type lexer struct {
	src    string
	pos    int
	line   int
	getenv func(string) (string, bool) // for ${NAME}; nil: the environment
	warn   func(line int, text string)
}

func (l *lexer) lookup(name string) (string, bool) {
	if l.getenv != nil {
		return l.getenv(name)
	}
	return os.LookupEnv(name)
}

// next returns the next token, and tokenEOF for ever at the end.
func (l *lexer) next() token {
	if bad, ok := l.skip(); !ok {
		return bad
	}
	if l.pos >= len(l.src) {
		return token{kind: tokenEOF, line: l.line}
	}
	line := l.line
	punct := func(k tokenKind, n int) token {
		l.pos += n
		return token{kind: k, line: line}
	}
	switch c := l.src[l.pos]; c {
	case '{':
		return punct(tokenOpen, 1)
	case '}':
		return punct(tokenClose, 1)
	case '=':
		return punct(tokenEqual, 1)
	case ',':
		return punct(tokenComma, 1)
	case '+':
		if strings.HasPrefix(l.src[l.pos:], "+=") {
			return punct(tokenAppend, 2)
		}
		return l.bad(line, "stray '+' (quote the value that holds it)", 1)
	case '(', ')':
		return l.bad(line, "stray '"+string(c)+"' (quote the value that holds it)", 1)
	case '"', '\'':
		return l.quoted(c)
	}
	if strings.HasPrefix(l.src[l.pos:], "${") {
		return l.variable()
	}
	return l.word()
}

func (l *lexer) bad(line int, text string, width int) token {
	l.pos += width
	return token{kind: tokenBad, text: text, line: line}
}

// skip passes white space and comments.
func (l *lexer) skip() (token, bool) {
	for l.pos < len(l.src) {
		rest := l.src[l.pos:]
		switch {
		case rest[0] == '\n':
			l.line++
			l.pos++
		case rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r' || rest[0] == '\f' || rest[0] == '\v':
			l.pos++
		case rest[0] == '#' || strings.HasPrefix(rest, "//"):
			n := strings.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			l.pos += n
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				line := l.line
				l.pos = len(l.src)
				return token{kind: tokenBad, text: "comment is never closed with */", line: line}, false
			}
			l.line += strings.Count(rest[:n+4], "\n")
			l.pos += n + 4
		default:
			return token{}, true
		}
	}
	return token{}, true
}

// wordEnd holds the octets that end an unquoted word.
const wordEnd = " \t\r\n\f\v\"'={}()+,#"

func (l *lexer) word() token {
	start := l.pos
	for l.pos < len(l.src) {
		rest := l.src[l.pos:]
		if strings.IndexByte(wordEnd, rest[0]) >= 0 || strings.HasPrefix(rest, "//") || strings.HasPrefix(rest, "/*") {
			break
		}
		l.pos++
	}
	t := token{kind: tokenWord, text: l.src[start:l.pos], line: l.line}
	if t.text == "" { // cannot happen: next has dealt with all of wordEnd
		return l.bad(l.line, "unexpected octet", 1)
	}
	if l.pos < len(l.src) && l.src[l.pos] == '#' && l.warn != nil {
		l.warn(l.line, "a comment starts right behind '"+t.text+"'; put the value in quotes if the # belongs to it")
	}
	return t
}

// variable reads ${NAME} or ${NAME:-default} where a value may stand.
func (l *lexer) variable() token {
	line := l.line
	text, n, ok := l.expand(l.src[l.pos:])
	if !ok {
		return l.bad(line, "'${' without '}'", 2)
	}
	l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
	l.pos += n
	return token{kind: tokenWord, text: text, line: line, quoted: true}
}

// expand replaces the variable at the start of s, and returns its length.
func (l *lexer) expand(s string) (text string, n int, ok bool) {
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return "", 0, false
	}
	name, def, _ := strings.Cut(s[2:end], ":-")
	if v, set := l.lookup(name); set {
		return v, end + 1, true
	}
	return def, end + 1, true
}

// quoted reads a string in single or double quotes. It may span lines; a
// backslash at the end of a line joins it with the next.
func (l *lexer) quoted(quote byte) token {
	line := l.line
	l.pos++
	var b strings.Builder
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		switch {
		case c == quote:
			l.pos++
			return token{kind: tokenWord, text: b.String(), line: line, quoted: true}
		case c == '\\' && l.pos+1 < len(l.src):
			l.escape(&b, quote)
			continue
		case c == '$' && quote == '"' && strings.HasPrefix(l.src[l.pos:], "${"):
			if text, n, ok := l.expand(l.src[l.pos:]); ok {
				l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
				b.WriteString(text)
				l.pos += n
				continue
			}
		case c == '\n':
			l.line++
		}
		b.WriteByte(c)
		l.pos++
	}
	return token{kind: tokenBad, text: "string is never closed with " + string(quote), line: line}
}

// simpleEscapes are the escapes of double-quoted strings that stand for one octet.
var simpleEscapes = map[byte]byte{
	'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'f': '\f', 'a': '\a', 'v': '\v', 'e': 0x1b,
}

// escape replaces the escape sequence at the current position. Single quotes
// know \\, \' and the line joint only; everything else stays as it is there.
func (l *lexer) escape(b *strings.Builder, quote byte) {
	c := l.src[l.pos+1]
	l.pos += 2
	switch {
	case c == '\n':
		l.line++
	case quote == '\'':
		if c != '\\' && c != '\'' {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	case c == 'x' && l.pos < len(l.src) && isHex(l.src[l.pos]):
		b.WriteByte(l.number(16, 2))
	case c >= '0' && c <= '7':
		l.pos--
		b.WriteByte(l.number(8, 3))
	default:
		if r, ok := simpleEscapes[c]; ok {
			c = r
		}
		b.WriteByte(c)
	}
}

// number reads up to digits digits; more than an octet holds is cut off.
func (l *lexer) number(base, digits int) byte {
	v := 0
	for ; digits > 0 && l.pos < len(l.src); digits-- {
		c := l.src[l.pos]
		if !isHex(c) || (base == 8 && (c < '0' || c > '7')) {
			break
		}
		v = v*base + hexValue(c)
		l.pos++
	}
	return byte(v)
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func hexValue(c byte) int {
	switch {
	case c >= 'a':
		return int(c-'a') + 10
	case c >= 'A':
		return int(c-'A') + 10
	}
	return int(c - '0')
}
