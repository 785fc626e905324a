"""What Python files define, by Python's own parser: `python3 facts.py FOLDER < PATHS` prints JSON, a list of
{path, facts, bound, imports} for the paths in the folder, one a line, that it can parse. `bound` holds every name that is bound anywhere in the file, by whatever, as often as
it is: a name bound once in a repository has one answer to "where is it defined?"."""

import ast
import json
import pathlib
import re
import sys

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def names_bound(tree):
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, (ast.arg, ast.keyword)) and node.arg:
            yield node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def first_sentence(node):
    paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    match = re.match(r".+?\.(?=\s|$)", paragraph)
    return match.group() if match else None


def function_fact(node):
    arguments = node.args
    names = [argument.arg for argument in arguments.args]
    values = [None] * (len(names) - len(arguments.defaults)) + [ast.unparse(value) for value in arguments.defaults]
    named = [(name, value) for name, value in zip(names, values) if name not in ("self", "cls")]
    parameters = [name if value is None else f"{name}={value}" for name, value in named]
    parameters += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    parameters += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    return {
        "kind": "function",
        "name": node.name,
        "doc": first_sentence(node),
        # Markers (`/`, `*`) have no place in a list of names.
        "parameters": None if arguments.posonlyargs or arguments.kwonlyargs else parameters,
        "defaults": [[name, value] for name, value in zip(names, values) if value is not None],
        "returns": ast.unparse(node.returns) if node.returns else None,
    }


def constant_fact(node, text):
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if len(node.targets) == 1 else None
    value = node.value.operand if isinstance(node.value, ast.UnaryOp) else node.value
    source = ast.get_source_segment(text, node.value) if node.value else None
    # Where the file writes a literal as Python would print it, there is no question of how to quote it.
    if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and source == ast.unparse(node.value):
        yield {"kind": "constant", "name": target.id, "value": source}


def facts_of(body, text, in_class=False):
    for node in body:
        if isinstance(node, FUNCTIONS):
            yield {**function_fact(node), "inClass": in_class}
        elif isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            yield {"kind": "class", "name": node.name, "doc": first_sentence(node), "bases": bases, "inClass": in_class}
            yield from facts_of(node.body, text, in_class=True)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for fact in constant_fact(node, text):
                yield {**fact, "inClass": in_class}


def modules_imported(tree):
    """Those of the statements at the top of the file, each once, in order."""
    modules = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append("." * node.level + (node.module or ""))
    return list(dict.fromkeys(modules))


def main(folder):
    files = []
    for path in sys.stdin.read().splitlines():
        try:
            text = pathlib.Path(folder, path).read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (OSError, SyntaxError, ValueError):
            continue
        files.append(
            {
                "path": path,
                "facts": list(facts_of(tree.body, text)),
                "bound": list(names_bound(tree)),
                "imports": modules_imported(tree),
            }
        )
    json.dump(files, sys.stdout)


main(sys.argv[1])
