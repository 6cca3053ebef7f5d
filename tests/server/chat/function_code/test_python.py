"""What is read from Python code, as tables: code and schema."""

from __future__ import annotations

from typing import Any

import pytest

from .reading import ANY_OBJECT, ARRAY, BOOLEAN, INTEGER, NULL, NUMBER, STRING, nullable, read, takes

PYTHON_FUNCTIONS = {
    "def f(): pass": takes({}),
    "def f(a, b): pass": takes({"a": {}, "b": {}}),
    "async def f(a: str) -> int:\n    return 1": takes({"a": STRING}),
    "@tool(name='x')\n@other\ndef f(a: str): pass": takes({"a": STRING}),
    "def f(a: str, b: int = 1, c=None): pass": takes({"a": STRING}, {"b": INTEGER, "c": {}}),
    "def f(a, /, b, *, c, d=1): pass": takes({"a": {}, "b": {}, "c": {}}, {"d": NUMBER}),
    "def f(a, *args: int): pass": takes({"a": {}}),
    "def f(a: int, **kwargs: str): pass": takes({"a": INTEGER}, more=True),
    "def f(**kwargs): pass": ANY_OBJECT,
    "def f(\n    a: str,  # (the city\n    b: int = (1, 2)[0],\n): pass": takes({"a": STRING}, {"b": INTEGER}),
    "def f(a='x', b=2.5, c=True, d=[1], e={}, g=-1, h=g(1, 2), i=lambda x, y=1: x, j=1): pass": takes(
        {},
        {
            "a": STRING,
            "b": NUMBER,
            "c": BOOLEAN,
            "d": ARRAY,
            "e": ANY_OBJECT,
            "g": NUMBER,
            "h": {},
            "i": {},
            "j": NUMBER,
        },
    ),
    "f = lambda a, b=1: a": takes({"a": {}}, {"b": NUMBER}),
    "f: Callable[..., int] = lambda a, b=lambda c: 1: a": takes({"a": {}}, {"b": {}}),
    "lambda a: a": takes({"a": {}}),
    "def f[T](a: T, b: list[T]) -> T: pass": takes({"a": {}, "b": ARRAY}),
    "class Tool:\n    def f(self, a: str): pass\n    @classmethod\n    def g(cls): pass": takes({"a": STRING}),
    "if x:\n    def f(a: int): pass\nelse:\n    def f(b: int): pass": takes({"b": INTEGER}),
    "def g(b): pass\ndef f(a):\n    def f(c): pass\n    return f": takes({"a": {}}),
    "class A:\n    def f(self, a): pass\ndef f(b): pass": takes({"b": {}}),
    "def f(stadt: str, größe: int): pass": takes({"stadt": STRING, "größe": INTEGER}),
    '"""def f(x): pass"""\ndef f(a): pass  # def f(y): pass': takes({"a": {}}),
    "def f(a): pass\nx = (1,\ndef broken(": takes({"a": {}}),
    # Not understood:
    "def f(a, a): pass": ANY_OBJECT,
    "def f(a b): pass": ANY_OBJECT,
    "def f(a, (b, c)): pass": ANY_OBJECT,
    "def f(a:, b): pass": ANY_OBJECT,
    "def f(a=): pass": ANY_OBJECT,
    "def f(if): pass": ANY_OBJECT,
    "def f(a, b: pass": ANY_OBJECT,
    "def f(a)": ANY_OBJECT,
    "f = 1": ANY_OBJECT,
    "": ANY_OBJECT,
}


@pytest.mark.parametrize(("code", "schema"), PYTHON_FUNCTIONS.items())
def test_python_functions(code: str, schema: Any) -> None:
    assert read(code) == schema


PYTHON_TYPES = {
    "str": STRING,
    "bool": BOOLEAN,
    "None": NULL,
    "Any": {},
    "object": {},
    "bytes": {},
    "Callable[[int], str]": {},
    "list": ARRAY,
    "tuple": ARRAY,
    "dict": ANY_OBJECT,
    "list[str]": {"type": "array", "items": STRING},
    "typing.List[typing.Any]": ARRAY,
    "Sequence[list[int]]": {"type": "array", "items": {"type": "array", "items": INTEGER}},
    "set[float]": {"type": "array", "items": NUMBER},
    "tuple[int, ...]": {"type": "array", "items": INTEGER},
    "Tuple[int, str]": {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2},
    "tuple[()]": ARRAY,
    "dict[str, int]": {"type": "object", "additionalProperties": INTEGER},
    "Mapping[str, Any]": ANY_OBJECT,
    "Optional[str]": nullable(STRING),
    "str | None": nullable(STRING),
    "(str) | (None)": nullable(STRING),
    "Union[int, str, None, int]": {"anyOf": [INTEGER, STRING, NULL]},
    "int | (str | list[int | None])": {
        "anyOf": [INTEGER, STRING, {"type": "array", "items": nullable(INTEGER)}],
    },
    "int | Unknown": {},
    'Literal["a", -1, 1.5, None, True]': {"anyOf": [{"enum": ["a", -1, 1.5, True]}, NULL]},
    'Literal["C"] | Literal["F"]': {"enum": ["C", "F"]},
    "Literal[1, True]": {"enum": [1, True]},
    'Literal["a\\n\\"", r"\\n"]': {"enum": ['a\n"', "\\n"]},
    'Literal["\\N{DASH}"]': STRING,
    "Literal[Color.RED]": {},
    "Literal[0x10, 12345678901234567890]": NUMBER,
    "\"list['int'] | None\"": nullable({"type": "array", "items": INTEGER}),
    'Annotated[int, "how many", Field(gt=1)]': INTEGER,
    "datetime.date": STRING,
    "UUID": STRING,
    "list[": {},
    "int str": {},
    "x if y else z": {},
}


@pytest.mark.parametrize(("annotation", "schema"), PYTHON_TYPES.items())
def test_python_types(annotation: str, schema: Any) -> None:
    assert read(f"def f(before: int, a: {annotation}): pass") == takes({"before": INTEGER, "a": schema})


PYTHON_DECLARATIONS = {
    "class T(TypedDict):\n    a: str\n    b: NotRequired[int]": takes({"a": STRING}, {"b": INTEGER}),
    "class T(TypedDict, total=False):\n    a: Required[str]\n    b: int": takes({"a": STRING}, {"b": INTEGER}),
    "@dataclass(frozen=True)\nclass T:\n    '''About.'''\n    a: str\n    b: list[int] = field(default_factory=list)\n"
    "    kinds: ClassVar[int] = 1\n    def g(self):\n        c: int = 1\n        return c": takes(
        {"a": STRING}, {"b": {"type": "array", "items": INTEGER}}
    ),
    "class T(pydantic.BaseModel):\n    a: str = Field(..., description='b')\n    b: int = Field(1)\n"
    "    c: bool = Field(gt=2)": {
        **takes({"a": STRING}, {"b": INTEGER, "c": BOOLEAN}),
        "required": ["a", "c"],
    },
    "class B:\n    a: str\nclass T(B):\n    b: int = 1": takes({"a": STRING}, {"b": INTEGER}),
    "class T: a: str; b: int = 1": takes({"a": STRING}, {"b": INTEGER}),
    "class T:\n    a: str\n    next: 'T | None' = None": takes({"a": STRING}, {"next": {}}),
    "class U(TypedDict):\n    x: float\nclass T(TypedDict):\n    u: list[U]": takes(
        {"u": {"type": "array", "items": takes({"x": NUMBER})}}
    ),
    'class T(str, Enum):\n    """About."""\n    A = "a"\n    B = "b"\n    def g(self): pass': {"enum": ["a", "b"]},
    "class T(enum.IntEnum):\n    A = 1\n    B = auto()": {},
    'T = Literal["C", "F"]': {"enum": ["C", "F"]},
    "T: TypeAlias = 'int | str'": {"anyOf": [INTEGER, STRING]},
    "type T = int | None": nullable(INTEGER),
    "T = NewType('T', int)": {},
    "class T:\n    def __init__(self, a): pass\n    a: int": {},
    "class T(Unknown):\n    a: int": {},
    "class T: pass": {},
}


@pytest.mark.parametrize(("declaration", "schema"), PYTHON_DECLARATIONS.items())
def test_types_declared_in_python(declaration: str, schema: Any) -> None:
    assert read(f"{declaration}\n\ndef f(a: T): pass") == takes({"a": schema})
    assert read(f"def f(a: T): pass\n\n{declaration}\n") == takes({"a": schema})
