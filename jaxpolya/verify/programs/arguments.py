"""Whether tests look at arguments that a function may have changed in place.

Python shows a caller what a function does to the lists that it is given, and some tests are about that (`k = dedupe(xs)`, then `xs[:k]`).
But a test may also expect something of the very list: in `assert f(xs) == sorted(xs)` a program that empties `xs` and returns `[]`
would be right. So changes by a function that returns something are shown only if tests read such an argument again, and never in a
comparison whose other side comes from the program. (A function that returns nothing has nothing to compare: its changes always are.)
"""

import ast
import sys
from collections.abc import Iterator


def shown(tree: ast.Module, names: set[str]) -> bool:
    """Whether changes are to be shown to tests, whose program defines some names."""
    parameters = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    imported = {(node.asname or node.name).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.alias)}
    imported |= sys.stdlib_module_names
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_programs(node, names | parameters, imported)]
    inside = {id(each) for call in calls for each in (*call.args, *(keyword.value for keyword in call.keywords))}
    passed = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) in inside}
    reads = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in inside]
    if not passed & {node.id for node in reads}:
        return False
    told = _derived(tree, {id(call) for call in calls} | {id(node) for node in reads if node.id in names}, set())
    changed = _derived(tree, set(), passed, skipped=inside)

    def comes(node: ast.AST, marked: set[int], known: set[str], skipped: set[int]) -> bool:
        return any(id(each) in marked or (isinstance(each, ast.Name) and each.id in known) for each in _walk(node, skipped))

    marked = {id(call) for call in calls}
    for node in ast.walk(tree):
        sides: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and id(node) not in marked:
            sides = [*node.args, *(keyword.value for keyword in node.keywords)]
        for side in sides:
            others = [other for other in sides if other is not side]
            if comes(side, marked, told, set()) and any(comes(other, set(), changed, inside) for other in others):
                return False
    return True


def _is_programs(call: ast.Call, names: set[str], imported: set[str]) -> bool:
    """Whether a call may be one of the program's: of its name, of a parameter, or of a method of whatever it may have made."""
    root: ast.AST = call.func
    while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
        root = root.func if isinstance(root, ast.Call) else root.value
    if not isinstance(root, ast.Name) or _is_assertion(call):
        return False
    return root.id in names or (isinstance(call.func, ast.Attribute) and root.id not in imported)


def _is_assertion(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr.lower().startswith("assert")


def _derived(tree: ast.AST, marked: set[int], known: set[str], skipped: set[int] = frozenset()) -> set[str]:  # type: ignore[assignment]
    """Names that get their values, by whatever way, from marked nodes or from known names."""
    names = set(known)
    while True:
        more = set()
        for node in ast.walk(tree):
            source, targets = _binding(node)
            if source and any(id(each) in marked or (isinstance(each, ast.Name) and each.id in names) for each in _walk(source, skipped)):
                more |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        if more <= names:
            return names
        names |= more


def _binding(node: ast.AST) -> tuple[ast.AST | None, list[ast.AST]]:
    if isinstance(node, ast.Assign):
        return node.value, list(node.targets)
    if isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        return node.value, [node.target]
    if isinstance(node, ast.For | ast.comprehension):
        return node.iter, [node.target]
    if isinstance(node, ast.withitem) and node.optional_vars:
        return node.context_expr, [node.optional_vars]
    return None, []


def _walk(node: ast.AST, skipped: set[int]) -> Iterator[ast.AST]:
    """A node and what is in it, without what is skipped."""
    if id(node) not in skipped:
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, skipped)
