"""Input tensors of a request: numpy arrays by the names of the `tensorrt_llm` contract, and single values in them."""

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any

from numpy.typing import NDArray

from .errors import RequestError

Tensors = Mapping[str, NDArray[Any]]

_INT32_MAX = 2**31 - 1


class TensorReader:
    """Scalars out of tensors, checked: closed ranges unless said otherwise; no NaN, no infinity.

    Every method raises RequestError with the tensor's name, its value and what is allowed.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    def has(self, name: str) -> bool:
        """Whether the request has the tensor."""
        return name in self._tensors

    def tensor(self, name: str) -> NDArray[Any]:
        """The tensor, which must be there."""
        if name not in self._tensors:
            raise RequestError(f"{name} is not present in the request")
        return self._tensors[name]

    def integer(self, name: str, default: int | None, minimum: int, maximum: int = _INT32_MAX) -> int:
        """A whole number; the tensor must be there where `default` is None."""
        if default is not None and not self.has(name):
            return default
        value = int(self._scalar(name))
        if not minimum <= value <= maximum:
            raise RequestError(f"{name} is {value}, outside [{minimum}, {maximum}]")
        return value

    def real(
        self, name: str, default: float, minimum: float = -inf, maximum: float = inf, *, above_minimum: bool = False
    ) -> float:
        """A finite number; `above_minimum` leaves the minimum itself out."""
        if not self.has(name):
            return default
        value = float(self._scalar(name))
        if not isfinite(value) or not minimum <= value <= maximum or (above_minimum and value == minimum):
            opening = "(" if above_minimum or minimum == -inf else "["
            closing = ")" if maximum == inf else "]"
            raise RequestError(f"{name} is {value:g}, outside {opening}{minimum:g}, {maximum:g}{closing}")
        return value

    def flag(self, name: str) -> bool:
        """A truth value, False where the tensor is not there."""
        return bool(self._scalar(name)) if self.has(name) else False

    def text(self, name: str, most_bytes: int) -> str:
        """A text of at most so many bytes of UTF-8, empty where the tensor is not there."""
        value = self._scalar(name) if self.has(name) else b""
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
        if len(data) > most_bytes:
            raise RequestError(f"{name} is {len(data)} bytes long; at most {most_bytes} are possible")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RequestError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from None

    def _scalar(self, name: str) -> Any:
        tensor = self.tensor(name)
        if tensor.size != 1:
            raise RequestError(f"{name} has shape {list(tensor.shape)}; it must hold one value")
        return tensor.reshape(-1)[0]
