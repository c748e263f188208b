"""`NamedTuple` and `Any` without the module `typing`, which takes as long to import as all checks take to judge.

Type checkers see typing's own. At run time a record is a tuple with names, made without compiling a constructor for
each class: `typing` and its two dozen named tuples were 9 of the 34 ms of CPU time that the imports of a pass took.
"""

from __future__ import annotations

from operator import itemgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as Any
    from typing import NamedTuple as NamedTuple
else:
    Any = object

    class _Record(tuple):
        """What every record can do; the names are those of `typing.NamedTuple`."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012 - as the standard library has it

        def __new__(cls, *values, **named):
            if len(values) < len(cls._fields):
                try:
                    values += tuple(
                        named.pop(field) if field in named else cls._field_defaults[field]
                        for field in cls._fields[len(values) :]
                    )
                except KeyError as error:
                    raise TypeError(f"{cls.__name__}: {error} is missing") from None
            if named or len(values) != len(cls._fields):
                raise TypeError(f"{cls.__name__} has the fields {cls._fields}, not {values} and {sorted(named)}")
            return tuple.__new__(cls, values)

        def _replace(self, **named):
            values = [named.pop(field, value) for field, value in zip(self._fields, self)]  # noqa: B905 - new in 3.10
            if named:
                raise ValueError(f"{type(self).__name__} has no {sorted(named)}")
            return tuple.__new__(type(self), values)

        def _asdict(self):
            return dict(zip(self._fields, self))  # noqa: B905

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            words = ", ".join(f"{field}={value!r}" for field, value in self._asdict().items())
            return f"{type(self).__name__}({words})"

    class _Named(type):
        """Makes a record of `class Finding(NamedTuple): check: str; detail: str = ""`."""

        def __new__(cls, name, bases, space):
            fields = tuple(space.get("__annotations__", ()))
            defaults = {field: space[field] for field in fields if field in space}
            space.update({field: property(itemgetter(place)) for place, field in enumerate(fields)})
            space.update(__slots__=(), _fields=fields, _field_defaults=defaults)
            return type(name, (_Record,), space)

    # Its class is _Named, so the class statements that name it as their base are made by _Named.
    NamedTuple = type.__new__(_Named, "NamedTuple", (), {})
