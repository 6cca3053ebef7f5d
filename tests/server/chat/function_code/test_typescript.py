"""What is read from JavaScript and TypeScript code, as tables: code and schema."""

from __future__ import annotations

from typing import Any

import pytest

from .reading import ANY_OBJECT, ARRAY, BOOLEAN, INTEGER, NULL, NUMBER, STRING, nullable, read, takes

AB = takes({"a": {}}, {"b": NUMBER})

JAVASCRIPT_FUNCTIONS = {
    "function f() {}": takes({}),
    "function f(a, b = 1) { return a }": AB,
    "async function f(a, b = 1) {}": AB,
    "function* f(a, b = 1) {}": AB,
    "export default async function f(a, b = 1) {}": AB,
    "export default function (a, b = 1) {}": AB,
    "const f = (a, b = 1) => a": AB,
    "export const f = async (a, b = 1) => { return g((c) => c) }": AB,
    "let f = a => a": takes({"a": {}}),
    "var f = function (a, b = 1) {}": AB,
    "f = function g(a, b = 1) {}": AB,
    "module.exports.f = async (a, b = 1) => a": AB,
    "exports['f'] = (a, b = 1) => a": AB,
    "module.exports = { g(c) {}, f: async (a, b = 1) => a }": AB,
    "export default { async f(a, b = 1) {}, g: 1 }": AB,
    "const tools = { 'f': (a, b = 1) => { return 1 }, h: x => x }": AB,
    "{ f: async (a, b = 1) => a }": AB,
    "async f(a, b = 1) { return a }": AB,
    "(a, b = 1) => a": AB,
    "(function f(a, b = 1) {})": AB,
    "class Tool extends Base {\n  constructor(c) { super(c) }\n  async f(a, b = 1) {}\n}": AB,
    "class Tool { static f = (a, b = 1) => a; g(c) {} }": AB,
    "function g(c) { function f(d) {} return f }\nfunction f(a, b = 1) {}": AB,
    "const g = c => d => c\nconst f = (a, b = 1) => a": AB,
    "app.get('/', (req) => 1)\nconst f = (a, b = 1) => a": AB,
    "const s = `function f(x) {} ${`}`}`\nfunction f(a, b = 1) {}": AB,
    "const r = /[/'\"]function f(/;\n// function f(y) {}\nfunction f(a, b = 1) {} /* function f(z) {} */": AB,
    "function f(a, ...rest) {}": takes({"a": {}}),
    "function f(a = 'x', b = -2, c = true, d = [1, 2], e = {}, g = null, h = `x${1}`, i = g(1), j = new X()) {}": takes(
        {},
        {
            "a": STRING,
            "b": NUMBER,
            "c": BOOLEAN,
            "d": ARRAY,
            "e": ANY_OBJECT,
            "g": {},
            "h": STRING,
            "i": {},
            "j": {},
        },
    ),
    "function f({ a, b = 1 }) {}": AB,
    "const f = ({ a, b: { c }, 'd-e': g = 'x', ...rest }) => a": takes({"a": {}, "b": {}}, {"d-e": STRING}, more=True),
    "const f = ({ a, b = 1 } = {}) => a": takes({}, {"a": {}, "b": NUMBER}),
    "const f = ({ ...rest }) => rest": ANY_OBJECT,
    # Not understood:
    "function f({ a }, b) {}": ANY_OBJECT,
    "function f([a]) {}": ANY_OBJECT,
    "function f({ [a]: b }) {}": ANY_OBJECT,
    "function f(a, a) {}": ANY_OBJECT,
    "function f(a b) {}": ANY_OBJECT,
    "function f(a, b {": ANY_OBJECT,
    "f(a, b)": ANY_OBJECT,
    "if (f) { f(a) }": ANY_OBJECT,
    "const f = other": ANY_OBJECT,
}


@pytest.mark.parametrize(("code", "schema"), JAVASCRIPT_FUNCTIONS.items())
def test_javascript_functions(code: str, schema: Any) -> None:
    assert read(code) == schema


CITY = takes({"city": STRING}, {"unit": {"enum": ["C", "F"]}})

TYPESCRIPT_FUNCTIONS = {
    "function f(a: string, b?: number): string {}": takes({"a": STRING}, {"b": NUMBER}),
    "export async function f(a: string, b: number = 1): Promise<{ c: string }> {}": takes({"a": STRING}, {"b": NUMBER}),
    "const f = (a: string): a is string => true": takes({"a": STRING}),
    "const f = async (a: Array<string>, b: Map<string, number>): Promise<void> => {}": takes(
        {"a": {"type": "array", "items": STRING}, "b": {}}
    ),
    "const f: Handler = async (a: string) => a": takes({"a": STRING}),
    "const f: (a: string) => void = (a) => {}": takes({"a": STRING}),
    "function f<T extends string>(a: T, b: T[]) {}": takes({"a": {}, "b": ARRAY}),
    "function f(this: Window, a: string) {}": takes({"a": STRING}),
    "function f(a: string): void;\nfunction f(a: string, b?: number): void {}": takes({"a": STRING}, {"b": NUMBER}),
    "declare function f(a: string): void;": takes({"a": STRING}),
    "class A { constructor(private x) {}\n async f(@Param('a') a: string, b: number): Promise<void> {} }": takes(
        {"a": STRING, "b": NUMBER}
    ),
    "function f({ city, unit = 'C' }: { city: string; unit?: 'C' | 'F' }) {}": CITY,
    "function f({ city, unit = 'C' }: { city: string, unit: 'C' | 'F' }): void {}": CITY,
    "type Args = {\n  city: string\n  unit?: 'C' | 'F'\n}\nexport const f = async ({ city }: Args) => city": CITY,
    "interface Args {\n  readonly city: string\n  unit?:\n    | 'C'\n    | 'F'\n}\nfunction f({ city }: Args) {}": CITY,
    "function f({ city }: Unknown) {}": takes({"city": {}}),
    "function f({ city }: { city: string } = { city: 'x' }) {}": takes({}, {"city": STRING}),
    "function f(args: { city: string; unit?: 'C' | 'F' }) {}": takes({"args": CITY}),
}


@pytest.mark.parametrize(("code", "schema"), TYPESCRIPT_FUNCTIONS.items())
def test_typescript_functions(code: str, schema: Any) -> None:
    assert read(code) == schema


TYPESCRIPT_TYPES = {
    "string": STRING,
    "boolean": BOOLEAN,
    "bigint": INTEGER,
    "null": NULL,
    "undefined": NULL,
    "any": {},
    "unknown": {},
    "object": ANY_OBJECT,
    "{}": ANY_OBJECT,
    "Date": STRING,
    "Promise<string>": {},
    "string[]": {"type": "array", "items": STRING},
    "number[][]": {"type": "array", "items": {"type": "array", "items": NUMBER}},
    "readonly (string | null)[]": {"type": "array", "items": nullable(STRING)},
    "ReadonlyArray<Array<boolean>>": {"type": "array", "items": {"type": "array", "items": BOOLEAN}},
    "[string, number]": {"type": "array", "prefixItems": [STRING, NUMBER], "minItems": 2, "maxItems": 2},
    "[x: string, y: number]": {"type": "array", "prefixItems": [STRING, NUMBER], "minItems": 2, "maxItems": 2},
    "[string, number?]": ARRAY,
    "[string, ...number[]]": ARRAY,
    "Record<string, number>": {"type": "object", "additionalProperties": NUMBER},
    "Record<string, unknown>": ANY_OBJECT,
    "{ [key: string]: number }": {"type": "object", "additionalProperties": NUMBER},
    "{ b: string; [key: string]: string }": {**takes({"b": STRING}), "additionalProperties": STRING},
    "string | number | null": {"anyOf": [STRING, NUMBER, NULL]},
    "| 'a' | \"b\"": {"enum": ["a", "b"]},
    "'a' | -1 | 2.5 | true | null": {"anyOf": [{"enum": ["a", -1, 2.5, True]}, NULL]},
    "'a' | string": {"anyOf": [{"enum": ["a"]}, STRING]},
    "`a-${string}`": STRING,
    "1e3": NUMBER,
    "{ b: string, 'c-d'?: { e: number }, g(x: string): void, h: () => void }": {
        **takes({"b": STRING, "c-d": takes({"e": NUMBER}), "h": {}}),
        "required": ["b", "h"],
    },
    "{ b: string } & { c?: number }": takes({"b": STRING}, {"c": NUMBER}),
    "Partial<{ b: string }>": takes({}, {"b": STRING}),
    "Required<{ b?: string }>": takes({"b": STRING}),
    "Readonly<string>": STRING,
    "A & B": {},
    "typeof x": {},
    "keyof X": {},
    "X['y']": {},
    "(x: string) => void": {},
    "X extends string ? 1 : 2": {},
    "<": {},
}


@pytest.mark.parametrize(("annotation", "schema"), TYPESCRIPT_TYPES.items())
def test_typescript_types(annotation: str, schema: Any) -> None:
    assert read(f"function f(before: number, a: {annotation}) {{}}") == takes({"before": NUMBER, "a": schema})


TYPESCRIPT_DECLARATIONS = {
    "interface T { a: string; b?: number }": takes({"a": STRING}, {"b": NUMBER}),
    "export interface T {\n  // about a\n  a: string,\n  b?: number\n  c(): void\n}": takes(
        {"a": STRING}, {"b": NUMBER}
    ),
    "interface U { a: string }\ninterface T extends U { b?: number }": takes({"a": STRING}, {"b": NUMBER}),
    "interface T extends Unknown { b?: number }": {},
    "interface T { a: string; next: T }": takes({"a": STRING, "next": {}}),
    "export type T = 'a' | 'b';": {"enum": ["a", "b"]},
    "type T =\n  | 'a'\n  | 'b'\nconst x = 1": {"enum": ["a", "b"]},
    "type U = { x: number }\ntype T = U[]": {"type": "array", "items": takes({"x": NUMBER})},
    "type T = T[]": ARRAY,
    "type T<X> = X[]": ARRAY,
    "enum T { A = 'a', B = 'b' }": {"enum": ["a", "b"]},
    "const enum T { A, B }": {},
    "class T { a: string }": {},
}


@pytest.mark.parametrize(("declaration", "schema"), TYPESCRIPT_DECLARATIONS.items())
def test_types_declared_in_typescript(declaration: str, schema: Any) -> None:
    assert read(f"{declaration}\nfunction f(a: T) {{}}") == takes({"a": schema})
    assert read(f"function f(a: T) {{}}\n{declaration}") == takes({"a": schema})
