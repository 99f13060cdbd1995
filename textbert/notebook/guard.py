"""Guard against stale cells: refuse a cell that reads a name made from something that has changed since."""

import ast
import dis
import hashlib
import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

MAX_SIZE = 1000  # items in a list or dict that is compared by value

MAX_CHARACTERS = 1_000_000

READ = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")

BIND = ("STORE_NAME", "STORE_GLOBAL", "DELETE_NAME", "DELETE_GLOBAL")


class StaleCellError(ValueError):
    """A cell that reads a name made from something that has changed since, or whose cell did not finish."""


@dataclass
class Cell:
    """The global names in a cell's code: `reads` before it binds them, `binds` or deletes.

    functions : for each function and class that it defines, the names that are read when it is used
    """

    digest: str
    reads: dict[str, None] = field(default_factory=dict)  # as an ordered set
    binds: dict[str, None] = field(default_factory=dict)
    functions: dict[str, set[str]] = field(default_factory=dict)

    def read(self, name: str, callers: frozenset[str] = frozenset()) -> None:
        """Add a name that is read, or if it is a function of this cell the names that the function reads."""
        if name not in self.binds:
            self.reads[name] = None
        elif name not in callers:
            for inner in sorted(self.functions.get(name, ())):
                self.read(inner, callers | {name})


def _read_at_once(code: CodeType) -> bool:
    """Return True for a lambda, a comprehension or a class body, False for a function."""
    return code.co_name.startswith("<") or not code.co_flags & inspect.CO_OPTIMIZED


def _find_reads(code: CodeType, only_at_once: bool = False) -> Iterator[str]:
    """Yield the global names that the code inside a cell reads, with those of the code inside that."""
    bound_in_class = set()
    for instruction in dis.get_instructions(code):
        argument = instruction.argval
        if isinstance(argument, CodeType):
            if _read_at_once(argument) or not only_at_once:
                yield from _find_reads(argument, only_at_once)
        elif instruction.opname in READ and argument not in bound_in_class:
            yield argument
        elif instruction.opname == "STORE_NAME":
            bound_in_class.add(argument)


def find_names(source: str | ast.Module) -> Cell:
    """Return the names of a cell from its compiled code; raise SyntaxError if it is not valid Python."""
    tree = ast.parse(source) if isinstance(source, str) else source
    code = compile(tree, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    cell = Cell(ast.dump(tree))
    for instruction in dis.get_instructions(code):
        argument = instruction.argval
        if isinstance(argument, CodeType):
            if not argument.co_name.startswith("<"):
                cell.functions[argument.co_name] = set(_find_reads(argument))
            for name in _find_reads(argument, only_at_once=True) if _read_at_once(argument) else ():
                cell.read(name)
        elif instruction.opname in READ:
            cell.read(argument)
        elif instruction.opname in BIND:
            cell.binds[argument] = None
    return cell


def _is_plain(value: Any) -> bool:
    """Return True for a string, number or None, and for a list, tuple or dict of at most `MAX_SIZE` of them."""
    values, size = [value], 0
    while values and size <= MAX_SIZE:
        value, size = values.pop(), size + 1
        if isinstance(value, dict | list | tuple) and len(value) <= MAX_SIZE:
            values += [*value, *value.values()] if isinstance(value, dict) else value
        elif not isinstance(value, str | int | float | None) or (
            isinstance(value, str) and len(value) > MAX_CHARACTERS
        ):
            return False
    return size <= MAX_SIZE


def _describe(value: Any) -> str:
    """Return what tells a value from others of its name: itself if it is small, or its fingerprint, or nothing."""
    if isinstance(value, str | dict | list | tuple):
        return repr(value) if _is_plain(value) else ""
    fingerprint = getattr(value, "fingerprint", None) if not inspect.ismodule(value) else None
    return fingerprint if isinstance(fingerprint, str) else ""


@dataclass(frozen=True)
class Origin:
    """How a name was made.

    version : hash of the cell's code, of `inputs`, and of the small values that it bound
    inputs : versions of the names that the cell read, and values of the parameters
    functions : names that are read when it is used, if it is a function or a class
    position : number of the cell in the order in which the cells ran first
    """

    version: str
    inputs: dict[str, str]
    functions: frozenset[str]
    position: int
    finished: bool


class Guard:
    """The origins of the names in a namespace; call `check` before each cell and `record` after it.

    parameters : names that are compared by value
    """

    def __init__(self, namespace: dict[str, Any], parameters: Collection[str] = ()) -> None:
        self.namespace = namespace
        self.parameters = parameters
        self.validate: Callable[[], Any] | None = None  # raises ValueError for an invalid parameter
        self.origins: dict[str, Origin] = {}
        self.pending: list[tuple[Cell, dict[str, str]]] = []  # cells that run, one inside the other
        self.runs = 0

    def check(self, source: str | ast.Module) -> None:
        """Check a cell that is about to run.

        Raises StaleCellError, naming the earliest cell to run again, and what `validate` raises, but for a cell that
        binds or deletes a name in capitals, which may be the remedy. Code that is not valid Python is left to Python.
        """
        try:
            cell = find_names(source)
        except (SyntaxError, ValueError):
            return
        if self.validate and not any(name.isupper() for name in cell.binds):
            self.validate()
        names = self._expand(cell)
        if causes := sorted(self._find_causes(names), key=lambda cause: cause[:2]):
            raise StaleCellError(causes[0][2])
        versions = {name: self._get_version(name) for name in names}
        self.pending.append((cell, {name: version for name, version in versions.items() if version is not None}))

    def record(self, success: bool) -> None:
        """Record the names that the last cell checked has bound; `success` is False if it failed or was interrupted."""
        for cell, inputs in self.pending:
            self.runs += 1
            binds = [name for name in cell.binds if name not in self.parameters and not name.startswith("__")]
            values = [_describe(self.namespace.get(name)) for name in binds]
            state = repr((cell.digest, sorted(inputs.items()), values))
            version = hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()
            for name in binds:
                if name in self.namespace or not success:
                    functions = frozenset(cell.functions.get(name, ()))
                    position = self.origins[name].position if name in self.origins else self.runs
                    origin = Origin(version, self._without(name, inputs), functions, position, success)
                    self.origins[name] = origin
        self.pending.clear()

    def _get_version(self, name: str) -> str | None:
        if name in self.parameters:
            return repr(self.namespace.get(name))
        return self.origins[name].version if name in self.origins else None

    def _expand(self, cell: Cell) -> dict[str, None]:
        """Return the names that a cell reads, with those that functions of other cells read when it uses them."""
        names: dict[str, None] = {}
        waiting = list(cell.reads)
        while waiting:
            name = waiting.pop(0)
            if name not in names:
                names[name] = None
                functions = self.origins[name].functions if name in self.origins else frozenset()
                if getattr(self.namespace.get(name), "guard", None) is self:  # the Notebook: it has all parameters
                    functions = functions.union(self.parameters)
                waiting += sorted(functions - cell.binds.keys())
        return names

    def _closure(self, names: Collection[str]) -> dict[str, None]:
        """Return names with all that they were made from."""
        closure, waiting = dict.fromkeys(names), list(names)
        while waiting:
            origin = self.origins.get(waiting.pop(0))
            new = [name for name in (origin.inputs if origin else ()) if name not in closure]
            closure |= dict.fromkeys(new)
            waiting += new
        return closure

    def _find_causes(self, names: Collection[str]) -> Iterator[tuple[int, int, str]]:
        """Yield (position, order in which it was found, message) of the stale names among `names` and their inputs."""
        for order, name in enumerate(self._closure(names)):
            origin = self.origins.get(name)
            if origin and not origin.finished:
                yield origin.position, order, f"the cell that makes `{name}` did not finish: run it again"
            if origin is None:
                continue
            for input_name, version in origin.inputs.items():
                current, cause = self._get_version(input_name), f"`{name}` was made"
                if current != version and input_name in self.parameters:
                    cause += f" with {input_name} {version}, which is {current} now"
                elif current != version:
                    cause += f" from `{input_name}`, which has changed since"
                else:
                    continue
                yield origin.position, order, f"{cause}: run again from the cell that makes `{name}`"

    def _without(self, name: str, inputs: dict[str, str]) -> dict[str, str]:
        """Return inputs of a name, with those that were made from the name itself replaced by their own inputs.

        So a cell that changes a name, such as `count = count + 1`, can run again.
        """
        result: dict[str, str] = {}
        for input_name, version in inputs.items():
            if name not in self.origins or name not in self._closure([input_name]):
                result[input_name] = version
            elif input_name in self.origins:
                result |= self._without(name, self.origins[input_name].inputs)
        return result


def guard_shell(guard: Guard, shell: Any) -> None:
    """Check each cell of an IPython shell with a guard from the next one on, in place of an earlier guard."""
    from IPython.core.error import InputRejected

    class RefusedCell(StaleCellError, InputRejected):
        """The error for which IPython does not run a cell."""

        def _render_traceback_(self) -> list[str]:
            return [f"{type(self).__name__}: {self}"]  # without a traceback, which has nothing of the reader's

    class CellChecker:
        """Transform the syntax tree of each cell into itself, or refuse it."""

        def visit(self, tree: ast.Module) -> ast.Module:
            """Return the tree of a cell; raise RefusedCell, with the reason."""
            try:
                guard.check(tree)
            except (ValueError, ImportError) as error:
                raise RefusedCell(str(error)) from None
            return tree

    def record(result: Any) -> None:
        if result.error_before_exec is None:
            guard.record(result.success)
        guard.pending.clear()

    for function in [*shell.events.callbacks["post_run_cell"]]:
        if function.__qualname__ == record.__qualname__:
            shell.events.unregister("post_run_cell", function)
    transformers = [item for item in shell.ast_transformers if type(item).__qualname__ != CellChecker.__qualname__]
    shell.ast_transformers = [*transformers, CellChecker()]
    shell.events.register("post_run_cell", record)
