"""The package's reference: one page for each module, in reStructuredText, read from the source without importing it.

A signature stands as its author wrote it, ``Float[Tensor, "batch time dim"]``, with the comments that explain the
fields of a dataclass. What has no docstring, and what begins with an underscore, is left out.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pfmcourse.base import repository, require

NOT_SHOWN = ("pfmcourse.__main__", "pfmcourse.cli")  # commands explain themselves: pfmcourse --help
LOOPS = (ast.GeneratorExp, ast.ListComp, ast.DictComp, ast.SetComp, ast.Lambda)  # Sphinx cannot read these as defaults
SPECIAL, BACKSLASH = re.compile(r"([*|_`\\])"), r"\\\1"
GOOGLE = re.compile(r"^(Args|Returns|Yields|Raises):$", re.MULTILINE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> dict[str, Path]:
    """Every module that is shown, by its dotted name; a package comes before its modules."""
    root = repository() / "pfmcourse"
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = ("pfmcourse", *path.relative_to(root).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in NOT_SHOWN:
            found[name] = path
    return dict(sorted(found.items()))


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring, as markdown."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = re.split(r"(?<=[.?!])\s", " ".join(text.split("\n\n")[0].split()))[0]
    return re.sub(r"``?([^`]+)``?", r"`\1`", first)


def _default(node: ast.expr) -> ast.expr:
    """A default as it is, or an ellipsis where a loop makes it."""
    return ast.Constant(...) if any(isinstance(one, LOOPS) for one in ast.walk(node)) else node


def _arguments(node: Function, method: bool) -> str:
    given = node.args
    given.defaults = [_default(one) for one in given.defaults]
    given.kw_defaults = [one and _default(one) for one in given.kw_defaults]
    first = given.posonlyargs or given.args
    if method and first and first[0].arg in ("self", "cls"):
        first.pop(0)
    return ast.unparse(given)


def _decorators(node: Function | ast.ClassDef) -> set[str]:
    """The last names of what decorates ``node``: ``dataclass`` for ``@dataclasses.dataclass(frozen=True)``."""
    calls = (one.func if isinstance(one, ast.Call) else one for one in node.decorator_list)
    return {ast.unparse(one).rpartition(".")[2] for one in calls}


def _doc(node: Function | ast.ClassDef | ast.Module) -> str:
    """A docstring in reStructuredText; lists of arguments in Google's style become fields."""
    text = ast.get_docstring(node) or ""
    if GOOGLE.search(text):
        text = str(require("sphinx.ext.napoleon", "sphinx", "the site").GoogleDocstring(text))
    return text


def _indented(lines: str) -> str:
    return textwrap.indent(lines, "   ")


def _function(node: Function, method: bool) -> str:
    decorators = _decorators(node)
    returns = ast.unparse(node.returns) if node.returns else ""
    doc = _doc(node)
    if method and decorators & {"property", "cached_property"}:
        return (
            f".. py:property:: {node.name}\n" + (f"   :type: {returns}\n" if returns else "") + f"\n{_indented(doc)}\n"
        )
    kind = "method" if method else "function"
    options = [f"   :{one}:\n" for one in ("classmethod", "staticmethod") if one in decorators]
    options += ["   :async:\n"] if isinstance(node, ast.AsyncFunctionDef) else []
    arrow = f" -> {returns}" if returns and returns != "None" else ""
    signature = f"{node.name}({_arguments(node, method and 'staticmethod' not in decorators)}){arrow}"
    return f".. py:{kind}:: {signature}\n{''.join(options)}\n{_indented(doc)}\n"


def _fields(node: ast.ClassDef, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """(name, name with type and default, comment) of each field of a dataclass."""
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            if "ClassVar" in ast.unparse(field.annotation) or field.target.id.startswith("_"):
                continue
            default = f" = {ast.unparse(_default(field.value))}" if field.value else ""
            rest = lines[field.end_lineno - 1].encode()[field.end_col_offset :].decode().strip()
            comment = rest.removeprefix("#").strip() if rest.startswith("#") else ""
            yield field.target.id, f"{field.target.id}: {ast.unparse(field.annotation)}{default}", comment


def _class(node: ast.ClassDef, lines: list[str]) -> str:
    arguments, notes = "", []
    if "dataclass" in _decorators(node):
        fields = list(_fields(node, lines))
        arguments = f"({', '.join(field for _, field, _ in fields)})" if fields else ""
        notes = [f"* ``{name}``: {SPECIAL.sub(BACKSLASH, note)}" for name, _, note in fields if note]
    made = next((one for one in node.body if isinstance(one, Function) and one.name == "__init__"), None)
    if made:
        arguments = f"({_arguments(made, True)})"
    kind = "exception" if any(ast.unparse(base).endswith("Error") for base in node.bases) else "class"
    inside = [_doc(node), "\n".join(notes)]
    if node.bases:
        inside.insert(0, "Extends " + ", ".join(f"`{ast.unparse(base)}`" for base in node.bases) + ".")
    inside += _members(node.body, lines, method=True)
    content = "\n\n".join(part for part in inside if part)
    return f".. py:{kind}:: {node.name}{arguments}\n\n{_indented(content)}\n"


def _members(body: list[ast.stmt], lines: list[str], method: bool = False) -> Iterator[str]:
    """Each public class and function with a docstring, in the order of the source."""
    for node in body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_") or not ast.get_docstring(node):
            continue
        if not _decorators(node) & {"overload", "setter"}:
            yield _class(node, lines) if isinstance(node, ast.ClassDef) else _function(node, method)


def page(name: str, path: Path) -> str:
    """The page of one module: its docstring, then its classes and functions."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    parts = [name, "=" * len(name), "", f".. py:module:: {name}", "", _doc(tree), ""]
    return "\n".join([*parts, *_members(tree.body, text.splitlines())]) + "\n"
