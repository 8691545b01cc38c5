// Package conformance keeps docs/CONFORMANCE.md true: its test finds which
// protocol requirements the tests of this module name, and compares.
//
// A requirement's id is document, section and ordinal of the sentence in it:
// 9301-5.3-5 is the fifth normative sentence of RFC 9301 §5.3. testdata lists
// them with the level of the sentence and the package it concerns; "implied" and
// "stated" are rules without an upper-case keyword.
package conformance
