"""Grammars that an answer must follow: made from JSON Schemas, regular expressions and EBNF, sent as EBNF."""
