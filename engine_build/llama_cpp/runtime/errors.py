"""What a caller can have got wrong."""


class RequestError(ValueError):
    """A request cannot be taken as it is; the text names the tensor, its value and what is allowed."""
